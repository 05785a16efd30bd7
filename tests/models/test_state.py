"""What a run takes on from the one before it, worked out by hand, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import EngineName, Record, RunResult, State, create
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.network import Network
from tests.networks import network_of

pytestmark = pytest.mark.parametrize("engine", list(EngineName))


def one(nodes: list[dict[str, Any]], tensors: dict[str, Any] | None = None, readout: str = "spike_count") -> Network:
    """Return a network that takes one number at each step."""
    return network_of(
        nodes,
        tensors or {},
        input={"shape": [1], "low": -8, "high": 8},
        coding="spikes",
        time_steps=2,
        readout=readout,
        labels=["only"],
    )


def in_two_calls(engine: EngineName, network: Network, first: list[float], then: list[float]) -> list[RunResult]:
    runner, state = create(engine, network), None
    results = []
    for currents in (first, then):
        steps = np.array(currents, np.float32).reshape(-1, 1, 1)
        result, state = runner.run(DenseInputs(steps, len(currents)), state, record=Record.MEMBRANE)
        results.append(result)
    return results


def test_a_membrane_goes_on_and_its_spikes_are_counted_since_rest(engine: EngineName) -> None:
    # decay 0.5: 0.75, then 0.375 + 0.75 = 1.125 (a spike, 0.125 left) | 0.0625 + 1 = 1.0625 (another, 0.0625 left).
    first, then = in_two_calls(engine, one([{"type": "LIF", "name": "out", "decay": 0.5}]), [0.75, 0.75], [1.0])
    assert first.membranes["out"].ravel().tolist() == [0.75, 0.125]
    assert then.membranes["out"].ravel().tolist() == [0.0625]
    assert (first.spike_counts.item(), then.spike_counts.item()) == (1, 2)
    assert (first.spikes_per_node["out"].item(), then.spikes_per_node["out"].item()) == (1, 1)


@pytest.mark.parametrize(
    ("readout", "first", "then"),
    [
        # The membrane, which forgets nothing, goes 2, 3 | 1, 2: it is 3 at most, 2 at last and 8 / 4 on average.
        ("max_membrane", 3.0, 3.0),
        ("last_membrane", 3.0, 2.0),
        ("mean_membrane", 2.5, 2.0),
    ],
)
def test_a_membrane_is_read_out_over_all_steps_since_rest(
    engine: EngineName, readout: str, first: float, then: float
) -> None:
    results = in_two_calls(engine, one([{"type": "I", "name": "out"}], readout=readout), [2, 1], [-2, 1])
    assert [result.readout.item() for result in results] == [first, then]


@pytest.mark.parametrize(("at_start", "expected"), [(True, [0.25, 0.5, 0.75]), (False, [0.0, 0.25, 0.5])])
def test_a_recurrent_bias_that_waits_for_the_second_step_does_not_wait_again(
    engine: EngineName, at_start: bool, expected: list[float]
) -> None:
    # Nothing arrives, and nothing fires: the bias of 0.25 alone charges, from the first step since rest or the second.
    node = {"type": "IF", "name": "out", "recurrent": {"bias": True, "bias_at_start": at_start}}
    network = one([node], {"out.recurrent.weight": [[0.5]], "out.recurrent.bias": [0.25]})
    first, then = in_two_calls(engine, network, [0], [0, 0])
    assert [*first.membranes["out"].ravel().tolist(), *then.membranes["out"].ravel().tolist()] == expected


def test_a_recurrent_layer_hears_the_last_spike_of_the_call_before_and_that_costs_there(engine: EngineName) -> None:
    # The first step fires; its spike comes back at the next, with weight 0.5, and meets its one weight there.
    network = one([{"type": "IF", "name": "out", "recurrent": {}}], {"out.recurrent.weight": [[0.5]]})
    first, then = in_two_calls(engine, network, [1], [0, 0])
    assert then.membranes["out"].ravel().tolist() == [0.5, 0.5]
    assert [np.asarray(result.synaptic_operations).tolist() for result in (first, then)] == [[0], [1]]


def test_what_a_delay_holds_leaves_in_a_later_call(engine: EngineName) -> None:
    # Three steps late: 1, 2 | 3, 4, 5 leave as 0, 0 | 0, 1, 2; the membrane sums them.
    network = one([{"type": "Delay", "name": "late", "delay": 3}, {"type": "I", "name": "out"}], {}, "last_membrane")
    first, then = in_two_calls(engine, network, [1, 2], [3, 4, 5])
    assert first.membranes["out"].ravel().tolist() == [0, 0]
    assert then.membranes["out"].ravel().tolist() == [0, 1, 3]


def test_a_state_of_another_type_or_number_of_samples_is_refused(engine: EngineName) -> None:
    runner = create(engine, one([{"type": "IF", "name": "out"}]))
    inputs = DenseInputs(np.zeros((2, 1, 1), np.float32), 2)
    _, state = runner.run(inputs)
    arrays = dict(state.arrays)
    wrong = State(state.steps, arrays | {"out.membrane": arrays["out.membrane"].astype(np.float64)})
    with pytest.raises(InvalidInput, match=r"^state: the type of 'out.membrane' is float64, expected float32$"):
        runner.run(inputs, wrong)
    two = State.joined([state, state])
    with pytest.raises(InvalidInput, match=r"^state: the shape of its steps is 2, expected 1 for 1 samples$"):
        runner.run(inputs, two)
    with pytest.raises(InvalidInput, match=r"^state: the shape of 'out.membrane' is 2×1, expected 1×1 for 1 samples$"):
        runner.run(inputs, State(state.steps, two.arrays))
    most = 2**53  # from here on a mean could not be divided by the number of steps any more
    runner.run(inputs, State(np.array([most]), arrays))
    for steps in (-1, most + 1):
        with pytest.raises(InvalidInput, match=rf"^state: a sample's steps are {steps}, expected 0 to {most}$"):
            runner.run(inputs, State(np.array([steps]), arrays))
