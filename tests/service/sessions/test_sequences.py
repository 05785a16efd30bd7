"""Sequences of the Open Inference Protocol, by requests written out; the page has Triton's own client.

How many sessions a client may have, and where a sequence lives: its place is given back whatever ends it.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bundles import published
from tests.service.asgi import Answered, Client, started
from tests.service.sessions.conftest import INFER, ONE, pairs
from tests.serving import Process, running


def infer(service: Process, events: list[list[float]], model: str = "pairs", **parameters: Any) -> httpx.Response:
    """Send a slice of steps, each with a value for each of two units."""
    tensor = {"name": "inputs", "shape": [1, len(events), 2], "datatype": "FP32", "data": [events]}
    body = {"inputs": [tensor], "parameters": parameters}
    return httpx.post(f"{service.url}/v2/models/{model}/infer", json=body, timeout=60)


def counts(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    (found,) = [each["data"] for each in answer.json()["outputs"] if each["name"] == "spike_counts"]
    return [int(value) for value in found]


def test_sequences_do_not_meet_and_a_start_is_at_rest(service: Process) -> None:
    for name in ("one", "two"):
        assert counts(infer(service, [[1, 0]], sequence_id=name, sequence_start=True)) == [0, 0]
    assert counts(infer(service, [[1, 0]], sequence_id="one")) == [1, 0]
    assert counts(infer(service, [[1, 0]], sequence_id="two", sequence_start=True)) == [0, 0]
    assert counts(infer(service, [[1, 0]])) == [0, 0]  # and a request without one begins at rest


def test_requests_of_one_sequence_that_come_together_run_one_after_the_other(service: Process) -> None:
    infer(service, [[0, 0]], sequence_id=9, sequence_start=True)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: counts(infer(service, [[1, 0]], sequence_id=9)), range(20)))
    assert sorted(answers) == sorted([n // 2, 0] for n in range(1, 21))


def test_a_long_body_belongs_to_its_sequence_too(service: Process) -> None:
    steps = [[1.0, 0.0]] * 1000
    assert counts(infer(service, [[1, 0]], sequence_id=11, sequence_start=True)) == [0, 0]
    assert len(str(steps)) > 2**13
    assert counts(infer(service, steps, sequence_id=11)) == [500, 0]
    assert counts(infer(service, [[1, 0]], sequence_id=11, sequence_end=True)) == [501, 0]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sequence_start": True}, "sequence_start or sequence_end is true, but sequence_id is missing"),
        ({"sequence_id": -1}, "parameters.sequence_id"),
        ({"sequence_id": "x" * 129}, "parameters.sequence_id"),
        ({"sequence_state": True}, "sequence_state is given, but sequence_id is missing"),
        ({"sequence_id": 1, "sequence_state": "AAAA"}, "sequence_state is a state, but sequence_start is not true"),
        ({"sequence_id": 1, "sequence_start": True, "sequence_state": "?"}, "state: is not base64"),
        ({"sequence_id": 1, "sequence_start": True, "sequence_state": "AAA\u00e9"}, "state: is not base64"),
        ({"sequence_id": 1, "sequence_start": True, "sequence_state": "A" * 20_000}, "state: has 20000 characters, ex"),
        ({"sequence_id": 1, "sequence_state": 1}, "parameters.sequence_state"),
        (
            {"sequence_id": 70},
            "sequence_id is 70, but no such sequence of model 'pairs' is open in this process: begin one of another id "
            "with sequence_start, at rest or from the sequence_state of an answer",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_400(service: Process, parameters: dict[str, Any], sentence: str) -> None:
    answer = infer(service, [[1, 0]], **parameters)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


def state_of(answer: httpx.Response) -> str:
    return answer.json()["parameters"]["sequence_state"]


def test_a_state_is_told_where_it_is_asked_for_and_goes_on_as_a_stream_too(service: Process) -> None:
    assert "parameters" not in infer(service, [[1, 0]], sequence_id=30, sequence_start=True).json()
    told = infer(service, [[0, 1]], sequence_id=30, sequence_end=True, sequence_state=True)
    # Each unit has half a spike behind it; a stream makes both whole.
    messages = [{"type": "state", "state": state_of(told)}, {"type": "events", "t": [0, 0], "unit": [0, 1]}]
    body, kind = "\n".join(map(json.dumps, messages)), {"content-type": "application/x-ndjson"}
    window, _ = httpx.post(f"{service.url}/models/pairs/stream", content=body, headers=kind).text.splitlines()
    assert json.loads(window)["spike_counts"] == [1, 1]


def test_a_start_that_fails_leaves_the_sequence_at_its_state(service: Process) -> None:
    told = state_of(infer(service, [[1, 0]], sequence_id=33, sequence_start=True, sequence_state=True))
    begin: dict[str, Any] = {"sequence_id": 34, "sequence_start": True, "sequence_state": told}
    assert infer(service, [[9, 0]], **begin).status_code == 400  # beyond the declared range
    assert counts(infer(service, [[1, 0]], sequence_id=34)) == [1, 0]


def test_a_failed_request_leaves_the_state_as_it_was(service: Process) -> None:
    infer(service, [[1, 0]], sequence_id=12, sequence_start=True)
    assert infer(service, [[9, 0]], sequence_id=12).status_code == 400  # beyond the declared range
    assert counts(infer(service, [[1, 0]], sequence_id=12)) == [1, 0]


def body(number: int, **parameters: Any) -> dict[str, Any]:
    return {"inputs": [ONE], "parameters": {"sequence_id": number, **parameters}}


async def begin(client: Client, number: int, host: str = "127.0.0.1", key: str = "") -> Answered:
    client.address = (host, 1)
    return await client.post(body(number, sequence_start=True), INFER, {"Authorization": key} if key else {})


@pytest.mark.usefixtures("reference_engine")
async def test_one_address_holds_a_share_of_the_sessions(root: Path) -> None:
    # A quarter of eight is two.
    async with started(root, max_sessions=8) as client:
        assert [(await begin(client, number)).status for number in (1, 2)] == [200, 200]
        refused = await begin(client, 3)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json["error"] == (
            "2 sessions of this address are open, expected fewer than 2: a client may take a share of 0.25 of "
            "max_sessions (max_client_share)"
        )
        # A mapped address is the one of IPv4; of IPv6, the first 64 bits are one client.
        assert (await begin(client, 4, "::ffff:127.0.0.1")).status == 503
        networks = ["2001:db8::1", "2001:db8::2", "2001:db8::ff:3", "2001:db8:0:1::1", "not an address"]
        found = [(await begin(client, 5 + place, host)).status for place, host in enumerate(networks)]
        assert found == [200, 200, 503, 200, 200]
        client.address = ("127.0.0.1", 1)
        assert (await client.post(body(1, sequence_end=True), INFER)).status == 200
        assert (await begin(client, 3)).status == 200


@pytest.mark.usefixtures("reference_engine")
async def test_one_key_holds_a_share_of_the_sessions_wherever_it_comes_from(root: Path) -> None:
    digests = ",".join(f"sha256:{sha256(key).hexdigest()}" for key in (b"one", b"two"))
    async with started(root, max_sessions=8, api_keys=digests) as client:
        ways = ["Bearer one", "bearer one", "BEARER  one"]
        found = [(await begin(client, place, f"10.0.0.{place}", way)).status for place, way in enumerate(ways, start=1)]
        assert found == [200, 200, 503]
        refused = await begin(client, 4, "10.0.0.9", "Bearer one")
        assert refused.json["error"].startswith("2 sessions of this key are open, expected fewer than 2")
        assert (await begin(client, 5, "10.0.0.1", "Bearer two")).status == 200


@pytest.mark.usefixtures("reference_engine")
async def test_one_address_holds_a_share_of_the_bytes_of_states(root: Path) -> None:
    async with started(root) as client:
        size = client.model().state_bytes
    # Room for four sessions, of which a client may fill half; one session is always within its share.
    async with started(root, max_body_bytes=size, max_pending_bytes=8 * size, max_client_share=0.5) as client:
        assert [(await begin(client, number)).status for number in (1, 2)] == [200, 200]
        refused = await begin(client, 3)
        assert refused.json["error"] == (
            f"the states of the sessions of this address would take {3 * size} bytes with this one, expected at most "
            f"{2 * size}: a client may take a share of 0.5 of half of max_pending_bytes (max_client_share)"
        )
        assert (await begin(client, 3, "10.0.0.1")).status == 200
    async with started(root, max_body_bytes=size, max_pending_bytes=2 * size, max_client_share=0.5) as client:
        assert (await begin(client, 1)).status == 200


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of two workers."""
    root = published(tmp_path_factory, pairs=pairs())
    with running(root, "--workers", "2", "--engine", "reference", ready=2) as process:
        yield process


