"""Samples of any ages run in one batch, and each gets the bits of a run of its own, whichever engines run its slices.

The batches are formed as a scheduler of sessions would: at each turn some samples take a slice of some steps, which may
be the first of one and the last of another.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Engine, EngineName, RunResult, State, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import arrays_of
from spikeserve.models.spec.network import Network
from tests.networks import Case, dyadic_cases, network_of
from tests.same import EVERYTHING, assert_same, assert_same_state

CASES = int(os.environ.get("SPIKESERVE_PARITY_CASES", "50"))

drawn = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
every_engine = pytest.mark.parametrize("engine", list(EngineName))
pytestmark = pytest.mark.timeout(max(300, CASES))


class Sessions:
    """The samples of a case, each of which goes on from its own state."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.states = [State.rest(case.network, 1) for _ in range(case.inputs.batch)]
        self.results: list[list[RunResult]] = [[] for _ in self.states]

    def left(self, sample: int) -> int:
        return self.case.inputs.time_steps - int(self.states[sample].steps[0])

    @property
    def waiting(self) -> list[int]:
        return [sample for sample in range(len(self.states)) if self.left(sample)]

    def run(self, engine: Engine, samples: list[int], time_steps: int) -> None:
        """Run a slice of some samples in one batch."""
        inputs = DenseInputs.joined([self.slice_of(sample, time_steps) for sample in samples])
        result, state = engine.run(inputs, State.joined([self.states[sample] for sample in samples]), record=EVERYTHING)
        for place, sample in enumerate(samples):
            part = slice(place, place + 1)
            self.states[sample] = state[part]
            self.results[sample].append(result[part])

    def slice_of(self, sample: int, time_steps: int) -> DenseInputs:
        inputs = self.case.inputs[sample : sample + 1]
        first = int(self.states[sample].steps[0])
        return DenseInputs(inputs.steps if inputs.constant else inputs.steps[first : first + time_steps], time_steps)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_sessions_of_any_ages_in_one_batch_get_the_bits_of_one_run_each(
    engine: EngineName, case: Case, data: st.DataObject
) -> None:
    whole, whole_state = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    engines: dict[EngineName, Engine] = {}
    sessions = Sessions(case)
    while waiting := sessions.waiting:
        name = data.draw(st.sampled_from([engine, engine, *EngineName]))
        if name not in engines:
            engines[name] = create(name, case.network)
        samples = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        time_steps = data.draw(st.integers(1, min(map(sessions.left, samples))))
        sessions.run(engines[name], samples, time_steps)
    for sample, (state, results) in enumerate(zip(sessions.states, sessions.results, strict=True)):
        alone = slice(sample, sample + 1)
        assert_same_state(state, whole_state[alone])
        assert_one_run(results, whole[alone], constant=case.inputs.constant)


def assert_one_run(results: list[RunResult], whole: RunResult, *, constant: bool) -> None:
    """Check that the slices of a run are what the whole of it is, bit for bit."""
    same_bits(results[-1].spike_counts, whole.spike_counts)
    same_bits(results[-1].readout, whole.readout)
    for name, spikes in whole.spikes_per_node.items():
        same_bits(sum(result.spikes_per_node[name] for result in results), spikes)
    for kind in ("rasters", "membranes"):
        for name, array in getattr(whole, kind).items():
            same_bits(np.concatenate([getattr(result, kind)[name] for result in results]), array)
    if not constant:  # which is computed, and so counted, once per call
        same_bits(sum(np.asarray(result.synaptic_operations) for result in results), whole.synaptic_operations)


def same_bits(found: Any, expected: Any) -> None:
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(found, expected)


@every_engine
@drawn
@given(case=dyadic_cases())
def test_a_state_at_rest_is_what_no_state_is(engine: EngineName, case: Case) -> None:
    runner = create(engine, case.network)
    expected, expected_state = runner.run(case.inputs, record=EVERYTHING)
    rest = State.rest(case.network, case.inputs.batch)
    assert {name: (array.shape[1:], array.dtype) for name, array in rest.arrays.items()} == {
        name: (shape, np.dtype(dtype)) for name, (shape, dtype) in arrays_of(case.network).items()
    }
    result, state = runner.run(case.inputs, rest, record=EVERYTHING)
    assert_same(result, expected)
    assert_same_state(state, expected_state)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_samples_can_be_gathered_and_dropped_by_their_places(
    engine: EngineName, case: Case, data: st.DataObject
) -> None:
    runner, batch = create(engine, case.network), case.inputs.batch
    kept = data.draw(st.lists(st.integers(0, batch - 1), max_size=2 * batch) if batch else st.just(list[int]()))
    places = np.array(kept, np.intp)
    state: State | None = None
    for part in case.parts:
        expected, after = runner.run(part, state, record=EVERYTHING)
        result, gathered = runner.run(part[places], state and state[places], record=EVERYTHING)
        assert_same(result, expected[places])
        assert_same_state(gathered, after[places])
        state = after


