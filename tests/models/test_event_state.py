"""The event engine's state: a run that goes on leaves the state it began with, and a state holds nothing else."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, State, create
from spikeserve.models.engines.event.call import Call
from spikeserve.models.engines.event.carried import CarriedArrays
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.state import READOUT, SPIKE_COUNTS
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.contracts.nodes import TOGETHER
from tests.networks import network_of, task
from tests.same import assert_same, assert_same_state

NETWORK = TOGETHER["alike"].network  # of every kind of neuron, and so of array that a state has
ALIKE = {each: Network(NETWORK.spec.model_copy(update={"coding": each}), NETWORK.tensors) for each in Coding}
LIF = network_of([{"type": "LIF", "name": "out", "decay": 0.9}], {}, **task(4, 2, "abcd", "current"))


def drawn(batch: int, steps: int, network: Network = NETWORK) -> DenseInputs:
    values = np.random.default_rng(batch).normal(0, 2, (steps, batch, *network.spec.input.shape)).astype(np.float32)
    return DenseInputs(values[:1] if network.spec.coding is Coding.DIRECT else values, steps)


def test_going_on_leaves_the_state_that_it_began_with_and_a_part_of_one_has_arrays_of_its_own() -> None:
    engine, inputs = EventEngine(NETWORK), drawn(5, 9)
    _, state = engine.run(inputs.between(0, 4))
    before = {name: array.copy() for name, array in state.arrays.items()}
    first, _ = engine.run(inputs.between(4, 9), state)
    own, taken = state.copied(1, 3), state[np.arange(1, 3)]
    again, _ = engine.run(inputs.between(4, 9), state)
    np.testing.assert_array_equal(first.readout, again.readout)
    for name, array in before.items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)
        np.testing.assert_array_equal(own.arrays[name], taken.arrays[name], err_msg=name)
        assert not np.shares_memory(own.arrays[name], state.arrays[name])


def test_a_state_keeps_no_other_part_of_its_run_in_memory() -> None:
    # Four neurons are one row of 16 floats: a membrane and a spike are 2 × 64 bytes a sample; a line of one step is
    # 64 more, and four counts and four readouts are 32 each, whatever the number of steps.
    nodes: list[dict[str, Any]] = [
        {"type": "Delay", "name": "delay", "delay": 1},
        {"type": "LIF", "name": "out", "decay": 0.9, "recurrent": {}},
    ]
    network = network_of(nodes, {"out.recurrent.weight": np.eye(4)}, **task(4, 6, "abcd", "spikes"))
    inputs = DenseInputs(np.ones((6, 3, 4), np.float32), 6)
    _, state = EventEngine(network).run(inputs)
    assert isinstance(state.arrays, CarriedArrays)
    held: list[NDArray[Any]] = [*state.arrays.parts, state.arrays.counts, state.arrays.reads]
    owners = [array if array.base is None else array.base for array in held]
    assert sum(owner.nbytes for owner in owners) == 3 * (128 + 64 + 2 * 32)


@pytest.mark.parametrize("network", [ALIKE[Coding.CURRENT], ALIKE[Coding.DIRECT], LIF])
@pytest.mark.parametrize("name", ENGINES)
def test_windows_of_several_states_in_one_run_give_what_runs_one_after_the_other_do(
    name: str, network: Network
) -> None:
    # Three sessions, one of them at rest, with 3, 1 and 2 windows of two steps each, and then one more of each.
    engine, inputs = create(name, network), drawn(9, 2, network)
    states = [State.rest(network, 1), *(engine.run(inputs[place : place + 1])[1] for place in (7, 8))]
    after = [each[np.zeros(1, np.intp)] for each in states]
    place = 0
    for windows in [(3, 1, 2), (1, 1, 1)]:
        result, fired, after = engine.run_windows(inputs[place : place + sum(windows)], after, windows)
        row = 0
        for number, count in enumerate(windows):
            for _ in range(count):
                before = states[number]
                alone, states[number] = engine.run(inputs[place : place + 1], before)
                assert_same(result[row : row + 1], alone)
                assert (
                    fired[row] == alone.spike_counts - before.arrays.get(READOUT if network is LIF else SPIKE_COUNTS, 0)
                ).all()
                row, place = row + 1, place + 1
            assert_same_state(after[number], states[number])


def test_a_state_is_used_up_by_windows_that_lack_memory_and_is_left_by_others_that_fail() -> None:
    engine, inputs = EventEngine(LIF), drawn(1, 2, LIF)
    _, state = engine.run(inputs)
    with pytest.raises(InvalidInput):
        engine.run_windows(inputs, [State(np.array([2.0**60]), state.arrays)], [1])
    _, _, (state,) = engine.run_windows(inputs, [state], [1])
    with patch.object(Call, "run_part", side_effect=MemoryError), pytest.raises(MemoryError):
        engine.run_windows(inputs, [state], [1])
    with pytest.raises(ValueError, match="concatenate"):
        engine.run_windows(inputs, [state], [1])
