"""Neurons that adapt, by hand, on every engine: the threshold rises with each spike and falls back in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import EngineName, RunResult, State, create
from spikeserve.models.spec.network import FloatArray, Network
from tests.networks import network_of
from tests.same import EVERYTHING

pytestmark = pytest.mark.parametrize("engine", list(EngineName))

ALIF: dict[str, Any] = {"type": "ALIF", "decay": 0.5, "adapt_decay": 0.5, "adapt_gain": 0.5}
RELAX: dict[str, Any] = {"adapt": "relax", "adapt_decay": None, "adapt_rate": 0.5}


def layer(neurons: int, node: dict[str, Any], tensors: dict[str, Any] | None = None, time_steps: int = 4) -> Network:
    """Return a network of one layer, which takes a number for each of its neurons at each step as its current."""
    return network_of(
        [node | {"name": "out"}],
        {f"out.{name}": value for name, value in (tensors or {}).items()},
        input={"shape": [neurons], "low": -8, "high": 8},
        coding="spikes",
        time_steps=time_steps,
        labels=[str(neuron) for neuron in range(neurons)],
    )


def run(
    engine: EngineName, network: Network, currents: Any, state: State | None = None
) -> tuple[FloatArray, FloatArray, State]:
    """Return the membranes and the spikes of each step, both (time_steps, neurons), and the state after the last."""
    steps = np.array(currents, np.float32).reshape(len(currents), 1, -1)
    result: RunResult
    result, after = create(engine, network).run(DenseInputs(steps, len(steps)), state, record=EVERYTHING)
    return result.membranes["out"][:, 0], result.rasters["out"][:, 0].astype(np.float32), after


@pytest.mark.parametrize(
    ("fields", "currents", "expected_membrane", "expected_spikes"),
    [
        # decay, adapt_decay and adapt_gain 0.5, threshold 1.
        # 1 fires at 1, so a = 1 | 1 is below 1 + 0.5, and a = 0.5 | 0.5 + 1 passes 1.25, which leaves 0.25, and
        # a = 0.25 + 1 | 0.125 + 1.5 is just 1 + 0.625
        ({}, [1, 1, 1, 1.5], [0, 1, 0.25, 0], [1, 0, 1, 1]),
        # 1 is not above 1 | 0.5 + 1 is, which leaves 0.5 | 0.25 + 1 is not above 1.5 | 0.625 + 1.5 is above 1.25
        ({"fire": "above_threshold"}, [1, 1, 1, 1.5], [1, 0.5, 1.25, 0.875], [0, 1, 0, 1]),
        # 3 is 3 times 1, so a = 3 | 3 is once 2.5, which leaves 0.5, and a = 1.5 + 1 | 0.25 + 5 is twice 2.25
        ({"fire": "multiple"}, [3, 3, 5, 0], [0, 0.5, 0.75, 0.375], [3, 1, 2, 0]),
        # as the first, but what fires is set to 0.25: 0.125 + 1 is below 1.5 | 0.5625 + 1 passes 1.25
        ({"reset": "value", "reset_value": 0.25}, [1, 1, 1, 1.5], [0.25, 1.125, 0.25, 0.25], [1, 0, 1, 1]),
        # never reset, and always just at the threshold: 1 | 1.5 with a = 1 | 1.75 with a = 1.5
        ({"reset": "none"}, [1, 1, 1, 0], [1, 1.5, 1.75, 0.875], [1, 1, 1, 0]),
        # nothing is forgotten: after two spikes the threshold is 2, and 0.5 + 1 stays below it
        ({"adapt_decay": 1.0}, [1, 1.5, 1, 1], [0, 0, 1, 1.5], [1, 1, 0, 0]),
        # all is forgotten but the spike of the step before
        ({"adapt_decay": 0.0}, [1, 1.25, 1, 1.5], [0, 1.25, 0.625, 0.3125], [1, 0, 1, 1]),
        # a spike counts half: 1 fires, a = 0.5 | 1.25 is just 1 + 0.25, a = 0.75 | 1.25 is below 1.375, a = 0.375 |
        # 0.625 + 0.5 is below 1.1875
        ({"adapt_spike": 0.5}, [1, 1.25, 1.25, 0.5], [0, 0, 1.25, 1.125], [1, 1, 0, 0]),
        # the threshold is 1, which 1 just reaches, and rises to 1.5 | half of that falls away before 1 is below 1.25 |
        # 0.5 + 1 passes 1.125, which leaves 0.375 and rises to 1.625 | 0.1875 + 1.125 is just 1.3125
        (RELAX, [1, 1, 1, 1.125], [0, 1, 0.375, 0], [1, 0, 1, 1]),
    ],
)
@pytest.mark.parametrize("kind", ["ALIF", "CubaALIF"])
def test_a_threshold_rises_with_each_spike_from_the_next_step_on(
    engine: EngineName,
    kind: str,
    fields: dict[str, Any],
    currents: list[float],
    expected_membrane: list[float],
    expected_spikes: list[float],
) -> None:
    node = ALIF | {"type": kind} | fields | ({"syn_decay": 0.0} if kind == "CubaALIF" else {})
    membranes, spikes, _ = run(engine, layer(1, node), currents)
    assert (membranes.ravel().tolist(), spikes.ravel().tolist()) == (expected_membrane, expected_spikes)


def test_every_product_and_sum_of_an_adaptation_rounds_in_the_order_of_the_equations(engine: EngineName) -> None:
    rng = np.random.default_rng(0)
    currents = rng.normal(0.5, 0.5, (60, 40)).astype(np.float32)
    names = ("decay", "threshold", "adapt_decay", "adapt_gain")
    given = {name: rng.uniform(0.25, 1.0, 40).astype(np.float32) for name in names}
    network = layer(40, {"type": "ALIF"} | dict.fromkeys(names, "per_neuron"), given, time_steps=60)
    membranes, spikes, state = run(engine, network, currents)

    decay, threshold, adapt_decay, adapt_gain = given.values()
    v, a = np.zeros((2, 40), np.float32)
    for step, i in enumerate(currents):
        u = decay * v + i
        h = threshold + adapt_gain * a
        s = (u >= h).astype(np.float32)
        v = u - h * s
        a = adapt_decay * a + s
        np.testing.assert_array_equal(spikes[step], s)
        np.testing.assert_array_equal(membranes[step], v)
    np.testing.assert_array_equal(state.arrays["out.adaptation"][0], a)
    assert 200 < spikes.sum() < 2000


@pytest.mark.parametrize("fire", ["at_threshold", "above_threshold", "multiple"])
def test_a_neuron_that_a_spike_adds_nothing_to_is_a_lif(engine: EngineName, fire: str) -> None:
    currents = np.random.default_rng(1).normal(0.5, 1, (50, 20)).astype(np.float32)
    plain = {"decay": 0.875, "fire": fire}
    expected = run(engine, layer(20, {"type": "LIF"} | plain, time_steps=50), currents)
    found = run(engine, layer(20, ALIF | plain | {"adapt_gain": 0.0}, time_steps=50), currents)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("fire", ["at_threshold", "multiple"])
def test_a_neuron_whose_threshold_overflows_falls_silent(engine: EngineName, fire: str) -> None:
    # A state of two spikes, each of which adds 3e38: the threshold is infinite, and the membrane no number any more.
    node = ALIF | {"fire": fire, "adapt_decay": 1.0, "adapt_gain": 3e38}
    arrays = {"out.membrane": np.zeros((1, 1)), "out.adaptation": np.full((1, 1), 2.0)}
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    state = State(np.ones(1, np.int64), floats | {"readout": np.array([[0]])})
    with np.errstate(all="ignore"):
        _, spikes, _ = run(engine, layer(1, node), [8, 8, 8], state)
    assert spikes.ravel().tolist() == [0, 0, 0]


def test_a_recurrent_layer_hears_itself_and_adapts(engine: EngineName) -> None:
    # 1 fires | its spike comes back as 1, which with 0.5 is just 1 + 0.5 | 1 comes back, below 1 + 0.75 | 0.5 is left
    network = layer(1, ALIF | {"recurrent": {}}, {"recurrent.weight": [[1.0]]})
    membranes, spikes, state = run(engine, network, [1, 0.5, 0, 0])
    assert (membranes.ravel().tolist(), spikes.ravel().tolist()) == ([0, 0, 1, 0.5], [1, 1, 0, 0])
    # a = 1 | 1.5 | 0.75 | 0.375
    assert state.arrays["out.adaptation"].tolist() == [[0.375]]
    assert state.arrays["out.spikes"].tolist() == [[0.0]]