def aged(nodes: list[dict[str, Any]], tensors: dict[str, Any] | None = None, readout: str = "spike_count") -> Network:
    """Return a network that takes one number at each step."""
    return network_of(
        nodes,
        tensors or {},
        input={"shape": [1], "low": -8, "high": 8},
        coding="current",
        time_steps=3,
        readout=readout,
        labels=["only"],
    )


def two_ages(engine: EngineName, network: Network, old: list[float], then: list[float], new: list[float]) -> RunResult:
    """Run `old` alone, and then `then`, which goes on from it, beside `new`, which starts; as many steps of both."""
    runner = create(engine, network)
    _, state = runner.run(DenseInputs(np.array(old, np.float32).reshape(-1, 1, 1), len(old)))
    steps = np.array([then, new], np.float32).T[..., np.newaxis]
    mixed = State.joined([state, State.rest(network, 1)])
    assert mixed.steps.tolist() == [len(old), 0]
    result, after = runner.run(DenseInputs(steps, len(then)), mixed, record=EVERYTHING)
    assert after.steps.tolist() == [len(old) + len(then), len(then)]
    return result


@every_engine
def test_a_recurrent_bias_waits_for_the_second_step_of_each_sample(engine: EngineName) -> None:
    # Nothing arrives: the bias of 0.25 charges the one that has begun at both steps, 0.25 after its first two steps
    # (0, then 0.25), so 0.5 and 0.75; the one that starts gets it at its second step.
    node = {"type": "IF", "name": "out", "recurrent": {"bias": True, "bias_at_start": False}}
    network = aged([node], {"out.recurrent.weight": [[0.5]], "out.recurrent.bias": [0.25]})
    result = two_ages(engine, network, [0, 0], [0, 0], [0, 0])
    assert result.membranes["out"][..., 0].T.tolist() == [[0.5, 0.75], [0, 0.25]]


@every_engine
def test_each_sample_has_the_parameters_of_its_own_steps(engine: EngineName) -> None:
    # Factors 1, 10, 100: the one that has taken a step is scaled by 10 and 100, the other by 1 and 10. The membrane
    # sums: 1 | 1 + 20, 21 + 200, and 2, 2 + 20.
    scale = {"type": "Scale", "name": "own", "scale": "per_channel", "steps": 3}
    network = aged([scale, {"type": "I", "name": "out"}], {"own.scale": [[1], [10], [100]]}, "last_membrane")
    result = two_ages(engine, network, [1], [2, 2], [2, 2])
    assert result.membranes["out"][..., 0].T.tolist() == [[21, 221], [2, 22]]


@every_engine
def test_a_mean_and_a_first_spike_count_the_steps_of_each_sample(engine: EngineName) -> None:
    # The membrane forgets nothing: 2, 3 | 4, 4 is 13 / 4 on average, and 1, 1 alone is 1.
    mean = two_ages(engine, aged([{"type": "I", "name": "out"}], {}, "mean_membrane"), [2, 1], [1, 0], [1, 0])
    assert mean.readout.tolist() == [[3.25], [1.0]]
    # Threshold 1. The first spike of one is at step 3 of 4, one step before the end; of the other at step 0 of 2.
    first = two_ages(engine, aged([{"type": "IF", "name": "out"}], {}, "first_spike"), [0, 0], [0, 1], [1, 0])
    assert first.readout.tolist() == [[1.0], [2.0]]


@every_engine
def test_a_maximum_of_one_that_starts_may_be_below_0(engine: EngineName) -> None:
    # -1, then 1 beside -2, -3: the greatest of the first is 1 - 1 = 0, and of the other -2.
    network = aged([{"type": "I", "name": "out"}], {}, "max_membrane")
    assert two_ages(engine, network, [-1], [1], [-2]).readout.tolist() == [[0.0], [-2.0]]
