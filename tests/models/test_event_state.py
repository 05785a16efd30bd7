"""The event engine's state: a run that is cut gives every bit of one that is not, and a state holds nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import State
from spikeserve.models.engines.event.carried import CarriedArrays
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.networks import network_of
from tests.same import EVERYTHING, assert_same, assert_same_state

STEPS = 9


def rounding(coding: Coding) -> Network:
    """A network whose sums round, so that the order of a sum shows, with every kind of array that a state has."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    return network_of(
        [
            {"type": "Delay", "name": "early", "delay": "per_neuron"},
            {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
            {"type": "CubaLIF", "name": "cuba", "decay": 0.9, "syn_decay": 0.8, "threshold": 0.5}
            | {"recurrent": {"bias": True, "bias_at_start": False}},
            {"type": "Flatten", "name": "flat"},
            {"type": "Delay", "name": "late", "delay": "per_neuron"},
            {"type": "Linear", "name": "fc", "in_features": 48, "out_features": 20},
            {"type": "LIF", "name": "several", "decay": 0.7, "fire": "multiple", "threshold": 0.3}
            | {"recurrent": {"bias": False}},
            {"type": "Linear", "name": "on", "in_features": 20, "out_features": 20},
            {"type": "CubaALIF", "name": "adapts", "decay": 0.9, "syn_decay": 0.5, "threshold": 0.5}
            | {"adapt_decay": "per_neuron", "adapt_gain": 0.3, "recurrent": {}},
            {"type": "Linear", "name": "classes", "in_features": 20, "out_features": 3},
            {"type": "CubaLI", "name": "out", "decay": 0.5, "syn_decay": 0.7},
        ],
        {
            "early.delay": rng.integers(0, 4, (2, 4, 4)),
            "conv.weight": normal(3, 2, 3, 3),
            "conv.bias": normal(3),
            "cuba.recurrent.weight": normal(48, 48) / 4,
            "cuba.recurrent.bias": normal(48),
            "late.delay": rng.integers(0, 3, 48),
            "fc.weight": normal(20, 48),
            "fc.bias": normal(20),
            "several.recurrent.weight": normal(20, 20) / 8,
            "on.weight": normal(20, 20),
            "on.bias": normal(20),
            "adapts.adapt_decay": rng.random(20),
            "adapts.recurrent.weight": normal(20, 20) / 4,
            "classes.weight": normal(3, 20),
            "classes.bias": normal(3),
        },
        input={"shape": [2, 4, 4]},
        coding=coding,
        time_steps=STEPS,
        readout="mean_membrane",
        labels=["a", "b", "c"],
    )


def inputs_of(coding: Coding, batch: int = 5) -> DenseInputs:
    values = np.random.default_rng(1).random((1 if coding is Coding.DIRECT else STEPS, batch, 2, 4, 4), np.float32)
    return DenseInputs(values if coding is Coding.DIRECT else (values < 0.4).astype(np.float32), STEPS)


def part(inputs: DenseInputs, first: int, end: int) -> DenseInputs:
    return DenseInputs(inputs.steps if inputs.constant else inputs.steps[first:end], end - first)


@pytest.mark.parametrize("coding", [Coding.SPIKES, Coding.DIRECT])
@pytest.mark.parametrize("cuts", [[4], [1, 2, 3], [8], [2, 5]])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_is_cut_gives_every_bit_of_one_that_is_not(coding: Coding, cuts: list[int], threads: int) -> None:
    network, inputs = rounding(coding), inputs_of(coding)
    whole, end = EventEngine(network).run(inputs, record=EVERYTHING)
    assert all(spikes.sum() > 50 for spikes in whole.spikes_per_node.values())
    engine, state, results = EventEngine(network, threads), None, []
    for first, last in zip([0, *cuts], [*cuts, STEPS], strict=True):
        result, state = engine.run(part(inputs, first, last), state, record=EVERYTHING)
        results.append(result)
    for name in ("cuba", "several", "adapts", "out"):
        found = np.concatenate([result.membranes[name] for result in results])
        np.testing.assert_array_equal(found, whole.membranes[name], err_msg=name)
    for name in ("cuba", "several", "adapts"):
        found = np.concatenate([result.rasters[name] for result in results])
        np.testing.assert_array_equal(found, whole.rasters[name], err_msg=name)
    np.testing.assert_array_equal(results[-1].readout, whole.readout)
    assert state is not None
    assert state.steps.tolist() == end.steps.tolist() == [STEPS] * 5
    for name, array in end.arrays.items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)


