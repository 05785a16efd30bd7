"""A Delay with several taps: what leaves it at each step, on every engine, and what is refused of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, EventInputs
from spikeserve.models.engines import EngineName, create
from spikeserve.models.engines.base import Record, State
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.price import Price
from tests.networks import network_of, task

Nodes = list[dict[str, Any]]
TAPS: Nodes = [{"type": "Delay", "name": "seen", "taps": [0, 2, 3]}]


def recorded(nodes: Nodes, shape: Sequence[int], leaving: int, coding: str = "spikes", tensors: Any = None) -> Network:
    """Return nodes before an LI that keeps nothing, so that its membranes are what leaves them."""
    last: Nodes = [{"type": "Flatten", "name": "flat"}, {"type": "LI", "name": "out", "decay": 0.0}]
    around = task(shape, 6, leaving, coding, readout="last_membrane", low=-8, high=8)
    return network_of([*nodes, *last], tensors or {}, **around)


def tapped(x: FloatArray, taps: Sequence[int]) -> FloatArray:
    """Return the inputs (steps, batch, *shape) of each so many steps before, side by side."""
    steps = len(x)
    before = np.concatenate([np.zeros((max(taps), *x.shape[1:]), np.float32), x])
    return np.concatenate([before[max(taps) - tap :][:steps] for tap in taps], axis=2)


@pytest.mark.parametrize("engine", list(EngineName))
@pytest.mark.parametrize("taps", [[0], [3], [0, 1, 5], [0, 2, 4, 6, 40], [1, 90000]])
@pytest.mark.parametrize("shape", [(3,), (5, 2), (3, 2, 2)])
def test_what_leaves_is_each_taps_input_side_by_side(
    engine: EngineName, taps: list[int], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(len(taps))
    nodes: Nodes = [{"type": "Delay", "name": "seen", "taps": taps}]
    network = recorded(nodes, shape, len(taps) * int(np.prod(shape)))
    found = create(engine, network)
    spikes = (rng.random((6, 2, *shape)) < 0.5).astype(np.float32)
    values = rng.integers(-8, 9, spikes.shape).astype(np.float32)
    for x in (spikes, values, np.zeros_like(spikes)):
        expected = tapped(x, taps).reshape(6, 2, -1)
        for inputs in (DenseInputs(x, 6), EventInputs.of(DenseInputs(x, 6))):
            result, whole = found.run(inputs, record=Record.MEMBRANE)
            np.testing.assert_array_equal(result.membranes["out"], expected)
        state: State | None = None
        for step in range(6):
            result, state = found.run(DenseInputs(x[step : step + 1], 1), state, record=Record.MEMBRANE)
            np.testing.assert_array_equal(result.membranes["out"][0], expected[step])
        assert state is not None
        line = np.concatenate([np.zeros((taps[-1], *x.shape[1:]), np.float32), x])[6:].swapaxes(0, 1)
        for each in (state, whole):  # the last inputs once, whatever the taps
            np.testing.assert_array_equal(each.arrays["seen.line"], line)


@pytest.mark.parametrize("engine", list(EngineName))
def test_a_constant_input_arrives_at_each_tap_when_it_is_due_through_two_delays(engine: EngineName) -> None:
    # Taps 0 and 2 of a constant 3, and then 0 and 1 of both: [x, x two ago] and the same of the step before.
    nodes: Nodes = [
        {"type": "Delay", "name": "first", "taps": [0, 2]},
        {"type": "Delay", "name": "second", "taps": [0, 1]},
    ]
    inputs = DenseInputs(np.full((1, 1, 1), 3, np.float32), 4)
    result, _ = create(engine, recorded(nodes, (1,), 4, "direct")).run(inputs, record=Record.MEMBRANE)
    np.testing.assert_array_equal(
        result.membranes["out"][:, 0], [[3, 0, 0, 0], [3, 0, 3, 0], [3, 3, 3, 0], [3, 3, 3, 3]]
    )


@pytest.mark.parametrize("engine", list(EngineName))
def test_taps_and_a_linear_are_a_causal_convolution_over_time(engine: EngineName) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.integers(-4, 5, (3, 4, 3)).astype(np.float32)  # (outputs, inputs, taps), the newest first
    linear = {"type": "Linear", "name": "over", "in_features": 12, "out_features": 3, "bias": False}
    weight = kernel.transpose(0, 2, 1).reshape(3, 12)
    network = recorded([*TAPS, linear], (4,), 3, tensors={"over.weight": weight})
    x = (rng.random((6, 2, 4)) < 0.4).astype(np.float32)
    result, _ = create(engine, network).run(DenseInputs(x, 6), record=Record.MEMBRANE)
    for t in range(6):
        expected = sum(x[t - tap] @ kernel[:, :, k].T for k, tap in enumerate((0, 2, 3)) if tap <= t)
        np.testing.assert_array_equal(result.membranes["out"][t], expected)
    # A spike meets a row of weights at each of its taps that come within the run.
    spikes = x.sum(axis=2)
    np.testing.assert_array_equal(
        result.synaptic_operations, 3 * sum(spikes[: 6 - tap].sum(axis=0) for tap in (0, 2, 3)).astype(np.int64)
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "node 'seen': has neither delay nor taps, expected one of them"),
        ({"delay": 1, "taps": [0]}, "node 'seen': has delay and taps, expected one of them"),
        ({"taps": []}, "taps.*at least 1 item"),
        ({"taps": [-1, 0]}, "taps.*greater than or equal to 0"),
        ({"taps": [0, 100_001]}, "taps.*less than or equal to 100000"),
        ({"taps": [0, 2, 2]}, "node 'seen': taps has 2 after 2, expected ascending steps"),
        ({"taps": [0, 1.5]}, "taps.*integer"),
        ({"taps": [*range(100_000)]}, r"node 'seen': its output has shape 3000000000, 3000000000 values"),
    ],
)
def test_taps_that_are_none_are_refused_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    inputs = 30_000 if len(fields.get("taps", ())) > 10 else 1
    around = task(inputs, 6, 1, "spikes", readout="last_membrane")
    with pytest.raises(InvalidSpec, match=sentence) as raised:
        Spec.read({"nodes": [TAPS[0] | {"taps": None} | fields, {"type": "LI", "name": "out", "decay": 0.5}], **around})
    assert "\n" not in str(raised.value)


def test_the_price_is_one_line_of_inputs_and_an_output_for_each_tap() -> None:
    few, many = (
        Price.of(recorded([{"type": "Delay", "name": "seen", "taps": taps}], (10,), 10 * len(taps)).spec).nodes[1]
        for taps in ([9], [*range(10)])
    )
    assert few.carried == many.carried == 4 * 9 * 10
    assert (many.per_step, many.running) == (10 * few.per_step, 10 * few.running)
