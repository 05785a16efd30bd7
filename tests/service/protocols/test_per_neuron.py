"""Every parameter of every neuron may be one array for a layer: the definition, which every engine agrees with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import (
    RF,
    Adaptive,
    Alpha,
    Current,
    Driven,
    Leaky,
    Neuron,
    ProgramBase,
    Spiking,
    SpikingBase,
)
from tests.networks import network_of
from tests.same import EVERYTHING

NEURONS, STEPS = 3, 12
# A program has parameters of its own, see tests/models/test_program.py.
KINDS: list[Any] = [kind for kind in get_args(Neuron) if not issubclass(kind, ProgramBase)]


def variants(kind: Any) -> Iterator[dict[str, Any]]:
    """Yield a neuron's rules under which each of its parameters is used, and an array, at least once."""
    charges: list[tuple[dict[str, Any], list[str]]] = [({}, [])]
    if issubclass(kind, Driven):
        charges = [({}, ["drive"])]
    if issubclass(kind, Leaky):
        rates = [({"charge": "euler"}, ["rate", "leak"]), ({"charge": "relax"}, ["tau", "leak"])]
        squares = ({"charge": "quadratic"}, ["tau", "leak", "curvature", "critical"])
        growing = ({"charge": "exponential"}, ["rate", "leak", "sharpness", "critical"])
        charges = [({}, ["decay", "drive"]), *rates, squares, growing]
    for number, (rule, names) in enumerate(charges):
        fields, arrays = {"type": kind.__name__, "name": "out"} | rule, list(names)
        if issubclass(kind, Driven):
            arrays += ["gain", "start"]
        if issubclass(kind, Current):
            fields |= {"synapse": "decay" if number == 0 else "euler"}
            arrays += ["syn_decay" if number == 0 else "syn_rate", "syn_gain"]
        if issubclass(kind, SpikingBase):
            fields |= {"reset": "value"}
            arrays += ["reset_value", "floor"]
        if "refractory" in kind.model_fields and number != 1:
            arrays += ["refractory"]
        if issubclass(kind, Adaptive):
            fields |= {"adapt": {1: "relax", 4: "current"}.get(number, "count")}
            arrays += ["adapt_rate" if number in (1, 4) else "adapt_decay", "adapt_gain"]
            arrays += {1: [], 4: ["adapt_coupling"]}.get(number, ["adapt_spike"])
        if issubclass(kind, Alpha):
            arrays += ["gain", "exc_decay", "inh_decay"]
        if issubclass(kind, RF):
            arrays = [name for name in kind.model_fields if name in NEURON_PARAMETERS and name != "threshold"]
        if issubclass(kind, get_args(Spiking)):
            arrays += ["threshold"]
        yield fields | dict.fromkeys(arrays, "per_neuron")


CASES = [pytest.param(node, id=f"{kind.__name__}-{node.get('charge')}") for kind in KINDS for node in variants(kind)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_cases_make_an_array_of_every_parameter(kind: Any) -> None:
    arrays = {name for node in variants(kind) for name, value in node.items() if value == "per_neuron"}
    assert arrays == NEURON_PARAMETERS.keys() & kind.model_fields.keys()


def network(node: dict[str, Any], tensors: dict[str, Any], neurons: int) -> Network:
    fires = node["type"] in {kind.__name__ for kind in get_args(Spiking)}
    return network_of(
        [node],
        tensors,
        input={"shape": [neurons], "low": -4, "high": 4},
        coding="spikes",
        time_steps=STEPS,
        readout="spike_count" if fires else "last_membrane",
        labels=[str(neuron) for neuron in range(neurons)],
    )


def values(node: dict[str, Any]) -> dict[str, FloatArray]:
    """Return arrays of other values for each neuron, such that layers fire and rest.

    They are 0.2 to 0.7, but tau is 1.2 to 1.7; a curvature is a sixteenth of that, as a membrane squares itself. Where
    one grows exponentially from is eight times as much, and so is the gain of an Alpha and of an RF, which share the
    current out between two states.
    """
    factors = {"curvature": 1 / 16} | ({"gain": 8.0} if node["type"] in ("Alpha", "RF") else {})
    factors |= {"critical": 8.0} if node.get("charge") == "exponential" else {}
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.2, 0.7, NEURONS).astype(np.float32) for name in node if node[name] == "per_neuron"}
    arrays = {name: array + np.float32(name == "tau") for name, array in arrays.items()}
    return {name: array * np.float32(factors.get(name, 1.0)) for name, array in arrays.items()}


@pytest.mark.parametrize("node", CASES)
def test_a_layer_with_arrays_is_as_many_neurons_with_numbers(node: dict[str, Any]) -> None:
    arrays = values(node)
    rng = np.random.default_rng(1)
    steps = (rng.integers(-8, 17, (STEPS, 1, NEURONS)) / 8).astype(np.float32)
    alone = [
        ReferenceEngine(network(node | {name: float(array[n]) for name, array in arrays.items()}, {}, 1)).run(
            DenseInputs(steps[:, :, n : n + 1], STEPS), record=EVERYTHING
        )[0]
        for n in range(NEURONS)
    ]
    membranes = np.concatenate([result.membranes["out"] for result in alone], axis=2)
    fires = bool(alone[0].rasters)
    counts = np.concatenate([result.spike_counts for result in alone], axis=1)

    layer = network(node, {f"out.{name}": array for name, array in arrays.items()}, NEURONS)
    result, _ = ReferenceEngine(layer).run(DenseInputs(steps, STEPS), record=EVERYTHING)
    np.testing.assert_array_equal(result.membranes["out"], membranes)
    np.testing.assert_array_equal(result.spike_counts, counts)
    assert not fires or 0 < counts.sum() < STEPS * NEURONS
