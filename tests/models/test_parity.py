"""What an engine promises beyond the numbers of tests/contracts/nodes.py: sessions, states, counts and its name.

Every name in `ENGINES` takes part, the default engine first, so that a new engine cannot be left out.

    SPIKESERVE_EXAMPLES=3000 .venv/bin/python -m pytest tests/models/test_parity.py
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

from spikeserve.models.coding import DenseInputs, EventInputs, Events, Inputs, encode, encode_events
from spikeserve.models.engines import ENGINES, Engine, RunResult, State, available, blocks, create
from spikeserve.models.engines.declared import preferred
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import arrays_of
from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from tests.networks import Case, dyadic_cases, network_of, node_of, task, toy
from tests.same import EVERYTHING, assert_same_state
from tests.sources import ROOT

drawn = settings(suppress_health_check=[HealthCheck.too_slow])
SPLIT = {count: Cores(count, least_work=0.0) for count in (1, 2, 3)}  # which split every batch that has two parts
every_engine = pytest.mark.parametrize("engine", list(ENGINES))
# For each test, as many seconds as cases on a busy machine.
pytestmark = pytest.mark.timeout(max(300, settings().max_examples))


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


@every_engine
@settings(max_examples=20)
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


FC: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False}
PAIR: dict[str, Any] = {"type": "Scale", "scale": "per_channel", "inputs": ["input"]}
SAME: dict[str, Any] = {"type": "Conv1d", "in_channels": 2, "out_channels": 2, "kernel_size": 2, "padding": "same"}
UP: dict[str, Any] = {"type": "ConvTranspose1d", "in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2}
# Nodes before an I, whose tensors are 1 unless they stand here, the steps of a sample, and how many weights it meets.
COUNTS: list[tuple[list[dict[str, Any]], dict[str, Any], Any, int]] = [
    ([{"type": "Delay", "name": "delay", "delay": 1}, FC], {}, [[1]] * 3, 2),  # in the 2 steps left of 3
    # Length 4, kernel 2, "same": the first input lies under one window, each other under two; of two groups an input
    # meets the one channel of its own.
    *(
        ([SAME | {"name": "conv", "groups": 2, "bias": False}], {}, [value], expected)
        for value, expected in (([[1, 0, 0, 0], [0] * 4], 1), ([[0] * 4, [0, 0, 0, 1]], 2), ([[1] * 4] * 2, 14))
    ),
    # Spikes at steps 0, 2 and 3 of four meet three weights at each of the taps 0 and 2 that come within the run.
    (
        [{"type": "Delay", "name": "seen", "taps": [0, 2]}, FC | {"in_features": 2, "out_features": 3}],
        *({}, [[1], [0], [1], [1]], 3 * (3 + 1)),
    ),
    # Of (x - 1)² x the first and the third are not 0.
    (
        [
            {"type": "Scale", "name": "shifted", "scale": 1, "offset": -1, "inputs": ["input"]},
            {"type": "Multiply", "name": "product", "inputs": ["shifted", "input", "shifted"]},
            FC | {"in_features": 3, "out_features": 5},
        ],
        *({}, [[2, 1, 3], [0, 0, 0]], 2 * 5),
    ),
    # 1 - 1 of one and 1 - 0.5 of the other: only the second meets three weights, at both steps.
    (
        [
            *(PAIR | {"name": name} for name in ("plus", "minus")),
            FC | {"in_features": 2, "out_features": 3, "inputs": ["plus", "minus"]},
        ],
        *({"minus.scale": [-1, -0.5]}, [[1, 1], [1, 1]], 2 * 3),
    ),
    # 2.5 holds two thresholds: two spikes arrive at once, so that one weight is met once.
    ([{"type": "Threshold", "name": "in", "fire": "multiple"}, FC], {}, [[2.5]], 1),
    ([{"type": "LI", "name": "filter", "decay": 0.5}, FC], {}, [[1], [1], [0]], 3),  # of what a membrane passes on
    # Two neurons fire twice, and the first two spikes come back by two weights each.
    ([{"type": "IF", "name": "n", "recurrent": {}}, FC | {"in_features": 2}], {}, [[1, 1]] * 2, 4 + 4),
    # Of each input's kernel of three, at places 2 i - 1 and on, those of its group that lie within the output.
    *(
        ([UP | {"name": "up", "padding": 1, "groups": 2, "bias": False}], {}, [np.eye(6)[k].reshape(2, 3)], 2 * met)
        for k, met in enumerate((2, 3, 2) * 2)
    ),
]


@every_engine
@pytest.mark.parametrize(("nodes", "tensors", "steps", "expected"), COUNTS)
def test_as_many_synaptic_operations_are_counted_as_weights_are_met(
    engine: str, nodes: list[dict[str, Any]], tensors: dict[str, Any], steps: Any, expected: int
) -> None:
    values = np.array(steps, np.float32)[:, np.newaxis]
    named = [*nodes, {"type": "Flatten", "name": "flat"}, {"type": "I", "name": "out"}]
    network = filled(named, tensors, values.shape[2:], "current")
    result, _ = create(engine, network).run(DenseInputs(values, len(values)))
    assert result.synaptic_operations.tolist() == [expected]
    constant = filled([FC, {"type": "IF", "name": "out"}], {}, (1,), "direct")  # met once before the first neuron
    result, _ = create(engine, constant).run(DenseInputs(np.ones((1, 1, 1), np.float32), 4))
    assert result.synaptic_operations.tolist() == [1]


def filled(nodes: list[dict[str, Any]], tensors: dict[str, Any], shape: Any, coding: str) -> Network:
    """Return a network whose tensors are 1 but those that stand here, with as many outputs as its last node has."""
    outputs = shape
    for node in nodes:
        outputs = node_of(node).output_shape(outputs)
    around = task(shape, 4, int(np.prod(outputs)), coding, low=-8, high=8, readout="last")
    shapes = Spec.read({"nodes": nodes} | around).tensor_shapes
    return network_of(nodes, {name: np.ones(own) for name, own in shapes.items()} | tensors, **around)


@every_engine
def test_more_steps_than_there_are_parameters_for_are_refused_in_a_sentence(engine: str) -> None:
    nodes: list[dict[str, Any]] = [{"type": "Scale", "name": "norm", "scale": "per_channel", "steps": 4}]
    network = filled([*nodes, {"type": "I", "name": "out"}], {}, (1,), "direct")
    runner, sample = create(engine, network), np.ones((1, 1, 1), np.float32)
    _, state = runner.run(DenseInputs(sample, 3))
    sentence = "^time_steps is 5 since rest, but node 'norm' has parameters for 4$"
    for call in (
        lambda: runner.run(DenseInputs(sample, 2), state),
        lambda: encode(sample[0], network.spec, 5),
        lambda: encode_events([Events([], [])], network.spec.model_copy(update={"coding": Coding.SPIKES}), 5),
    ):
        with pytest.raises(InvalidInput, match=sentence):
            call()
    with pytest.raises(InvalidSpec, match=sentence[1:]):
        Spec.read(network.spec.model_dump(mode="json", exclude_none=True) | {"time_steps": 5})


SEVERAL: dict[str, Any] = {"type": "IF", "name": "many", "fire": "multiple", "reset": "none"}


@every_engine
@pytest.mark.parametrize("threshold", [2.0**-149, 2.0**-40, 2.0**-25])
@pytest.mark.parametrize("hidden", [False, True])
def test_more_spikes_than_can_be_counted_are_refused(engine: str, threshold: float, hidden: bool) -> None:
    # A current of 1 has room for a threshold of 2**-25 2**25 times, where 2**24 is the most; 1 / 2**-149 is infinite.
    nodes = [SEVERAL | {"threshold": threshold}, *[{"type": "IF", "name": "out"}] * hidden]
    sentence = r"^node 'many': a neuron fires \S+ times in one step, expected at most 16777216; [^\n]*$"
    with pytest.raises(InvalidInput, match=sentence):
        create(engine, filled(nodes, {}, (1,), "current")).run(DenseInputs(np.array([[[0]], [[1]]], np.float32), 2))


@every_engine
def test_as_many_spikes_as_can_be_counted_are_counted_exactly(engine: str) -> None:
    # 2**24 - 1 spikes at each of three steps are 50331645 in all: an odd number between 2**25 and 2**26, where float32
    # knows only every fourth.
    runner = create(engine, filled([{"type": "Threshold", "name": "out", "fire": "multiple"}], {}, (1,), "current"))
    result, _ = runner.run(DenseInputs(np.full((3, 1, 1), 2**24 - 1, np.float32), 3))
    assert result.spike_counts.tolist() == [[3 * (2**24 - 1)]]
    assert result.spikes_per_node["out"].tolist() == [3 * (2**24 - 1)]


@every_engine
@pytest.mark.parametrize("fire", ["at_threshold", "multiple"])
def test_a_neuron_whose_threshold_overflows_falls_silent(engine: str, fire: str) -> None:
    # A state of two spikes, each of which adds 3e38: the threshold is infinite, and the membrane no number any more.
    node = {"type": "ALIF", "name": "out", "decay": 0.5, "adapt_decay": 1.0, "adapt_gain": 3e38, "fire": fire}
    runner = create(engine, filled([node], {}, (1,), "current"))
    _, state = runner.run(DenseInputs(np.zeros((1, 1, 1), np.float32), 1))
    state = State(state.steps, {**state.arrays} | {"out.adaptation": np.full((1, 1), 2.0, np.float32)})
    with np.errstate(all="ignore"):
        result, _ = runner.run(DenseInputs(np.full((3, 1, 1), 8, np.float32), 3), state)
    assert result.spike_counts.tolist() == [[0]]


def test_every_name_is_declared_in_the_same_order() -> None:
    assert tuple(ENGINES) == ("event", "onnx", "torch", "reference")


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