def ask(connection: HTTPConnection, asked: dict[str, Any]) -> tuple[int, Any]:
    connection.request("POST", INFER, json.dumps(asked))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def place(service: Process) -> str:
    return service.url.removeprefix("http://")


def test_a_sequence_of_several_connections_is_told_so_by_several_workers_and_leaks_nothing(workers: Process) -> None:
    refused = (
        "no such sequence of model 'pairs' is open on this connection: with several workers, send all requests of a "
        "sequence on one connection, or begin one of another id with sequence_start, at rest or from the "
        "sequence_state of an answer"
    )
    for number in range(1, 31):
        for status, last in ((200, False), (400, True)):
            connection = HTTPConnection(place(workers), timeout=60)
            found, answer = ask(connection, body(number, sequence_start=not last, sequence_end=last))
            assert found == status, answer
            assert not last or answer["error"] == f"sequence_id is {number}, but {refused}"
            connection.close()
    values = dict.fromkeys(["spikeserve_queue_depth", "spikeserve_sessions", "spikeserve_session_state_bytes"], 1.0)
    while any(values.values()):  # a worker may not have seen yet that the last connection is closed
        text = httpx.get(f"{workers.url}/metrics").text
        for name in values:
            found_values = re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE)
            values[name] = sum(map(float, found_values)) if len(found_values) == 2 else 1  # without one that is late


def test_a_sequence_of_one_connection_goes_on_with_several_workers(workers: Process) -> None:
    for number in range(1, 9):
        connection = HTTPConnection(place(workers), timeout=60)
        found = [ask(connection, body(number, sequence_start=step == 0, sequence_end=step == 3)) for step in range(4)]
        counts = [answer["outputs"] for _, answer in found]
        counts = [each["data"] for outputs in counts for each in outputs if each["name"] == "spike_counts"]
        assert counts == [[0, 0], [1, 0], [1, 0], [2, 0]]  # a spike at every second event
        connection.close()
