"""Every engine gives the same spikes, with no tolerance, on drawn dyadic networks: in one go or cut anywhere.

Every name in `EngineName` takes part, the default engine first, so that a new engine cannot be left out. Each draws
50 cases; another number is set by SPIKESERVE_PARITY_CASES:

    SPIKESERVE_PARITY_CASES=3000 .venv/bin/python -m pytest tests/models/test_parity.py
"""

from __future__ import annotations

import os
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeserve.models.engines import Engine, EngineName, RunResult, State, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import arrays_of
from spikeserve.models.spec.nodes import Node
from tests.networks import CONNECTIONS, FIRING, INTEGRATING, JOINS, Case, dyadic_cases
from tests.same import EVERYTHING, assert_same, assert_same_state

CASES = int(os.environ.get("SPIKESERVE_PARITY_CASES", "50"))

drawn = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
every_engine = pytest.mark.parametrize("engine", list(EngineName))
pytestmark = pytest.mark.timeout(max(300, CASES))  # for each test, as many seconds as cases on a busy machine


@every_engine
@drawn
@given(case=dyadic_cases())
def test_an_engine_agrees_with_the_reference_in_every_spike_and_membrane(engine: EngineName, case: Case) -> None:
    expected, expected_state = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    result, state = create(engine, case.network).run(case.inputs, record=EVERYTHING)
    assert_same(result, expected)
    assert_same_state(state, expected_state)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_a_run_cut_anywhere_is_one_run_even_where_another_engine_goes_on(
    engine: EngineName, case: Case, data: st.DataObject
) -> None:
    whole, whole_state = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    engines: dict[EngineName, Engine] = {engine: create(engine, case.network)}
    results: list[RunResult] = []
    state: State | None = None
    for part in case.parts:
        name = data.draw(st.sampled_from([engine, *EngineName]))
        if name not in engines:
            engines[name] = create(name, case.network)
        result, state = engines[name].run(part, state, record=EVERYTHING)
        results.append(result)
    assert state is not None
    assert_same_state(state, whole_state)
    np.testing.assert_array_equal(results[-1].spike_counts, whole.spike_counts)
    np.testing.assert_array_equal(results[-1].readout, whole.readout)
    for name in whole.spikes_per_node:
        np.testing.assert_array_equal(
            sum(result.spikes_per_node[name] for result in results), whole.spikes_per_node[name]
        )
    for kind in ("rasters", "membranes"):
        for name, array in getattr(whole, kind).items():
            parts = [getattr(result, kind)[name] for result in results]
            np.testing.assert_array_equal(np.concatenate(parts), array, err_msg=name)
    if not case.inputs.constant:  # which is computed, and so counted, once per call
        operations = [np.asarray(result.synaptic_operations) for result in results]
        np.testing.assert_array_equal(sum(operations), whole.synaptic_operations)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_parts_of_a_batch_go_on_alone_and_come_together_again(
    engine: EngineName, case: Case, data: st.DataObject
) -> None:
    runner = create(engine, case.network)
    batch, parts = case.inputs.batch, case.parts
    split = data.draw(st.integers(0, batch))
    halves = [slice(0, split), slice(split, batch)]
    state: State | None = None
    for part in parts:
        expected, after = runner.run(part, state, record=EVERYTHING)
        alone = [runner.run(part[half], state and state[half], record=EVERYTHING) for half in halves]
        for half, (result, _) in zip(halves, alone, strict=True):
            assert_same(result, expected[half])
        state = State.joined([each for _, each in alone])
        assert_same_state(state, after)


def test_the_cases_draw_every_node_that_there_is() -> None:
    nodes = {node.model_fields["type"].default for node in get_args(get_args(Node)[0])}
    assert {*FIRING, *INTEGRATING, *JOINS, *(kind for kinds in CONNECTIONS.values() for kind in kinds)} == nodes


@every_engine
@settings(max_examples=20, deadline=None)
@given(case=dyadic_cases(), data=st.data())
def test_a_state_that_does_not_fit_is_refused_in_a_sentence(
    engine: EngineName, case: Case, data: st.DataObject
) -> None:
    runner = create(engine, case.network)
    _, state = runner.run(case.inputs)
    arrays: dict[str, Any] = dict(state.arrays)
    assert arrays.keys() == arrays_of(case.network).keys()
    name = data.draw(st.sampled_from(sorted(arrays)))
    wrong = {
        f"state: lacks '{name}', which the network needs": {key: arrays[key] for key in arrays if key != name},
        "state: holds 'other.membrane', which the network does not have": arrays | {"other.membrane": arrays[name]},
        f"state: the type of '{name}' is float16, expected": arrays | {name: arrays[name].astype(np.float16)},
        f"state: the shape of '{name}' is": arrays | {name: arrays[name][..., np.newaxis]},
        "state: the shape of '": {
            key: np.concatenate([array, array[:1] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)])
            for key, array in arrays.items()
        },
    }
    for sentence, held in wrong.items():
        with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
            runner.run(case.inputs, State(state.steps, held))
    wrong_steps: list[tuple[NDArray[Any], str]] = [
        (np.full(case.inputs.batch, -1), "a sample's steps are -1, expected 0 to 9007199254740992"),
        (
            np.full(case.inputs.batch, 2**53 + 1),
            "a sample's steps are 9007199254740993, expected 0 to 9007199254740992",
        ),
        (state.steps.astype(np.int32), "the type of its steps is int32, expected int64"),
        (np.ones(case.inputs.batch + 1, np.int64), r"the shape of its steps is \d, expected \d for \d samples"),
    ]
    for steps, sentence in wrong_steps:
        if case.inputs.batch or "of its steps" in sentence:
            with pytest.raises(ValueError, match=f"^state: {sentence}$"):
                runner.run(case.inputs, State(steps, arrays))
