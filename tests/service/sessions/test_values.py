"""Streams of values, to models of `current`, `direct` and `rate` coding: cut anywhere, they answer as one request does.

The network has memory in a recurrent layer and in its readout, whose membrane each window's scores are.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray, Network
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.serving import Process, running

Line = dict[str, Any]
NDJSON = "application/x-ndjson"


def remembering(coding: Coding) -> Network:
    """Three inputs, four recurrent neurons, and two that leak and never spike, whose last membrane is read."""
    rng = np.random.default_rng(5)
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 4},
            {"type": "LIF", "name": "hidden", "decay": 0.9, "recurrent": {}},
            {"type": "Linear", "name": "out", "in_features": 4, "out_features": 2},
            {"type": "LI", "name": "leak", "decay": 0.8},
        ],
        {
            "fc.weight": rng.normal(0, 1, (4, 3)),
            "fc.bias": rng.normal(0, 0.1, 4),
            "hidden.recurrent.weight": rng.normal(0, 0.5, (4, 4)),
            "out.weight": rng.normal(0, 1, (2, 4)),
            "out.bias": rng.normal(0, 0.1, 2),
        },
        **task(3, 4, ["left", "right"], coding, low=0, high=1, readout="last"),
    )


def apart() -> Network:
    """One value a step, of which the network gets the shape and the size; their sums are read."""
    declared = {"shape": [1], "low": -10, "high": 10, "resolution": 0.25, "by_deviation": True}
    nodes = [
        {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
        {"type": "LI", "name": "out", "decay": 1.0},
    ]
    tensors = {"fc.weight": [[1, 0], [0, 1]]}
    return network_of(nodes, tensors, input=declared, coding="current", time_steps=2, readout="last", labels=["a", "b"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of one network in each coding, named by it."""
    root = tmp_path_factory.mktemp("repository")
    for coding in (Coding.CURRENT, Coding.DIRECT, Coding.RATE):
        publish(root, remembering(coding), coding)
    publish(root, toy(Coding.LATENCY), "latency")
    publish(root, apart(), "apart")
    with running(root, ready=5) as process:
        yield process


def stream(service: Process, model: str, messages: list[Line], query: str = "") -> list[Line]:
    url = f"{service.url}/models/{model}/stream{query}"
    body = "\n".join(map(json.dumps, messages))
    answer = httpx.post(url, content=body, headers={"content-type": NDJSON}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def membranes(service: Process, model: str, sample: Any, **body: Any) -> list[list[float]]:
    """Return the readout's membrane after each step, as one request gives it."""
    body = {"inputs": [sample], "return": ["membrane"], **body}
    answer = httpx.post(f"{service.url}/models/{model}/predict", json=body, timeout=60)
    return answer.json()["predictions"][0]["membrane"]["leak"]


def values_of(seed: int, entries: int) -> list[list[float]]:
    return np.random.default_rng(seed).random((entries, 3)).astype(np.float32).tolist()


def cut(values: list[list[float]], cuts: list[int]) -> list[Line]:
    edges = [0, *sorted({each % (len(values) + 1) for each in cuts}), len(values)]
    return [{"type": "values", "values": values[a:b]} for a, b in pairwise(edges)]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    steps=st.integers(1, 12),
    window=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    moved=st.integers(0, 12),
)
def test_currents_cut_into_any_messages_windows_and_sessions_answer_as_one_request(
    service: Process, seed: int, steps: int, window: int, cuts: list[int], moved: int
) -> None:
    values, query = values_of(seed, steps), f"?window_steps={window}"
    moved %= steps + 1
    lines = stream(service, "current", [*cut(values[:moved], cuts), {"type": "state"}], query)
    kinds = [line["type"] for line in lines]  # behind the state, the end closes the open window early
    first, state = lines[: kinds.index("state")], lines[kinds.index("state")]
    rest = values[state["t"] or 0 :]
    *second, end = stream(service, "current", [{"type": "state", "state": state["state"]}, *cut(rest, cuts)], query)
    whole = membranes(service, "current", values)
    ends = [*range(window, steps, window), steps]
    assert [line["t"] for line in first + second] == ends
    assert [line["scores"] for line in first + second] == [whole[each - 1] for each in ends]
    assert end == {"type": "end", "windows": len(ends), "steps": steps}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), windows=st.integers(1, 5), window=st.integers(1, 5), cuts=st.lists(st.integers(0, 9)))
