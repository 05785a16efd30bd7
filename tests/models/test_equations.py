"""Each field of each node by hand, on every engine: currents in, the membrane after each step and the spikes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import encode
from spikeserve.models.engines import EngineName, Record, RunResult, create
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.exponential import exponential
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import GROWS, LEAKS, RESTS, Charge
from tests.networks import FIRING, network_of

pytestmark = pytest.mark.parametrize("engine", list(EngineName))

Node = dict[str, Any]
EVERYTHING = Record.RASTER | Record.MEMBRANE


def run(engine: EngineName, network: Network, samples: Any) -> RunResult:
    inputs = encode(np.array(samples, np.float32)[np.newaxis], network.spec)
    return create(engine, network).run(inputs, record=EVERYTHING)[0]


def one(node: Node, tensors: dict[str, Any] | None = None, **spec: Any) -> Network:
    """Return a network of one neuron, which takes a number at each step as its current."""
    fires = node["type"] in FIRING
    readout = "spike_count" if fires else "last_membrane"
    declared: dict[str, Any] = {"shape": [1], "low": -8, "high": 8}
    return network_of(
        [node | {"name": "out"}],
        tensors or {},
        **{"input": declared, "coding": "spikes", "time_steps": 4, "readout": readout, "labels": ["only"]} | spec,
    )


def membrane(engine: EngineName, node: Node, currents: list[float]) -> list[float]:
    result = run(engine, one(node), [[current] for current in currents])
    steps: list[float] = result.membranes["out"][:, 0, 0].tolist()
    return steps


def membrane_and_spikes(engine: EngineName, node: Node, currents: list[float]) -> tuple[list[float], list[int]]:
    result = run(engine, one(node), [[current] for current in currents])
    return result.membranes["out"][:, 0, 0].tolist(), result.rasters["out"][:, 0, 0].tolist()


def through(engine: EngineName, node: Node, sample: Any, outputs: int, **tensors: Any) -> list[float]:
    """Send one step of one sample through `node`, and return it flat: a membrane that keeps nothing."""
    network = network_of(
        [
            node | {"name": "node"},
            {"type": "Flatten", "name": "flat"},
            {"type": "LI", "name": "out", "decay": 0.0},
        ],
        {f"node.{name}": value for name, value in tensors.items()},
        input={"shape": np.shape(sample), "low": -8, "high": 8},
        coding="spikes",
        time_steps=1,
        readout="last_membrane",
        labels=[str(label) for label in range(outputs)],
    )
    leaving: list[float] = run(engine, network, [sample]).readout[0].tolist()
    return leaving


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # a current of 1 and then 0, gain 2; drive 0.25 or leak 0.5, and half of what there is remains
        # 0.5 * 0 + 2 + 0.25, then 0.5 * 2.25 + 0 + 0.25
        ({"charge": "decay", "decay": 0.5, "drive": 0.25}, [2.25, 1.375]),
        # what is left of 2.25 is 1.125, whose fraction is dropped: 1 + 0 + 0.25
        ({"charge": "truncated", "decay": 0.5, "drive": 0.25}, [2.25, 1.25]),
        # 0 + 0.5 * ((0.5 - 0) + 2), then 1.25 + 0.5 * ((0.5 - 1.25) + 0); the same in three orders
        ({"charge": "euler", "rate": 0.5, "leak": 0.5}, [1.25, 0.875]),
        ({"charge": "euler_input_first", "rate": 0.5, "leak": 0.5}, [1.25, 0.875]),
        ({"charge": "relax", "rate": 0.5, "leak": 0.5}, [1.25, 0.875]),
        ({"charge": "relax", "tau": 2, "leak": 0.5}, [1.25, 0.875]),
        # (0 - 0.5 * (0 - 0.5)) + 2, then (2.25 - 0.5 * (2.25 - 0.5)) + 0: the input comes in whole
        ({"charge": "leak_then_add", "rate": 0.5, "leak": 0.5}, [2.25, 1.375]),
        ({"charge": "leak_then_add", "tau": 2, "leak": 0.5}, [2.25, 1.375]),
        # 0 + (2 + 0.5 * (0 - 0.5) * (0 - 2)) / 2, then 1.25 + (0 + 0.5 * (1.25 - 0.5) * (1.25 - 2)) / 2
        ({"charge": "quadratic", "tau": 2, "curvature": 0.5, "critical": 2, "leak": 0.5}, [1.25, 1.109375]),
        ({"charge": "quadratic", "rate": 0.5, "curvature": 0.5, "critical": 2, "leak": 0.5}, [1.25, 1.109375]),
        # exp(0) = 1: 0 + 0.5 * (((0.5 - 0) + 2 * 1) + 2), then exp((2.25 - 0) / 2) = 3.0802169, times 2:
        # 2.25 + 0.5 * (((0.5 - 2.25) + 6.1604338) + 0)
        ({"charge": "exponential", "rate": 0.5, "sharpness": 2, "critical": 0, "leak": 0.5}, [2.25, 4.4552169]),
        (
            {"charge": "exponential_input_first", "tau": 2, "sharpness": 2, "critical": 0, "leak": 0.5},
            [2.25, 4.4552169],
        ),
        # (0 - 0.5 * ((1 - 2) * 0)) + 2, then (2 - 0.5 * ((1 - 0) * 2)) + 0
        ({"charge": "filter", "rate": 0.5}, [2.0, 1.0]),
    ],
)
@pytest.mark.parametrize("kind", ["LI", "LIF", "CubaLI", "CubaLIF"])
def test_each_way_to_charge(engine: EngineName, kind: str, fields: Node, expected: list[float]) -> None:
    node = {"type": kind, "gain": 2.0} | fields
    node |= {"syn_decay": 0.0} if "Cuba" in kind else {}  # a synapse that keeps nothing: j = i
    node |= {"threshold": 100} if "IF" in kind else {}
    assert membrane(engine, node, [1, 0]) == np.array(expected, np.float32).tolist()


def test_a_truncated_membrane_is_that_of_loihi_in_integers(engine: EngineName) -> None:
    # Lava's LIF: |v| * (4096 - dv) shifted right by 12, with the sign of v, and the input; above the threshold a spike.
    decay = 4096 - 700
    currents = np.random.default_rng(0).integers(-900, 1000, 200)
    expected, fired, v = [], [], 0
    for current in currents.tolist():
        v = int(np.sign(v)) * (abs(v) * decay >> 12) + current
        fired.append(int(v > 1500))
        v = 0 if fired[-1] else v
        expected.append(v)
    node = {"type": "LIF", "charge": "truncated", "decay": decay / 4096, "threshold": 1500, "fire": "above_threshold"}
    network = one(node | {"reset": "value"}, input={"shape": [1], "low": -900, "high": 1000}, time_steps=200)
    result = run(engine, network, currents[:, np.newaxis])
    assert 5 < sum(fired) < 100
    assert result.rasters["out"][:, 0, 0].tolist() == fired
    assert result.membranes["out"][:, 0, 0].tolist() == expected


def test_neurons_that_grow_by_themselves_are_as_many_as_the_layer_has(engine: EngineName) -> None:
    # u = 0 + ((0 - 0) + exp(0)) + 0 = 1 fires at each of four steps: three neurons, whatever fills a register up.
    node = {"type": "LIF", "charge": "exponential", "rate": 1, "sharpness": 1, "critical": 0, "reset": "value"}
    three: dict[str, Any] = {"input": {"shape": [3], "low": 0, "high": 8}, "labels": list("abc")}
    result = run(engine, one(node, **three), [[0, 0, 0]] * 4)
    assert result.spike_counts.tolist() == [[4, 4, 4]]
    assert np.asarray(result.spikes_per_node["out"]).tolist() == [12]


@pytest.mark.parametrize("kind", ["ALIF", "CubaALIF"])
def test_a_current_that_follows_the_membrane_and_jumps_with_a_spike_opposes_what_charges(
    engine: EngineName, kind: str
) -> None:
    # The exponential is 0, as critical is far off; rate 0.5, leak 0.5, threshold 2, reset to 0.5, and for the current
    # rate 0.25, coupling 2 and 3 for each spike, so that a = (a + (2 * (v - 0.5) - a) / 4) + 3 * s of the v before.
    # v = 0, a = 0:          u = 0 + ((0.5 - 0) + 4 - 0) / 2 = 2.25 fires, v = 0.5;  a = (0 + (-1 - 0) / 4) + 3 = 2.75
    # v = 0.5, a = 2.75:     u = 0.5 + (0 + 4 - 2.75) / 2 = 1.125;                   a = 2.75 + (0 - 2.75) / 4 = 2.0625
    # v = 1.125, a = 2.0625: u = 1.125 + (-0.625 + 4 - 2.0625) / 2 = 1.78125;
    #                        a = 2.0625 + (1.25 - 2.0625) / 4 = 1.859375
    # v = 1.78125, …:        u = 1.78125 + (-1.28125 + 4 - 1.859375) / 2 = 2.2109375 fires
    node = {"type": kind, "charge": "exponential", "rate": 0.5, "leak": 0.5, "sharpness": 1, "critical": 200}
    node |= {"threshold": 2, "reset": "value", "reset_value": 0.5, "adapt": "current", "adapt_rate": 0.25}
    node |= {"adapt_coupling": 2, "adapt_gain": 3} | ({"syn_decay": 0} if kind == "CubaALIF" else {})
    assert membrane_and_spikes(engine, node, [4, 4, 4, 4]) == ([0.5, 1.125, 1.78125, 0.5], [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("fields", "expected_membrane", "expected_spikes"),
    [
        # 1.5 fires and leaves 0.5, which stays for a step in which 4 does nothing | 0.25 + 1 fires and leaves 0.25
        ({"refractory": 1.0}, [0.5, 0.5, 0.25, 0.25], [1, 0, 1, 0]),
        # a part of a step is a step
        ({"refractory": 0.5}, [0.5, 0.5, 0.25, 0.25], [1, 0, 1, 0]),
        # two steps, and then 0.25 + 1
        ({"refractory": 2.0}, [0.5, 0.5, 0.5, 0.25], [1, 0, 0, 1]),
        # none: 0.25 + 4 fires and leaves 3.25, 1.625 + 1 leaves 1.625, 0.8125 + 1 leaves 0.8125
        ({"refractory": 0.0}, [0.5, 3.25, 1.625, 0.8125], [1, 1, 1, 1]),
        # a membrane that is reset stays at its reset value, and decays only after that
        ({"refractory": 1.0, "reset": "value", "reset_value": 0.5}, [0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "ALIF"])
def test_a_neuron_waits_its_refractory_steps_after_a_spike(
    engine: EngineName, kind: str, fields: Node, expected_membrane: list[float], expected_spikes: list[int]
) -> None:
    node = {"type": kind, "decay": 0.5} | fields | ({"syn_decay": 0.0} if "Cuba" in kind else {})
    node |= {"adapt_decay": 0.5, "adapt_gain": 0.0} if kind == "ALIF" else {}
    found = membrane_and_spikes(engine, node, [1.5, 4, 1, 1])
    assert found == (expected_membrane, expected_spikes)


@pytest.mark.parametrize(
    ("reset", "expected_membrane", "expected_spikes"),
    [
        # exc_decay 0.5, inh_decay 0, gain 4, threshold 1; a current of 1 and then none. The currents that excite and
        # inhibit are 1 and -1 at first: a membrane of 0. Then 0.5 and 0, which is 2 and fires; 0.25 and 0 fires again
        ("none", [0, 2, 1, 0.5], [0, 1, 1, 0]),
        # what was charged is set to 0, and with it both currents
        ("value", [0, 2, 0, 0], [0, 1, 0, 0]),
        # 1 is taken from 0.25, and from the membrane nothing, as k was 0: 1, which fires; then 4 * 0.5 * -0.75
        ("subtract", [0, 2, 1, -1.5], [0, 1, 1, 0]),
    ],
)
def test_an_alpha_is_the_difference_of_two_currents(
    engine: EngineName, reset: str, expected_membrane: list[float], expected_spikes: list[int]
) -> None:
    node = {"type": "Alpha", "exc_decay": 0.5, "inh_decay": 0.0, "gain": 4.0, "reset": reset}
    assert membrane_and_spikes(engine, node, [1, 0, 0, 0]) == (expected_membrane, expected_spikes)


@pytest.mark.parametrize(
    ("threshold", "expected", "fires"),
    [
        # A quarter of a turn, and half remains: the 2 of step 0 is the real part, whose half is the membrane of step 1;
        # that one's half, with its sign changed, is the real part of step 2, and -0.5 / 2 the membrane of step 3.
        (1.5, [0, 1, 0, -0.25], [0, 0, 0, 0]),
        (1.0, [0, 0, 0, 0], [0, 1, 0, 0]),  # a spike takes the membrane away, so that nothing turns back
    ],
)
def test_a_resonating_neuron_turns(
    engine: EngineName, threshold: float, expected: list[float], fires: list[int]
) -> None:
    node = {"type": "RF", "decay": 0.5, "cosine": 0, "sine": 1, "gain": 2, "threshold": threshold}
    assert membrane_and_spikes(engine, node, [1, 0, 0, 0]) == (expected, fires)


def test_a_filter_between_nodes_passes_its_membrane_on(engine: EngineName) -> None:
    # The filter holds 1, (1 - 0.5 * (0 * 1)) + 1 = 2 and 2 - 0.5 * (1 * 2) = 1. Twice that, the neuron adds up 2, 6,
    # which fires and leaves 2, and 2 + 2, which just fires.
    network = network_of(
        [
            {"type": "LI", "name": "filter", "charge": "filter", "rate": 0.5},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out", "threshold": 4.0},
        ],
        {"fc.weight": [[2.0]]},
        **{"input": {"shape": [1]}, "coding": "spikes", "time_steps": 3, "labels": ["only"]},
    )
    result = run(engine, network, [[1.0], [1.0], [0.0]])
    assert result.membranes["filter"].ravel().tolist() == [1.0, 2.0, 1.0]
    assert result.membranes["out"].ravel().tolist() == [2.0, 2.0, 0.0]
    assert result.rasters["out"].ravel().tolist() == [0, 1, 1]
    assert np.asarray(result.synaptic_operations).tolist() == [3]


def test_each_way_to_charge_rounds_in_the_order_that_is_written(engine: EngineName) -> None:
    rate, tau, leak, gain, first, second = map(np.float32, (0.3, 3.7, 0.1, 1.3, 0.3, 0.7))
    curvature, critical, sharpness = map(np.float32, (0.3, 1.4, 0.7))
    zero = np.float32(0)

    def grown(v: np.float32) -> np.float32:
        return np.float32(sharpness * exponential(np.array((v - critical) / sharpness)))

    def expected(charge: Charge) -> Iterator[np.float32]:
        v = zero
        for i in (first, second) * 8:
            match charge:
                case Charge.EULER:
                    v = v + rate * ((leak - v) + gain * i)
                case Charge.EULER_INPUT_FIRST:
                    v = v + rate * ((gain * i + leak) - v)
                case Charge.RELAX:
                    v = v + (gain * i - (v - leak)) / tau
                case Charge.QUADRATIC:
                    v = v + (gain * i + curvature * (v - leak) * (v - critical)) / tau
                case Charge.EXPONENTIAL:
                    v = v + rate * (((leak - v) + grown(v)) + gain * i)
                case Charge.EXPONENTIAL_INPUT_FIRST:
                    v = v + (((gain * i + leak) - v) + grown(v)) / tau
                case Charge.FILTER:
                    v = (v - rate * ((np.float32(1) - gain * i) * v)) + gain * i
                case _:
                    v = (v - (v - leak) / tau) + gain * i
            yield v

    for charge in set(Charge) - {Charge.DECAY, Charge.TRUNCATED}:
        by = {"tau": float(tau)} if "tau" in LEAKS[charge] else {"rate": float(rate)}
        node = {"type": "LI", "charge": charge, "gain": float(gain)} | by
        node |= {"leak": float(leak)} if "leak" in RESTS[charge] else {}
        growth = {"curvature": curvature, "critical": critical, "sharpness": sharpness}
        node |= {name: float(growth[name]) for name in GROWS.get(charge, ())}
        found = membrane(engine, node, [float(first), float(second)] * 8)
        assert found == [float(value) for value in expected(charge)], charge


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # a current of 1 and then none, syn_gain 2; the membrane keeps nothing and so shows the synaptic current
        ({"synapse": "decay", "syn_decay": 0.5}, [2.0, 1.0, 0.5]),
        # 0 + 0.5 * (2 - 0), 1 + 0.5 * (0 - 1), …
        ({"synapse": "euler", "syn_rate": 0.5}, [1.0, 0.5, 0.25]),
        # 2 now, of which a quarter goes before the next step
        ({"synapse": "jump", "syn_rate": 0.25}, [2.0, 1.5, 1.125]),
        # 0.5 * (0 + 2), 0.5 * (1 + 0), …
        ({"synapse": "sum_then_decay", "syn_decay": 0.5}, [1.0, 0.5, 0.25]),
        # nothing yet, then 2, of which a quarter goes before the next step
        ({"synapse": "late_jump", "syn_rate": 0.25}, [0.0, 2.0, 1.5]),
    ],
)
@pytest.mark.parametrize("kind", ["CubaLI", "CubaLIF"])
def test_each_way_a_synaptic_current_flows(engine: EngineName, kind: str, fields: Node, expected: list[float]) -> None:
    node = {"type": kind, "decay": 0.0, "syn_gain": 2.0} | fields | ({"threshold": 100} if "IF" in kind else {})
    assert membrane(engine, node, [1, 0, 0]) == expected


def test_the_membrane_of_a_synapse_charges_with_the_current_times_gain(engine: EngineName) -> None:
    # j = 0.5 j + i is 1, 0.5; u = 0.5 v + 4 j + 0.25 is 4.25, 2.125 + 2 + 0.25.
    node = {"type": "CubaLI", "decay": 0.5, "syn_decay": 0.5, "gain": 4.0, "drive": 0.25}
    assert membrane(engine, node, [1, 0]) == [4.25, 4.375]


def test_an_integrator_forgets_nothing(engine: EngineName) -> None:
    # 2 * 1 + 0.25, then nothing but the drive
    assert membrane(engine, {"type": "I", "gain": 2.0, "drive": 0.25}, [1, 0, 0]) == [2.25, 2.5, 2.75]


@pytest.mark.parametrize(
    ("fields", "expected_membrane", "expected_spikes"),
    [
        # an IF of threshold 0.5: 1.25 holds two thresholds; -0.75 none; 1.0 two
        ({}, [0.25, -0.75, 0.0], [2, 0, 2]),
        ({"reset": "value", "reset_value": -0.5}, [-0.5, -1.5, 0.25], [2, 0, 0]),
        # 1.25, 0.25, 2.0: four thresholds
        ({"reset": "none"}, [1.25, 0.25, 2.0], [2, 0, 4]),
        # 0.25 - 1 = -0.75 is lifted to -0.25; then 1.5: three
        ({"floor": -0.25}, [0.25, -0.25, 0.0], [2, 0, 3]),
    ],
)
def test_several_spikes_a_step(
    engine: EngineName, fields: Node, expected_membrane: list[float], expected_spikes: list[int]
) -> None:
    node = {"type": "IF", "fire": "multiple", "threshold": 0.5} | fields
    assert membrane_and_spikes(engine, node, [1.25, -1, 1.75]) == (expected_membrane, expected_spikes)


def test_several_spikes_a_step_weigh_as_many_and_count_as_many(engine: EngineName) -> None:
    # 2.5 holds two thresholds of 1, each worth 0.75 to the next neuron, which integrates 1.5: one spike, 0.5 stays. Two
    # spikes arrive at once, so one weight is met once.
    network = network_of(
        [
            {"type": "Threshold", "name": "in", "fire": "multiple"},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": [[0.75]]},
        input={"shape": [1], "low": 0, "high": 4},
        coding="spikes",
        time_steps=1,
        labels=["only"],
    )
    result = run(engine, network, [[2.5]])
    assert result.rasters["in"].tolist() == [[[2]]]
    assert {name: spikes.tolist() for name, spikes in result.spikes_per_node.items()} == {"in": [2], "out": [1]}
    assert result.membranes["out"].tolist() == [[[0.5]]]
    np.testing.assert_array_equal(result.synaptic_operations, [1])


@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
def test_a_membrane_never_falls_below_its_floor(engine: EngineName, kind: str) -> None:
    leaks = {"IF": {}, "LIF": {"decay": 1.0}, "CubaLIF": {"decay": 1.0, "syn_decay": 0.0}}
    node: Node = {"type": kind, "floor": -0.5} | leaks[kind]
    # -2 is lifted to -0.5, 0.25 stays; a floor above 0 lifts what would rest below it as well
    assert membrane(engine, node, [-2, 0.75]) == [-0.5, 0.25]
    assert membrane(engine, node | {"floor": 0.5}, [0, 0]) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("fields", "currents", "expected_membrane", "expected_spikes"),
    [
        # decay 0.5, threshold 1; r says whether the membrane before fires
        # subtract, same step: 1 leaves 0, and so again
        ({}, [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]),
        # next step: 1 fires and stays; 0.5 + 1 - 1 = 0.5; 0.25 + 1 = 1.25 fires; 0.625 + 1 - 1: decay does not touch
        # what is subtracted
        ({"reset_timing": "next_step"}, [1, 1, 1, 1], [1, 0.5, 1.25, 0.625], [1, 0, 1, 0]),
        # corrected: 2.5 fires, 1.5 stays and so r; 0.75 + 2.5 - 1 = 2.25 fires, but that spike is not new; 1.125 - 1 is
        # silent where r was not, so 1 comes back: 1.125, and r; 0.5625 - 1 is silent, and so 0.5625
        ({"reset_timing": "corrected"}, [2.5, 2.5, 0, 0], [1.5, 2.25, 1.125, 0.5625], [1, 1, 0, 0]),
        # to 0.25: at once; or before it charges, 0.125 + 1; or in place of what was charged, which is lost
        ({"reset": "value", "reset_value": 0.25}, [1, 1, 1, 1], [0.25, 0.25, 0.25, 0.25], [1, 1, 1, 1]),
        (
            {"reset": "value", "reset_value": 0.25, "reset_timing": "next_step"},
            *([1, 1, 1, 1], [1, 1.125, 1.125, 1.125], [1, 1, 1, 1]),
        ),
        (
            {"reset": "value", "reset_value": 0.25, "reset_timing": "next_step_charged"},
            *([1, 1, 1, 1], [1, 0.25, 1.125, 0.25], [1, 0, 1, 0]),
        ),
        # to 1.5, which fires again. corrected: 1 becomes 1.5, so r; 0.5 * 1.5 = 0.75 is silent, and since r was not, it
        # goes by the difference the other way: 0.75 + (0.75 - 1.5) = 0
        (
            {"reset": "value", "reset_value": 1.5, "reset_timing": "corrected"},
            *([1, 0, 0, 1], [1.5, 0, 0, 1.5], [1, 0, 0, 1]),
        ),
        # corrected_charged: 1.5 takes the place of whatever is charged, for good
        (
            {"reset": "value", "reset_value": 1.5, "reset_timing": "corrected_charged"},
            *([1, 0, 0, -1], [1.5, 1.5, 1.5, 1.5], [1, 1, 1, 1]),
        ),
        # at 0.25 nothing fires after a correction, so both are as a reset at once
        (
            {"reset": "value", "reset_value": 0.25, "reset_timing": "corrected_charged"},
            *([1, 1, 0, 1], [0.25, 0.25, 0.125, 0.25], [1, 1, 0, 1]),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_each_reset_and_its_timing(
    engine: EngineName,
    kind: str,
    fields: Node,
    currents: list[float],
    expected_membrane: list[float],
    expected_spikes: list[int],
) -> None:
    node = {"type": kind, "decay": 0.5} | fields | ({"syn_decay": 0.0} if kind == "CubaLIF" else {})
    assert membrane_and_spikes(engine, node, currents) == (expected_membrane, expected_spikes)


def test_late_is_decided_by_the_membrane_after_the_floor(engine: EngineName) -> None:
    # The floor lifts the membrane to the threshold without a spike: it is late all the same, and 1 is taken away.
    node = {"type": "IF", "reset_timing": "next_step", "floor": 1.0}
    assert membrane_and_spikes(engine, node, [0, 0.5, 0.5]) == ([1, 1, 1], [0, 0, 0])
    assert membrane_and_spikes(engine, node, [0, 1.5, 0.5]) == ([1, 1.5, 1], [0, 1, 1])


@pytest.mark.parametrize(
    ("joins", "expected_membrane", "expected_spikes"),
    [
        # gain 0.5: 2 charges 1, a spike; it comes back as 1, which the gain halves, or not
        ("input", [0.0, 0.5, 0.5], [1, 0, 0]),
        ("charge", [0.0, 0.0, 0.0], [1, 1, 1]),
    ],
)
def test_a_recurrent_current_joins_the_input_or_what_that_charges(
    engine: EngineName, joins: str, expected_membrane: list[float], expected_spikes: list[int]
) -> None:
    network = one(
        {"type": "IF", "gain": 0.5, "recurrent": {"joins": joins}}, {"out.recurrent.weight": [[1.0]]}, time_steps=3
    )
    result = run(engine, network, [[2], [0], [0]])
    assert result.membranes["out"][:, 0, 0].tolist() == expected_membrane
    assert result.rasters["out"][:, 0, 0].tolist() == expected_spikes


@pytest.mark.parametrize(("joins", "expected"), [("input", [1.0, 1.0, 1.0]), ("charge", [1.0, 1.5, 1.75])])
def test_a_recurrent_current_joins_the_synaptic_current_without_its_gain(
    engine: EngineName, joins: str, expected: list[float]
) -> None:
    # syn_gain 0.5: 2 becomes j = 1, a spike, which comes back as 0.5 or as 1: j = 0.5 * 1 + that, and so on. The
    # membrane keeps nothing and is not reset, and so shows j.
    node = {"type": "CubaLIF", "decay": 0.0, "syn_decay": 0.5, "syn_gain": 0.5, "reset": "none"}
    network = one(node | {"recurrent": {"joins": joins}}, {"out.recurrent.weight": [[1.0]]}, time_steps=3)
    assert run(engine, network, [[2], [0], [0]]).membranes["out"][:, 0, 0].tolist() == expected


@pytest.mark.parametrize(("at_start", "expected"), [(True, [0.25, 0.5, 0.75]), (False, [0.0, 0.25, 0.5])])
@pytest.mark.parametrize("joins", ["input", "charge"])
def test_a_recurrent_bias_may_wait_for_step_1(
    engine: EngineName, joins: str, at_start: bool, expected: list[float]
) -> None:
    node = {"type": "IF", "recurrent": {"bias": True, "bias_at_start": at_start, "joins": joins}}
    network = one(node, {"out.recurrent.weight": [[1.0]], "out.recurrent.bias": [0.25]}, time_steps=3)
    assert run(engine, network, [[0], [0], [0]]).membranes["out"][:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 0, 1, 0]),
        ({"fire": "above_threshold"}, [0, 0, 1, 0]),
        ({"fire": "multiple"}, [1, 0, 2, 0]),
        ({"threshold": 0.5}, [1, 1, 1, 0]),
    ],
)
def test_a_threshold_remembers_nothing(engine: EngineName, fields: Node, expected: list[int]) -> None:
    found = membrane_and_spikes(engine, {"type": "Threshold"} | fields, [1, 0.5, 2.5, -3])
    assert found == ([1, 0.5, 2.5, -3], expected)


def two_wide(node: Node, tensors: dict[str, Any], coding: str) -> Network:
    """Return a network of two units in which a membrane that keeps nothing shows what leaves `node`."""
    return network_of(
        [node | {"name": "node"}, {"type": "LI", "name": "out", "decay": 0.0}],
        tensors,
        input={"shape": [2], "low": -8, "high": 8},
        coding=coding,
        time_steps=4,
        readout="last_membrane",
        labels=["a", "b"],
    )


STEPS = [[1, 5], [2, 6], [3, 7], [4, 8]]


@pytest.mark.parametrize(
    ("delay", "tensors", "of_steps", "of_a_constant"),
    [
        (0, {}, STEPS, [[1, 5]] * 4),
        (1, {}, [[0, 0], [1, 5], [2, 6], [3, 7]], [[0, 0], [1, 5], [1, 5], [1, 5]]),
        (9, {}, [[0, 0]] * 4, [[0, 0]] * 4),
        (
            "per_neuron",
            {"node.delay": [0, 3]},
            [[1, 0], [2, 0], [3, 0], [4, 5]],
            [[1, 0], [1, 0], [1, 0], [1, 5]],
        ),
    ],
)
def test_a_delay_gives_each_element_some_steps_later_and_0_until_then(
    engine: EngineName, delay: Any, tensors: dict[str, Any], of_steps: list[list[int]], of_a_constant: list[list[int]]
) -> None:
    node = {"type": "Delay", "delay": delay}
    spikes, direct = two_wide(node, tensors, "spikes"), two_wide(node, tensors, "direct")
    assert run(engine, spikes, STEPS).membranes["out"][:, 0].tolist() == of_steps
    assert run(engine, direct, STEPS[0]).membranes["out"][:, 0].tolist() == of_a_constant


def test_what_a_delay_leaves_is_not_the_same_at_every_step_and_counts_as_often(engine: EngineName) -> None:
    # Under `direct` a weight before the delay would be met once; after a delay of 1 it is met in the 2 steps left of 3.
    network = network_of(
        [
            {"type": "Delay", "name": "delay", "delay": 1},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": [[1]]},
        input={"shape": [1]},
        time_steps=3,
        labels=["only"],
    )
    result = run(engine, network, [1])
    assert result.rasters["out"][:, 0, 0].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(result.synaptic_operations, [2])


@pytest.mark.parametrize(
    ("scale", "tensors", "expected"),
    [(0.5, {}, [0.5, 2.5]), ("per_neuron", {"node.scale": [-2, 0]}, [-2.0, 0.0])],
)
def test_a_scale_is_a_factor_for_each_element(
    engine: EngineName, scale: Any, tensors: dict[str, Any], expected: list[float]
) -> None:
    network = two_wide({"type": "Scale", "scale": scale}, tensors, "direct")
    assert run(engine, network, STEPS[0]).readout.tolist() == [expected]


@pytest.mark.parametrize(
    ("fields", "kernel", "expected"),
    [
        # 1 2 3 4 under a kernel of 1 10: x[k] + 10 x[k + 1]
        ({}, [1, 10], [21, 32, 43]),
        ({"stride": 2, "padding": 1}, [1, 10], [10, 32, 4]),
        ({"dilation": 2}, [1, 10], [31, 42]),
        # "same" pads an even kernel more behind: one 0 after it; three zeros are one before and two after
        ({"padding": "same"}, [1, 10], [21, 32, 43, 4]),
        ({"padding": "same"}, [1, 10, 100, 1000], [3210, 4321, 432, 43]),
        ({"padding": "same", "dilation": 2}, [1, 10], [20, 31, 42, 3]),
    ],
)
def test_a_convolution_along_a_length(
    engine: EngineName, fields: Node, kernel: list[int], expected: list[float]
) -> None:
    node = {"type": "Conv1d", "in_channels": 1, "out_channels": 1, "kernel_size": len(kernel), "bias": False} | fields
    assert through(engine, node, [[1, 2, 3, 4]], len(expected), weight=[[kernel]]) == expected


def test_a_groups_channels_see_only_their_own(engine: EngineName) -> None:
    # Two channels in two groups: the first is doubled, the second tripled, and each has its own bias.
    grouped = {"in_channels": 2, "out_channels": 2, "kernel_size": 1, "groups": 2}
    weight, bias = np.array([2, 3]).reshape(2, 1, 1), [0.5, 0]
    one_axis = through(engine, {"type": "Conv1d"} | grouped, [[1, 2], [3, 4]], 4, weight=weight, bias=bias)
    two_axes = through(
        engine, {"type": "Conv2d"} | grouped, [[[1, 2]], [[3, 4]]], 4, weight=weight[..., np.newaxis], bias=bias
    )
    assert one_axis == two_axes == [2.5, 4.5, 9.0, 12.0]


@pytest.mark.parametrize(
    ("fields", "kernel", "expected"),
    [
        # rows 1 2 3 and 4 5 6
        ({"dilation": [1, 2]}, [[1, 10]], [31, 64]),
        # an even kernel on both axes: a row of zeros below and a column to the right
        ({"padding": "same"}, [[1, 10], [100, 1000]], [5421, 6532, 603, 54, 65, 6]),
        # even along one axis only: 3 rows pad both sides, 2 columns one
        ({"padding": "same"}, [[1, 0], [10, 0], [100, 1000]], [5410, 6520, 630, 41, 52, 63]),
        ({"padding": "same", "dilation": [1, 2]}, [[1, 10]], [20, 31, 2, 50, 64, 5]),
    ],
)
def test_a_convolution_over_an_image(
    engine: EngineName, fields: Node, kernel: list[list[int]], expected: list[float]
) -> None:
    size = [len(kernel), len(kernel[0])]
    node = {"type": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": size, "bias": False} | fields
    assert through(engine, node, [[[1, 2, 3], [4, 5, 6]]], len(expected), weight=[[kernel]]) == expected


def test_an_uneven_padding_leaves_fewer_windows_over_the_first_inputs(engine: EngineName) -> None:
    # Length 4, kernel 2, "same": the first input lies under one window, each other under two. Two groups: an input
    # meets the one channel of its own group.
    network = network_of(
        [
            {"type": "Conv1d", "name": "conv", "in_channels": 2, "out_channels": 2, "kernel_size": 2, "groups": 2,
             "padding": "same"},
            {"type": "Flatten", "name": "flat"},
            {"type": "IF", "name": "out"},
        ],
        {"conv.weight": np.ones((2, 1, 2)), "conv.bias": [0, 0]},
        input={"shape": [2, 4]},
        coding="spikes",
        time_steps=1,
        labels=[str(label) for label in range(8)],
    )  # fmt: skip
    spikes = np.zeros((3, 1, 2, 4), np.float32)
    spikes[0, 0, 0, 0] = spikes[1, 0, 1, 3] = 1
    spikes[2] = 1
    result, _ = create(engine, network).run(encode(spikes, network.spec))
    np.testing.assert_array_equal(result.synaptic_operations, [1, 2, 14])


@pytest.mark.parametrize("threshold", [2.0**-149, 2.0**-40, 2.0**-25])
@pytest.mark.parametrize("hidden", [False, True])
def test_more_spikes_in_a_step_than_can_be_counted_are_refused(
    engine: EngineName, threshold: float, hidden: bool
) -> None:
    # A current of 1 has room for a threshold of 2**-25 2**25 times, where 2**24 is the most; 1 / 2**-149 is infinite.
    many: Node = {"type": "IF", "name": "many", "fire": "multiple", "threshold": threshold, "reset": "none"}
    network = one({"type": "IF"})
    network = network_of(
        [many, *[{"type": "IF", "name": "out"}] * hidden], {}, **network.spec.model_dump(exclude={"nodes"})
    )
    sentence = r"^node 'many': a neuron fires \S+ times in one step, expected at most 16777216; [^\n]*$"
    with pytest.raises(InvalidInput, match=sentence):
        run(engine, network, [[0.0], [1.0]])


def test_as_many_spikes_as_can_be_counted_are_counted_exactly(engine: EngineName) -> None:
    # 2**24 - 1 spikes at each of three steps are 50331645 in all: an odd number between 2**25 and 2**26, where float32
    # knows only every fourth. 2**24 are the most, and 2**24 + 2 are too many.
    network = one({"type": "Threshold", "fire": "multiple"}, input={"shape": [1], "high": 2**25})
    result = run(engine, network, [[2**24 - 1]] * 3)
    assert result.spike_counts.tolist() == [[3 * (2**24 - 1)]]
    assert result.spikes_per_node["out"].tolist() == [3 * (2**24 - 1)]
    assert run(engine, network, [[2**24]]).rasters["out"].tolist() == [[[2**24]]]
    with pytest.raises(InvalidInput, match=r"^node 'out': a neuron fires 16777218 times in one step"):
        run(engine, network, [[2**24 + 2]])
