"""Streams over a real server: by WebSocket and by POST, cut anywhere, moved, and ended from both sides.

The model spikes at every second event of a unit, so that its counts are worked out by hand, and a lost state shows.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from socket import SHUT_RDWR, create_connection, create_server
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from pydantic_core import to_json
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from spikeserve.models.coding.records import make_records
from tests.bundles import publish, published
from tests.service.asgi import started
from tests.service.sessions.conftest import check_one_message, pairs
from tests.serving import Process, running

LINES = dict[str, Any]


def socket(service: Process, query: str = "", **options: Any) -> ClientConnection:
    return connect(f"ws{service.url.removeprefix('http')}/models/pairs/stream{query}", **options)


def say(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def lines(connection: ClientConnection) -> list[LINES]:
    """Read all lines to the end of the connection, for whatever reason it ends."""
    found: list[LINES] = []
    with suppress(ConnectionClosedError):
        found.extend(json.loads(line) for line in connection)
    return found


def post(
    service: Process, content: Any, kind: str = "application/vnd.spikeserve.events", query: str = ""
) -> httpx.Response:
    url = f"{service.url}/models/pairs/stream{query}"
    return httpx.post(url, content=content, headers={"content-type": kind}, timeout=60)


def told(answer: httpx.Response) -> list[LINES]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_client_that_expects_100_continue_has_it_before_the_answer_begins(service: Process) -> None:
    address = urlsplit(service.url)
    with create_connection((address.hostname, address.port), timeout=60) as connection:
        head = "POST /models/pairs/stream HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue"
        connection.sendall(f"{head}\r\n\r\n".encode())
        reader = connection.makefile("rb")
        assert reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert reader.readline() == b"\r\n"
        assert reader.readline() == b"HTTP/1.1 200 OK\r\n"  # although no byte of the body has come
        records = make_records([0, 2000], [0, 0]).tobytes()
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(records), records))
        assert b'"type":"end","windows":2,"events":2' in reader.read()


def test_a_client_that_expects_100_continue_and_leaves_is_forgotten(bounded: Process) -> None:
    address = urlsplit(bounded.url)
    with create_connection((address.hostname, address.port), timeout=60) as connection:
        head = "POST /models/pairs/stream HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue"
        connection.sendall(f"{head}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    while 'spikeserve_sessions{model="pairs"} 0.0' not in httpx.get(f"{bounded.url}/metrics").text:
        pass


@pytest.mark.parametrize(
    ("scores", "expected"), [("window", [[1, 0], [0, 1], [0, 0]]), ("decay&decay=0.5", [[1, 0], [0.5, 1], [0.25, 0.5]])]
)
def test_the_class_is_read_from_the_window_or_a_sum(service: Process, scores: str, expected: list[list[float]]) -> None:
    records = make_records([0, 1000, 2000, 3000, 4000], [0, 0, 1, 1, 0])
    found = told(post(service, records.tobytes(), query=f"?scores={scores}"))
    assert [each["scores"] for each in found[:-1]] == expected


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?step_us=500", "step_us is 500, but a step of this model is 1000 microseconds"),
        ("?window_steps=0", "query: window_steps is '0', expected at least 1"),
        ("?window_steps=100000", "window_steps is 100000, expected 1 to 1000"),
        ("?scores=all", "query: scores is 'all', expected 'total', 'window' or 'decay'"),
        (
            "?colour=1",
            "query: colour is not a field here, expected one of step_us, window_steps, lateness_us, scores, decay, "
            "seed",
        ),
        ("?decay=0.5&decay=0.6", "'decay' is in the query twice, expected once"),
        ("?" + "a=1&" * 16, "the query has more than 16 parameters, expected at most as many"),
    ],
)
def test_options_that_do_not_fit_are_answered_422(service: Process, query: str, sentence: str) -> None:
    answer = post(service, b"", query=query)
    assert (answer.status_code, answer.json()) == (422, {"error": sentence})
    with pytest.raises(InvalidStatus) as refused, socket(service, query):
        pass
    assert (refused.value.response.status_code, json.loads(refused.value.response.body)) == (422, {"error": sentence})


def test_a_session_that_the_server_fails_is_closed_by_1011_and_the_logs_id(root: Path) -> None:
    program = (
        "from spikeserve.service.inference.sessions.session import Session\n"
        "from spikeserve.service.__main__ import main\n"
        "def fail(*_): raise RuntimeError('the secret path')\n"
        "Session.lines = fail\n"
        "import sys; main(sys.argv[1:])"
    )
    with running(root, program=("-c", program)) as service:
        with socket(service, additional_headers={"X-Request-ID": "x" * 128}) as connection:
            connection.send(make_records([0, 40_000], [0, 0]).tobytes())
            with pytest.raises(ConnectionClosedError) as closed:
                connection.recv()
        failed = service.wait_for("request_failed")
    said = "something went wrong here; the log has it as request " + "x" * 128
    assert closed.value.rcvd == Close(1011, said[:123])
    assert (failed["request_id"], "the secret path" in failed["exception"]) == ("x" * 128, True)


async def test_every_line_of_one_message_arrives_from_an_asgi_server_that_is_not_ours(root: Path) -> None:
    with create_server(("127.0.0.1", 0)) as listener:
        async with started(root) as client, asyncio.TaskGroup() as tasks:
            plain = uvicorn.Server(uvicorn.Config(client.app, lifespan="off", log_config=None))
            tasks.create_task(plain.serve([listener]))
            await asyncio.to_thread(check_one_message, f"http://127.0.0.1:{listener.getsockname()[1]}")
            plain.should_exit = True


def test_messages_that_come_at_once_are_answered_in_order_whatever_the_first_of_them_closes(service: Process) -> None:
    ends = [2000, 80_000, None, 90_000, 89_000, 92_000, None]  # windows are of 2 ms, and 16 of them may run at once
    told = [{"type": "state"} if end is None else {"type": "time", "t": end} for end in ends]
    frames = [Frame(Opcode.BINARY, bytes(8)), *(Frame(Opcode.TEXT, json.dumps(each).encode()) for each in told)]
    with socket(service) as connection:
        connection.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        say(connection, type="end")
        found = [(line["type"], line.get("window")) for line in lines(connection)]
    windows = [("window", number) for number in range(46)]
    assert found == [*windows[:40], ("state", 40), *windows[40:], ("state", 46), ("end", None)]


def test_hours_of_silence_are_answered_by_a_line_for_each_window_while_another_session_is(service: Process) -> None:
    with socket(service) as silent, socket(service) as other:
        silent.send(make_records([0, 1000], [0, 0]).tobytes())
        say(silent, type="time", t=10_000_000)
        other.send(make_records([0, 2000], [1, 1]).tobytes())
        assert json.loads(other.recv())["window"] == 0
        found = [json.loads(silent.recv()) for _ in range(5000)]
    assert [each["window"] for each in found] == list(range(5000))
    assert {(each["events"], *each["spike_counts"]) for each in found} == {(2, 1, 0), (0, 1, 0)}


def test_a_line_is_json_as_the_server_writes_it_everywhere(service: Process) -> None:
    for query in ("", "?scores=window", "?scores=decay&decay=0.3"):
        with socket(service, query) as connection:
            connection.send(make_records([0, 1000, 2500, 4000], [0, 0, 1, 0]).tobytes())
            for text in (connection.recv(), connection.recv()):
                assert to_json(json.loads(text)).decode() == text


def test_a_part_of_an_event_at_the_end_is_named(service: Process) -> None:
    *_, last = told(post(service, make_records([0, 1], [0, 1]).tobytes()[:11]))
    assert last["error"] == "the body ends with 3 bytes of its last event, expected 8 for each"


def test_other_types_and_encodings_are_415(service: Process) -> None:
    assert post(service, b"", "text/plain").status_code == 415
    url = f"{service.url}/models/pairs/stream"
    for encoding, status in {"gzip": 415, "deflate": 415, "br": 415, "Identity": 200, "": 200}.items():
        assert httpx.post(url, content=b"", headers={"content-encoding": encoding}).status_code == status


def test_a_silent_session_is_given_its_state(root: Path) -> None:
    with running(root, "--session-idle-seconds", "2") as service, socket(service) as connection:
        connection.send(make_records([0, 2000], [0, 0]).tobytes())
        _, state = lines(connection)
        assert state["reason"] == "nothing was sent for 2 seconds"
        assert connection.protocol.close_rcvd is not None
        assert connection.protocol.close_rcvd.code == 1001


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that two sessions fill, and which logs no error to its end."""
    root = published(tmp_path_factory, pairs=pairs())
    with running(root, "--engine", "reference", "--max-sessions", "2", "--max-client-share", "1") as process:
        yield process
        assert process.stop() == 0
        assert not [entry for entry in process.entries if entry.get("level") == "error"]