def test_operations_of_a_cut_run_add_up_to_those_of_a_whole_one() -> None:
    network, inputs = rounding(Coding.SPIKES), inputs_of(Coding.SPIKES)
    engine = EventEngine(network)
    whole, _ = engine.run(inputs)
    before, state = engine.run(part(inputs, 0, 4))
    after, _ = engine.run(part(inputs, 4, STEPS), state)
    assert before.synaptic_operations is not None
    assert after.synaptic_operations is not None
    np.testing.assert_array_equal(before.synaptic_operations + after.synaptic_operations, whole.synaptic_operations)


def test_a_state_goes_from_one_engine_to_another_and_back(dyadic_recurrent: Network) -> None:
    inputs = DenseInputs((np.random.default_rng(2).random((6, 3, 4)) < 0.5).astype(np.float32), 6)
    event, reference = EventEngine(dyadic_recurrent), ReferenceEngine(dyadic_recurrent)
    whole, _ = reference.run(inputs, record=EVERYTHING)
    _, first = event.run(part(inputs, 0, 2))
    _, second = reference.run(part(inputs, 2, 4), first)
    last, _ = event.run(part(inputs, 4, 6), second, record=EVERYTHING)
    np.testing.assert_array_equal(last.membranes["out"], whole.membranes["out"][4:])
    np.testing.assert_array_equal(last.spike_counts, whole.spike_counts)


def test_a_state_of_another_engine_is_not_taken_as_it_lies(dyadic_recurrent: Network) -> None:
    # Its arrays are of as many samples, but of other layers.
    _, other = EventEngine(rounding(Coding.SPIKES)).run(inputs_of(Coding.SPIKES, batch=2))
    inputs = DenseInputs(np.zeros((1, 2, 4), np.float32), 1)
    with pytest.raises(InvalidInput, match=r"state: lacks 'delay\.line'"):
        EventEngine(dyadic_recurrent).run(inputs, other)


def test_samples_of_a_state_are_taken_in_any_order_as_they_lie() -> None:
    network, inputs = rounding(Coding.SPIKES), inputs_of(Coding.SPIKES)
    engine, places = EventEngine(network, threads=2), np.array([4, 0, 0])
    _, state = engine.run(part(inputs, 0, 4))
    taken = state[places]
    assert isinstance(taken.arrays, CarriedArrays)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(taken.arrays[name], array[places], err_msg=name)
    whole, _ = engine.run(inputs)
    result, _ = engine.run(part(inputs, 4, STEPS)[places], taken)
    np.testing.assert_array_equal(result.readout, whole.readout[places])


@pytest.mark.parametrize("engine", [EventEngine, ReferenceEngine])
def test_a_part_of_a_state_has_arrays_of_its_own(engine: type[EventEngine] | type[ReferenceEngine]) -> None:
    runner = engine(rounding(Coding.SPIKES))
    _, state = runner.run(part(inputs_of(Coding.SPIKES), 0, 4))
    own, taken = state.copied(1, 3), state[np.arange(1, 3)]
    assert own.steps.base is None
    for name, array in taken.arrays.items():
        np.testing.assert_array_equal(own.arrays[name], array, err_msg=name)
        assert not np.shares_memory(own.arrays[name], state.arrays[name])
    if isinstance(own.arrays, CarriedArrays):
        mine, whole = own.arrays, state.arrays
        assert isinstance(whole, CarriedArrays)
        for array, other in ((mine.parts[0], whole.parts[0]), (mine.counts, whole.counts), (mine.reads, whole.reads)):
            assert not np.shares_memory(array, other)


@pytest.fixture
def dyadic_recurrent() -> Network:
    return network_of(
        [
            {"type": "Delay", "name": "delay", "delay": 1},
            {"type": "LIF", "name": "out", "decay": 0.9, "recurrent": {"bias": True}},
        ],
        {
            "out.recurrent.weight": np.random.default_rng(3).integers(-8, 9, (4, 4)) / 16,
            "out.recurrent.bias": [0.25, 0, 0.5, 0],
        },
        input={"shape": [4]},
        coding="spikes",
        time_steps=6,
        labels=["a", "b", "c", "d"],
    )


def test_going_on_leaves_the_state_that_it_began_with_as_it_was() -> None:
    network, inputs = rounding(Coding.SPIKES), inputs_of(Coding.SPIKES)
    engine = EventEngine(network)
    _, state = engine.run(part(inputs, 0, 4))
    before = {name: array.copy() for name, array in state.arrays.items()}
    first, _ = engine.run(part(inputs, 4, STEPS), state)
    again, _ = engine.run(part(inputs, 4, STEPS), state)
    np.testing.assert_array_equal(first.readout, again.readout)
    for name, array in before.items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)


