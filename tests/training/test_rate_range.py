"""The learning-rate range test: rates that rise by equal factors, the suggestion, and the command."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from spikeserve.models.spec import Readout
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.devices import launch
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.rate_range import DIVERGED, RateRange, find_learning_rate
from tests.training.command_line import training_here


def found(config: TrainingConfig, data: Dataset, **options: float) -> RateRange:
    steps = int(options.pop("steps"))
    return find_learning_rate(architecture_for(config, data), data, config, launch(config), steps=steps, **options)


def test_the_rate_rises_by_equal_factors_from_the_lowest_to_the_highest(config: TrainingConfig, data: Dataset) -> None:
    # 115 samples in batches of 16 are 8 steps an epoch: 10 steps go into the second one.
    assert len(data.training) == 115
    steps = found(config, data, steps=10, lowest=1e-9, highest=1.0).rates
    assert steps == pytest.approx([10.0**power for power in range(-9, 1)])


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_least_smoothed_loss() -> None:
    # The smoothed loss is least at the third rate, where the batch's own is not.
    seen = RateRange((0.001, 0.01, 0.1, 1.0), (2.0, 0.5, 1.0, 9.0), (2.0, 1.2, 1.1, 3.0))
    assert seen.suggestion == pytest.approx(0.01)


def test_it_learns_at_good_rates_and_ends_where_the_loss_has_risen(config: TrainingConfig, data: Dataset) -> None:
    # A membrane has no bound, and so has the loss of one that is far too large.
    network = config.network.model_copy(update={"readout": Readout.MEAN_MEMBRANE})
    config = config.model_copy(update={"network": network})
    seen = found(config, data, steps=120, lowest=1e-4, highest=1e4)
    assert len(seen.rates) < 120
    assert seen.smoothed[-1] > DIVERGED * min(seen.smoothed) >= seen.smoothed[-2]
    # The same weights and batches with rates that change nothing: what was seen above is learning.
    still = found(config, data, steps=40, lowest=1e-12, highest=1e-11)
    assert min(still.smoothed) > min(seen.smoothed)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 1}, "steps: is 1, expected at least 2"),
        (
            {"steps": 5, "lowest": 0.1, "highest": 0.1},
            "lowest: is 0.1, expected more than 0 and less than highest, 0.1",
        ),
        ({"steps": 5, "lowest": 0.0}, "lowest: is 0, expected more than 0"),
        ({"steps": 5, "highest": math.inf}, "lowest: is 1e-06, expected more than 0 and less than highest, inf"),
    ],
)
def test_a_range_that_does_not_rise_is_refused(
    options: dict[str, float], sentence: str, config: TrainingConfig, data: Dataset
) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        found(config, data, **options)


def test_the_command_prints_the_suggestion_and_draws_it(stripes: Path, tmp_path: Path) -> None:
    result = training_here(
        "lr-range", "--dataset", "arrays", "--file", stripes, "--architecture", "8", "--time-steps", "4",
        "--batch-size", "16", "--steps", "12", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Suggested learning rate ")
    assert "The rate of the configuration is 0.002; the defaults were chosen by the accuracy" in result.stdout
    assert (tmp_path / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["learning_rate.png"]  # it is no run