def test_direct_values_fill_a_window(service: Process, seed: int, windows: int, window: int, cuts: list[int]) -> None:
    values = values_of(seed, windows)
    *lines, end = stream(service, "direct", cut(values, cuts), f"?window_steps={window}")
    held = [each for each in values for _ in range(window)]
    whole = membranes(service, "current", held)  # the same network, which is sent each step
    assert [line["scores"] for line in lines] == [whole[each] for each in range(window - 1, len(held), window)]
    assert end == {"type": "end", "windows": windows, "steps": len(held)}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), windows=st.integers(2, 6), window=st.integers(1, 5), moved=st.integers(1, 5))
def test_rate_coding_draws_as_in_one_run(service: Process, seed: int, windows: int, window: int, moved: int) -> None:
    sample, query = [0.2, 0.5, 0.9], f"?window_steps={window}&seed={seed}"
    moved = min(moved, windows - 1)
    begin: list[Line] = [{"type": "values", "values": [sample] * moved}, {"type": "state"}]
    *first, state, _ = stream(service, "rate", begin, query)
    go_on: list[Line] = [
        {"type": "state", "state": state["state"]},
        {"type": "values", "values": [sample] * (windows - moved)},
    ]
    *second, _ = stream(service, "rate", go_on, query)
    whole = membranes(service, "rate", sample, seed=seed, time_steps=windows * window)
    assert [line["scores"] for line in first + second] == whole[window - 1 :: window]


def test_a_window_of_direct_coding_has_the_steps_of_training_unless_the_query_says(service: Process) -> None:
    (line, _) = stream(service, "direct", [{"type": "values", "values": [[0.1, 0.2, 0.3]]}])
    assert (line["steps"], line["t"]) == (4, 4)


def test_a_sequence_of_rate_coding_draws_as_one_request(service: Process) -> None:
    def scores(steps: int, **parameters: Any) -> list[float]:
        tensor = {"name": "inputs", "shape": [1, 3], "datatype": "FP32", "data": [0.2, 0.5, 0.9]}
        body = {"inputs": [tensor], "parameters": {"time_steps": steps, "seed": 7, **parameters}}
        answer = httpx.post(f"{service.url}/v2/models/rate/infer", json=body).json()
        (found,) = [each["data"] for each in answer["outputs"] if each["name"] == "probabilities"]
        return [float(value) for value in found]

    scores(3, sequence_id=1, sequence_start=True)
    assert scores(5, sequence_id=1, sequence_end=True) == scores(8)