def test_one_session_too_many_is_503(bounded: Process) -> None:
    with socket(bounded), socket(bounded):
        answer = post(bounded, b"")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "2 sessions are open, expected fewer than max_sessions"}


def test_a_model_that_is_unloaded_and_a_server_that_drains_hand_every_state_back(tmp_path: Path) -> None:
    publish(tmp_path, pairs(), "pairs")
    with running(tmp_path, "--engine", "reference") as service:
        with socket(service) as connection:
            connection.send(make_records([0, 2000], [0, 0]).tobytes())
            connection.recv()
            httpx.post(f"{service.url}/v2/repository/models/pairs/unload").raise_for_status()
            (state,) = lines(connection)
        assert state["reason"] == "the model was unloaded"
        # Metrics of models that are gone would add up.
        assert 'model="pairs"' not in httpx.get(f"{service.url}/metrics").text
        httpx.post(f"{service.url}/v2/repository/models/pairs/load").raise_for_status()
        with socket(service) as one, socket(service) as two:
            for connection in (one, two):
                connection.send(make_records([0, 2000], [0, 0]).tobytes())
                connection.recv()
            service.process.terminate()
            for connection in (one, two):
                (state,) = lines(connection)
                assert (state["reason"], state["window"], state["t"]) == ("the server is shutting down", 1, 2000)
        assert service.ended() == 0


