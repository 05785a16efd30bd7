"""The event engine's state: a run that is cut gives every bit of one that is not, and a state holds nothing else."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import State
from spikeserve.models.engines.event.carried import CarriedArrays
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.networks import network_of, task
from tests.same import assert_same, assert_same_state

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
        **task((2, 4, 4), STEPS, "abc", coding, readout="mean_membrane"),
    )


def inputs_of(batch: int = 5) -> DenseInputs:
    values = np.random.default_rng(1).random((STEPS, batch, 2, 4, 4), np.float32)
    return DenseInputs((values < 0.4).astype(np.float32), STEPS)


def part(inputs: DenseInputs, first: int, end: int) -> DenseInputs:
    return DenseInputs(inputs.steps if inputs.constant else inputs.steps[first:end], end - first)


@pytest.mark.parametrize("engine", [EventEngine, ReferenceEngine])
def test_a_part_of_a_state_has_arrays_of_its_own(engine: type[EventEngine] | type[ReferenceEngine]) -> None:
    runner = engine(rounding(Coding.SPIKES))
    _, state = runner.run(part(inputs_of(), 0, 4))
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
        **task(4, 6, "abcd", "spikes"),
    )


def test_going_on_leaves_the_state_that_it_began_with_as_it_was() -> None:
    network, inputs = rounding(Coding.SPIKES), inputs_of()
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
