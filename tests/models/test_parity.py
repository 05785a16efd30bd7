"""Every engine gives the same spikes, with no tolerance, on drawn networks: in one go, cut and joined anywhere.

Every name in `ENGINES` takes part, the default engine first, so that a new engine cannot be left out. Each draws
30 cases; another number is set by SPIKESERVE_EXAMPLES:

    SPIKESERVE_EXAMPLES=3000 .venv/bin/python -m pytest tests/models/test_parity.py

The engines as they are declared: each once, and all that must know them reads it there.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines import ENGINES, Engine, RunResult, State, available, blocks, create
from spikeserve.models.engines.declared import preferred
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import arrays_of
from tests.networks import CONNECTIONS, FIRING, INTEGRATING, JOINS, NODES, Case, dyadic_cases, toy
from tests.same import EVERYTHING, assert_same, assert_same_state
from tests.sources import ROOT

CASES = settings.default.max_examples

drawn = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPLIT = {count: Cores(count, least_work=0.0) for count in (1, 2, 3)}  # which split every batch that has two parts
every_engine = pytest.mark.parametrize("engine", list(ENGINES))
pytestmark = pytest.mark.timeout(max(300, CASES))  # for each test, as many seconds as cases on a busy machine


# Nearly the same cases each time (Hypothesis also draws numbers that stand in the modules that are imported): of
# real-valued inputs a sum in float64 may still round, once in some hundred million sums.
@every_engine
@settings(drawn, derandomize=True)
@given(case=st.one_of(dyadic_cases(), dyadic_cases(dyadic=False)))
def test_an_engine_agrees_with_the_reference_in_every_spike_and_membrane(engine: str, case: Case) -> None:
    expected, expected_state = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    found: Engine = create(engine, case.network)
    result, state = found.run(case.inputs, record=EVERYTHING)
    assert_same(result, expected)
    assert_same_state(state, expected_state)
    later: State | None = None
    for part in case.parts:
        _, later = found.run(part, later, record=EVERYTHING)
    assert later is not None
    assert_same_state(later, expected_state)


class Sessions:
    """The samples of a case, each of which goes on from its own state, as a scheduler of sessions runs them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.states = [State.rest(case.network, 1) for _ in range(case.inputs.batch)]
        self.results: list[list[RunResult]] = [[] for _ in self.states]

    def left(self, sample: int) -> int:
        return self.case.inputs.time_steps - int(self.states[sample].steps[0])

    @property
    def waiting(self) -> list[int]:
        return [sample for sample in range(len(self.states)) if self.left(sample)]

    def run(self, engine: Engine, samples: list[int], time_steps: int, *, as_events: bool, by_places: bool) -> None:
        """Run a slice of some samples in one batch, and part what is after it by slices or by places."""
        inputs: Inputs = DenseInputs.joined([self.slice_of(sample, time_steps) for sample in samples])
        inputs = EventInputs.of(inputs) if as_events else inputs
        result, state = engine.run(inputs, State.joined([self.states[sample] for sample in samples]), record=EVERYTHING)
        for place, sample in enumerate(samples):
            part: Any = np.array([place]) if by_places else slice(place, place + 1)
            self.states[sample] = state[part]
            self.results[sample].append(result[part])

    def slice_of(self, sample: int, time_steps: int) -> DenseInputs:
        first = int(self.states[sample].steps[0])
        return self.case.inputs[sample : sample + 1].between(first, first + time_steps)


@every_engine
@drawn
@given(case=dyadic_cases(), data=st.data())
def test_sessions_of_any_ages_in_one_batch_get_the_bits_of_one_run_each_whichever_engines_run_their_slices(
    engine: str, case: Case, data: st.DataObject
) -> None:
    whole, whole_state = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    rest = {name: (array.shape[1:], array.dtype) for name, array in State.rest(case.network, 2).arrays.items()}
    assert rest == {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in arrays_of(case.network).items()}
    engines: dict[tuple[str, int], Engine] = {}
    sessions = Sessions(case)
    with pytest.MonkeyPatch.context() as patched:  # events become dense in several blocks of steps
        patched.setattr(blocks, "BLOCK_BYTES", 4 * data.draw(st.sampled_from([1, 64, 2**22])))
        while waiting := sessions.waiting:
            name = data.draw(st.sampled_from([engine, engine, *available()]))
            threads = data.draw(st.sampled_from([*SPLIT])) if name == "event" else 0
            if (name, threads) not in engines:
                engines[name, threads] = (
                    EventEngine(case.network, cores=SPLIT[threads]) if threads else create(name, case.network)
                )
            samples = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
            sessions.run(
                engines[name, threads],
                samples,
                data.draw(st.integers(1, min(map(sessions.left, samples)))),
                as_events=not case.inputs.constant and data.draw(st.booleans()),
                by_places=data.draw(st.booleans()),
            )
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


def test_the_cases_draw_every_node_that_there_is() -> None:
    drawn_kinds = {*FIRING, *INTEGRATING, *JOINS, *(kind for kinds in CONNECTIONS.values() for kind in kinds)}
    assert drawn_kinds == NODES.keys()


@every_engine
@settings(max_examples=20, deadline=None)
@given(case=dyadic_cases(), data=st.data())
def test_a_state_that_does_not_fit_gets_a_sentence(engine: str, case: Case, data: st.DataObject) -> None:
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
    if not any(node.by_step for node in case.network.spec.nodes):
        runner.run(case.inputs, State(np.full(case.inputs.batch, 2**53), arrays))  # the most that a mean is divided by
    for steps, sentence in wrong_steps:
        if case.inputs.batch or "of its steps" in sentence:
            with pytest.raises(ValueError, match=f"^state: {sentence}$"):
                runner.run(case.inputs, State(steps, arrays))


def test_every_name_is_declared_in_the_same_order() -> None:
    assert tuple(ENGINES) == ("event", "onnx", "torch", "reference")


@pytest.mark.parametrize("name", list(ENGINES))
def test_an_engine_is_called_what_it_is_declared_as(name: str) -> None:
    assert create(name, toy()).name == name


@pytest.mark.parametrize(("name", "line"), [("mine", "event mine torch reference"), ("torch", "")])
def test_an_engine_comes_through_the_door_between_those_of_the_core(tmp_path: Path, name: str, line: str) -> None:
    record = f'PLUGINS = (Plugin("engine", "{name}", "spikeserve.models.engines.reference:ReferenceEngine", ""),)'
    (tmp_path / "mine.py").write_text(f"from spikeserve.models.door import Plugin\n{record}\n")
    program = "from spikeserve.models.engines import ENGINES, create; print(*ENGINES); create('onnx', None)"
    env = os.environ | {"SPIKESERVE_PLUGINS": "mine", "SPIKESERVE_PLUGINS_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == line
    known = f"engine 'onnx' is none here, expected {', '.join(line.split())}"
    said = known if line else f"engine 'torch' comes with spikeserve, and with {tmp_path}/mine.py; SPIKESERVE_PLUGINS= "
    assert f": {said}" in ran.stderr


def test_auto_tries_what_is_best_on_a_device_first() -> None:
    # PyTorch on the CPU is the slowest of them, and the one engine that runs anywhere else.
    assert preferred("cpu") == ("event", "onnx", "reference")
    assert preferred("cuda:1") == ("torch",)


def test_only_engines_that_take_less_time_for_a_sample_beside_others_batch() -> None:
    assert {name for name in ENGINES if create(name, toy()).batches} == {"onnx", "torch"}
