"""What is small enough to run on the event loop is bounded by work, not by hope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spikeserve.models.spec import Coding, Spec
from spikeserve.service.catalog.cost import OPERATIONS, SECONDS, Cost, operations
from spikeserve.service.catalog.loaded import LoadedModel
from tests.networks import toy
from tests.serving import serving


def test_a_request_is_small_up_to_the_time_and_the_operations_that_are_bounded() -> None:
    # A quarter of the time for a step: four steps, of one sample or of several, are just quick enough.
    slow = Cost(seconds=SECONDS / 4, operations_once=0, operations_per_step=1)
    assert slow.is_small(1, 4)
    assert slow.is_small(4, 1)
    assert not slow.is_small(1, 5)
    assert not slow.is_small(5, 1)
    # Half of the operations at once and an eighth at each step: four steps, however fast they were measured.
    wide = Cost(seconds=0.0, operations_once=OPERATIONS // 2, operations_per_step=OPERATIONS // 8)
    assert wide.is_small(1, 4)
    assert not wide.is_small(1, 5)
    assert not wide.is_small(2, 1)


FC, OUT = {"name": "fc", "type": "Linear", "bias": False}, {"type": "LIF", "name": "out", "decay": 0.5}


@pytest.mark.parametrize(
    ("shape", "nodes", "expected"),
    [
        # Two inputs, 2 × 2 weights, two sums; and at each step two neurons.
        ([2], [FC | {"in_features": 2, "out_features": 2}, OUT], (6, 2)),
        # One channel of 2 × 2 pixels, each under one window of 1 × 1 for each of three channels: 12 weights, 12 sums,
        # once. Then at each step 12 neurons; 12 flattened; 12 × 2 weights, 2 sums; 2 neurons, each heard by both.
        (
            [1, 2, 2],
            [
                {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 3, "kernel_size": [1, 1]},
                {"type": "LIF", "name": "lif", "decay": 0.5},
                {"type": "Flatten", "name": "flat"},
                {"type": "Linear", "name": "fc", "in_features": 12, "out_features": 2},
                OUT | {"recurrent": {"bias": False}},
            ],
            (12 + 12, 12 + 12 + 24 + 2 + 2 + 4),
        ),
        # What a delay leaves is not the same at all steps. Two delayed inputs, 2 × 2 weights, two sums, two neurons.
        (
            [2],
            [{"type": "Delay", "name": "later", "delay": 1}, FC | {"in_features": 2, "out_features": 2}, OUT],
            (0, 2 + 4 + 2 + 2),
        ),
        # The input's four values are reshaped once. Scaled at each step: 4. A product of 2 × 2 with 2 × 2: 8, and its
        # four values; four flattened and four neurons.
        (
            [4],
            [
                {"type": "Reshape", "name": "square", "shape": [2, 2]},
                {"type": "Scale", "name": "norm", "scale": "per_channel", "steps": 5},
                {"type": "MatMul", "name": "product", "inputs": ["square", "norm"]},
                {"type": "Flatten", "name": "flat"},
                OUT,
            ],
            (4, 4 + 8 + 4 + 4 + 4),
        ),
    ],
    ids=["linear", "convolution and recurrence", "delay", "scale with steps and product"],
)
def test_operations_are_all_weights_and_neurons_and_those_of_a_constant_input_count_once(
    shape: list[int], nodes: list[dict[str, Any]], expected: tuple[float, float]
) -> None:
    classes = 2 if shape != [4] else 4
    spec = {"input": {"shape": shape}, "time_steps": 5, "nodes": nodes, "labels": list("abcd")[:classes]}
    assert operations(Spec.read(spec)) == expected


def test_operations_of_events_count_at_every_step() -> None:
    assert operations(toy(Coding.SPIKES).spec) == (0, 8)


def test_what_a_model_costs_is_measured_when_it_loads(repository: Path) -> None:
    with serving(repository) as client:
        model: LoadedModel = client.app.state.services.catalog.get()  # type: ignore[attr-defined]
    assert 0 < model.cost.seconds < 1
    assert (model.cost.operations_once, model.cost.operations_per_step) == (6, 2)
