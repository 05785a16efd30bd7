"""The learning rate over a run."""

from __future__ import annotations

import pytest

from spikeserve.training.config import Schedule
from spikeserve.training.fit.schedule import learning_rate_share


def test_a_cosine_falls_from_the_whole_rate_through_its_half_to_nothing() -> None:
    shares = [learning_rate_share(Schedule.COSINE, progress) for progress in (0, 0.5, 1)]
    assert shares == pytest.approx([1, 0.5, 0])


def test_one_cycle_rises_for_three_tenths_of_the_run_and_then_falls() -> None:
    # Half a cosine from 1/25 to 1, whose middle is their mean 0.52; then from 1 to 1/10000, whose mean is 0.50005.
    shares = [learning_rate_share(Schedule.ONE_CYCLE, progress) for progress in (0, 0.15, 0.3, 0.65, 1)]
    assert shares == pytest.approx([0.04, 0.52, 1, 0.50005, 1e-4])


def test_a_constant_rate_stays() -> None:
    assert [learning_rate_share(Schedule.CONSTANT, progress) for progress in (0, 0.5, 1)] == [1, 1, 1]