NUMBERS = {
    "open": 'spikeserve_sessions{model="pairs"}',
    "events": "spikeserve_session_events_total{",
    "windows": "spikeserve_session_windows_total{",
    "ended": 'spikeserve_sessions_ended_total{model="pairs",reason="client"}',
    "left": 'spikeserve_sessions_ended_total{model="pairs",reason="left"}',
    "requests": "spikeserve_model_requests_total{",
    "timed": "spikeserve_model_request_seconds_count{",
}


def test_sessions_are_counted_and_are_requests_whose_time_is_their_clients_own(bounded: Process) -> None:
    def numbers() -> dict[str, float]:
        text = httpx.get(f"{bounded.url}/metrics").text.splitlines()
        return {
            name: sum(float(line.rpartition(" ")[2]) for line in text if line.startswith(start))
            for name, start in NUMBERS.items()
        }

    def grown() -> dict[str, float]:
        return {name: value - before[name] for name, value in numbers().items() if value != before[name]}

    before = numbers()
    with socket(bounded) as connection:
        connection.send(make_records([0, 0, 2000], [0, 0, 0]).tobytes())
        connection.recv()
        assert grown()["open"] == 1
        say(connection, type="end")
        lines(connection)
    assert "open" not in grown()
    before = numbers()
    post(bounded, make_records([0, 0, 2000], [0, 0, 0]).tobytes())
    assert grown() == {"events": 3, "windows": 2, "ended": 1, "requests": 1}
    predict = f"{bounded.url}/models/pairs/predict"
    httpx.post(predict, json={"inputs": [{"t": [0], "unit": [0]}]}).raise_for_status()
    assert grown()["timed"] == 1
    before = numbers()
    with suppress(ConnectionClosed), socket(bounded) as connection:  # a client that vanishes leaves nothing
        connection.send(make_records([0, 2000], [0, 0]).tobytes())
        connection.recv()
        connection.socket.shutdown(SHUT_RDWR)
        connection.recv()
    while grown().get("left") != 1:
        pass
    assert "open" not in grown()


def test_two_sessions_whose_steps_are_not_as_long_run_at_once_and_each_by_its_own(tmp_path: Path) -> None:
    network = pairs()
    declared = network.spec.input.model_copy(update={"events": None})  # so that a stream says how long a step is
    publish(tmp_path, replace(network, spec=network.spec.model_copy(update={"input": declared})), "pairs")
    with running(tmp_path) as service, ExitStack() as stack:
        streams = [
            stack.enter_context(socket(service, f"?step_us={step_us}&window_steps=4")) for step_us in (1000, 500)
        ]
        for each in streams:
            each.send(make_records([0, 4000], [1, 1]).tobytes())
            assert json.loads(each.recv())["window"] == 0
        os.kill(service.process.pid, SIGSTOP)  # so that it reads both messages in one iteration
        for each in streams:
            each.send(make_records([8000, 8900, 12_000], [0, 0, 1]).tobytes())
        os.kill(service.process.pid, SIGCONT)
        for each in streams:
            say(each, type="end")
        fired = [sum(line.get("window_counts", [0])[0] for line in lines(each)) for each in streams]
    assert fired == [0, 1]  # 0.9 ms lie in one step of 1 ms, which has one spike, and in two of 0.5 ms
