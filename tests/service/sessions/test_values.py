"""Streams of values, to models of `current`, `direct` and `rate` coding: what they may be, and who has none."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.contracts.sessions import NETWORKS
from tests.networks import network_of, task, toy
from tests.serving import Process, running

Line = dict[str, Any]
NDJSON = "application/x-ndjson"


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
    for coding in ("current", "direct", "rate"):
        publish(root, NETWORKS[coding], coding)
    publish(root, toy(Coding.LATENCY), "latency")
    publish(root, apart(), "apart")
    publish(
        root,
        network_of([{"type": "LI", "name": "out", "decay": 0.5}], {}, **task(2, 3, 2, "current", readout="last")),
        "last",
    )
    with running(root, ready=6) as process:
        yield process


def stream(service: Process, model: str, messages: list[Line], query: str = "") -> list[Line]:
    url = f"{service.url}/models/{model}/stream{query}"
    body = "\n".join(map(json.dumps, messages))
    answer = httpx.post(url, content=body, headers={"content-type": NDJSON}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_window_of_direct_coding_has_the_steps_of_training_unless_the_query_says(service: Process) -> None:
    (line, _) = stream(service, "direct", [{"type": "values", "values": [[0.1, 0.2]]}])
    assert (line["steps"], line["t"]) == (4, 4)


def test_a_binary_message_of_too_many_values_or_of_a_part_of_one_is_refused(service: Process) -> None:
    for size, sentence in (
        (4 * (2**20 + 2), "values has 1048578 numbers, expected at most 1048576 in one message"),
        (13, "a message has 13 bytes, expected 8 for each step: 2 values of float32"),
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
        ("last/stream?scores=decay", NDJSON, 422, "scores is 'decay', but this model's class is read from 'last'"),
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