def test_binary_messages_are_values_of_float32(service: Process) -> None:
    values: FloatArray = np.array(values_of(1, 7), "<f4")
    with connect(f"ws{service.url.removeprefix('http')}/models/current/stream?window_steps=3") as socket:
        socket.send(values[:2].tobytes())
        socket.send(values[2:].tobytes())
        socket.send('{"type": "end"}')
        *lines, _ = map(json.loads, socket)
    url = f"{service.url}/models/current/stream?window_steps=3"
    pieces = iter([values.tobytes()[:17], values.tobytes()[17:50], values.tobytes()[50:]])
    answer = httpx.post(url, content=pieces, headers={"content-type": "application/octet-stream"})
    posted = [json.loads(line)["scores"] for line in answer.text.splitlines()[:-1]]
    whole = membranes(service, "current", values.tolist())
    assert [line["scores"] for line in lines] == posted == [whole[2], whole[5], whole[6]]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"type": "values", "values": [[0, 0, 0], [0, 2, 0]]}], "values[1][1] is 2, expected 0 to 1"),
        ([{"type": "values", "values": [[0, 0]]}], "each step of values has shape 2, expected 3"),
        ([{"type": "values", "values": [[0, 0, 0], [0]]}], "values: the lists have different lengths"),
        ([{"type": "values", "values": [0]}], "message: values[0] is 0, expected an array"),
        ([{"type": "values", "values": [[True, 0, 0]]}], "message: values[0][0] is true, expected a number"),
        ([{"type": "values", "values": [[]]}], "each step of values has shape 0, expected 3"),
        ([{"type": "events", "t": [0], "unit": [0]}], "message: type is 'events', expected values,"),
        (
            [{"type": "values", "values": [[0, 0, 0]] * 400_000}],
            "a message has 1200000 commas, expected at most 1048576, as it may have as many numbers",
        ),
    ],
)
def test_values_that_do_not_fit_end_it_with_a_sentence(service: Process, messages: list[Line], sentence: str) -> None:
    state, error = stream(service, "current", messages)
    assert (state["type"], state["t"]) == ("state", 0)
    assert error["error"].startswith(sentence)


def test_a_binary_message_of_too_many_values_or_of_a_part_of_one_is_refused(service: Process) -> None:
    for size, sentence in (
        (4 * 3 * 2**19, "values has 1572864 numbers, expected at most 1048576 in one message"),
        (13, "a message has 13 bytes, expected 12 for each step: 3 values of float32"),
    ):
        with connect(f"ws{service.url.removeprefix('http')}/models/current/stream") as socket:
            socket.send(bytes(size))
            socket.recv()  # the state
            assert json.loads(socket.recv())["error"] == sentence


@pytest.mark.parametrize(
    ("path", "kind", "status", "sentence"),
    [
        ("latency/stream", NDJSON, 422, "model 'latency' has coding 'latency', whose spikes lie in a run of a known"),
        ("apart/stream", NDJSON, 422, "sample's deviation, expected another: such a model has no streams"),
        ("current/stream?step_us=5", NDJSON, 422, "step_us is 5, but this model takes a stream of values"),
        ("current/stream?window_steps=2000", NDJSON, 422, "window_steps is 2000, expected 1 to 1000"),
        ("current/stream?scores=decay", NDJSON, 422, "scores is 'decay', but this model's class is read from 'last'"),
        ("rate/stream?seed=-1", NDJSON, 422, "query: seed is '-1', expected at least 0"),
        ("current/stream", "application/vnd.spikeserve.events", 415, "Content-Type is 'application/vnd.spikeserve.eve"),
    ],
)
def test_what_cannot_be_streamed_is_refused(service: Process, path: str, kind: str, status: int, sentence: str) -> None:
    answer = httpx.post(f"{service.url}/models/{path}", content=b"", headers={"content-type": kind})
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(("model", "shape"), [("latency", [1, 2]), ("apart", [1, 2, 1])])
def test_a_sequence_of_what_is_read_whole_is_refused(service: Process, model: str, shape: list[int]) -> None:
    tensor = {"name": "inputs", "shape": shape, "datatype": "FP32", "data": [1, 0]}
    body = {"inputs": [tensor], "parameters": {"sequence_id": 1, "sequence_start": True}}
    answer = httpx.post(f"{service.url}/v2/models/{model}/infer", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("sequence_id is given, but the model has ")


def test_a_sample_is_divided_by_its_own_deviation_whatever_is_beside_it(service: Process) -> None:
    # Around its mean of 2 the sample is 4 and -4: of deviation 4, whose logarithm is 2, at each of two steps.
    for beside in ([], [[[9], [-9]]]):
        body = {"inputs": [[[6], [-2]], *beside]}
        answer = httpx.post(f"{service.url}/models/apart/predict", json=body | {"return": ["membrane"]}, timeout=60)
        assert answer.json()["predictions"][0]["membrane"]["out"] == [[1, 2], [0, 4]]