def test_a_state_keeps_no_other_part_of_its_run_in_memory(dyadic_recurrent: Network) -> None:
    # Four neurons are one row of 16 floats: a membrane and a spike are 2 × 64 bytes a sample; a line of one step is
    # 64 more, and four counts and four readouts are 32 each, whatever the number of steps.
    inputs = DenseInputs(np.ones((6, 3, 4), np.float32), 6)
    _, state = EventEngine(dyadic_recurrent).run(inputs)
    assert isinstance(state.arrays, CarriedArrays)
    held: list[NDArray[Any]] = [*state.arrays.parts, state.arrays.counts, state.arrays.reads]
    owners = [array if array.base is None else array.base for array in held]
    assert sum(owner.nbytes for owner in owners) == 3 * (128 + 64 + 2 * 32)


def test_a_state_of_another_batch_is_refused(dyadic_recurrent: Network) -> None:
    engine = EventEngine(dyadic_recurrent)
    _, state = engine.run(DenseInputs(np.ones((6, 3, 4), np.float32), 6))
    with pytest.raises(InvalidInput, match="state"):
        engine.run(DenseInputs(np.ones((6, 2, 4), np.float32), 6), state)
    with pytest.raises(InvalidInput, match="state: lacks"):
        engine.run(DenseInputs(np.ones((6, 3, 4), np.float32), 6), State(np.full(3, 6), {}))


def test_a_recurrent_layer_runs_for_one_step(dyadic_recurrent: Network) -> None:
    # Nothing has come through the delay: only the recurrent bias charges, 0.25, 0, 0.5 and 0.
    result, state = EventEngine(dyadic_recurrent).run(DenseInputs(np.ones((1, 2, 4), np.float32), 1), record=EVERYTHING)
    assert result.membranes["out"].tolist() == [[[0.25, 0, 0.5, 0]] * 2]
    assert result.synaptic_operations is not None
    assert result.synaptic_operations.tolist() == [0, 0]
    assert state.arrays["delay.line"].tolist() == [[[1, 1, 1, 1]]] * 2


@pytest.mark.parametrize("readout", ["max_membrane", "last_membrane", "mean_membrane"])
def test_no_samples_are_an_empty_answer_of_a_membrane_readout(readout: str) -> None:
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 4, "out_features": 2},
            {"type": "LI", "name": "out", "decay": 1},
        ],
        {"fc.weight": np.ones((2, 4)), "fc.bias": [0, 0]},
        input={"shape": [4]},
        time_steps=3,
        readout=readout,
        labels=["a", "b"],
    )
    result, state = EventEngine(network).run(DenseInputs(np.ones((1, 0, 4), np.float32), 3))
    assert result.readout.shape == (0, 2)
    assert state.arrays["out.membrane"].shape == (0, 2)


def test_more_spikes_in_a_step_than_can_be_counted_are_refused() -> None:
    # 1 / 2^-30 is 2^30 spikes in one step; up to 2^24 are counted.
    def network(threshold: float) -> Network:
        return network_of(
            [{"type": "IF", "name": "out", "fire": "multiple", "threshold": threshold}],
            {},
            input={"shape": [1]},
            time_steps=3,
            labels=["only"],
        )

    one = DenseInputs(np.ones((1, 2, 1), np.float32), 3)
    result, _ = EventEngine(network(2.0**-24)).run(one)
    assert result.spike_counts.tolist() == [[3 * 2**24]] * 2
    for threshold in (2.0**-30, 1e-40):
        with pytest.raises(InvalidInput, match="node 'out': a neuron fires"):
            EventEngine(network(threshold)).run(one)


@pytest.mark.parametrize("coding", [Coding.CURRENT, Coding.DIRECT])
def test_windows_of_several_states_in_one_run_give_what_runs_one_after_the_other_do(coding: Coding) -> None:
    # Three sessions, one of them at rest, with 3, 1 and 2 windows of two steps each.
    network, rng = rounding(coding), np.random.default_rng(3)
    engine, windows = EventEngine(network), (3, 1, 2)

    def drawn(batch: int) -> DenseInputs:
        steps = 1 if coding is Coding.DIRECT else 2
        return DenseInputs(rng.normal(0, 2, (steps, batch, *network.spec.input.shape)).astype(np.float32), 2)

    states = [State.rest(network, 1), *(engine.run(drawn(1), None)[1] for _ in range(2))]
    inputs = drawn(sum(windows))
    found, after = engine.run_windows(inputs, State.joined(states), windows)
    end = 0
    for number, count in enumerate(windows):
        state = states[number]
        for window in range(end, end + count):
            alone, state = engine.run(inputs[window : window + 1], state)
            assert_same(found[window : window + 1], alone)
        end += count
        assert_same_state(after.copied(number, number + 1), state)
