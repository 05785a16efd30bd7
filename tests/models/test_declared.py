"""The engines as they are declared: each once, and all that must know them reads it there."""

from __future__ import annotations

import pytest

from spikeserve.models.engines import ENGINES, EngineName, create
from spikeserve.models.engines.declared import preferred
from tests.networks import toy


def test_every_name_is_declared_in_the_same_order() -> None:
    assert tuple(ENGINES) == tuple(EngineName)


@pytest.mark.parametrize("name", list(EngineName))
def test_an_engine_is_called_what_it_is_declared_as(name: EngineName) -> None:
    assert create(name, toy()).name == name


def test_auto_tries_what_is_best_on_a_device_first() -> None:
    # PyTorch on the CPU is the slowest of them, and the one engine that runs anywhere else.
    assert preferred("cpu") == (EngineName.EVENT, EngineName.ONNX, EngineName.REFERENCE)
    assert preferred("cuda:1") == (EngineName.TORCH,)


def test_only_engines_that_take_less_time_for_a_sample_beside_others_batch() -> None:
    assert {name for name, engine in ENGINES.items() if engine.batches} == {EngineName.ONNX, EngineName.TORCH}
