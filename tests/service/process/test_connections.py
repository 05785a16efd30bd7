"""Headers are limited in time and size, invalid HTTP gets a JSON error, and answers that nobody reads are dropped."""

import asyncio
import json
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from spikeserve.service.process.connections import MAX_HEADER_BYTES
from tests.bundles import published
from tests.networks import toy
from tests.service.process.test_pipelining import serve
from tests.service.sockets import connect, read_all, read_answer
from tests.serving import Process, running

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose clients have two seconds for their headers, and which no test here makes end."""
    root = published(tmp_path_factory, toy=toy())
    with running(root, "--engine", "reference", "--client-seconds", "2") as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
def connection(service: Process) -> Iterator[socket.socket]:
    with connect(service) as connected:
        yield connected


def refusal(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the error of what is answered up to the connection's end."""
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("before", "first"), [(b"", b""), (b"", b"GET / HTTP/1.1\r\nX-Slow: "), (REQUEST, REQUEST[:10])]
)
def test_headers_that_do_not_arrive_are_answered_408(connection: socket.socket, before: bytes, first: bytes) -> None:
    connection.sendall(before)
    assert not before or read_answer(connection).startswith(b"HTTP/1.1 200 ")
    connection.sendall(first)
    while first and not select.select([connection], [], [], 0.05)[0]:
        connection.sendall(b"x")
    assert refusal(connection) == (408, "the headers were incomplete after 2 seconds, expected them by then")


@pytest.mark.parametrize(
    ("more", "rest"), [(1, b""), (100, b"\r\n\r\n"), (100, b"\r\n\r\n".ljust(MAX_HEADER_BYTES, b"y"))]
)
def test_headers_of_too_many_bytes_are_answered_431(connection: socket.socket, more: int, rest: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\nX-Header: " % len(rest[4:])
    connection.sendall(head.ljust(MAX_HEADER_BYTES + more, b"x") + rest)
    status, error = refusal(connection)
    assert status == 431
    assert re.fullmatch(rf"the headers have \d+ bytes or more, expected at most {MAX_HEADER_BYTES}", error)


def test_a_long_body_does_not_count_as_headers(connection: socket.socket) -> None:
    body = b'{"inputs": [[0, 1]]}'.ljust(2 * MAX_HEADER_BYTES)
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_refused_request_has_an_id_a_log_line_and_a_metric(repository: Path) -> None:
    with running(repository, "--engine", "reference") as service:
        for start in (b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\nX: \0\r\n", b"\x16\x03\x01 not HTTP\r\n"):
            with connect(service) as connection:
                connection.sendall(start + b"\r\n")
                head = connection.recv(2**16).partition(b"\r\n\r\n")[0].lower()
                assert head.startswith(b"http/1.1 400 ")
                assert (b"x-request-id: mine" in head) == (b"mine" in start)
                assert b"x-request-id: " in head
        counted = httpx.get(service.url + "/metrics").text
        assert service.stop() == 0
    assert 'spikeserve_connections_refused_total{status="400"} 2.0' in counted
    refused = [entry for entry in service.entries if entry["event"] == "connection_refused"]
    assert [entry["status"] for entry in refused] == [400, 400]
    assert refused[0]["request_id"] == "mine"


VALID = json.dumps({"inputs": [[0, 1]]}).encode()


def predict(*headers: bytes, body: bytes = VALID) -> bytes:
    return b"\r\n".join((b"POST /predict HTTP/1.1", b"Host: test", *headers, b"", body))


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n" % (len(body), body)


def test_trailers_are_not_headers(connection: socket.socket) -> None:
    trailers = b"X-Request-ID: trailing\r\nX-Request-Timeout-Ms: 0\r\n\r\n"
    connection.sendall(predict(b"Transfer-Encoding: chunked", b"X-Request-ID: own", body=chunked(VALID) + trailers))
    answer = read_answer(connection).lower()
    assert answer.startswith(b"http/1.1 200 ")
    assert b"x-request-id: own\r\n" in answer


SMUGGLED = b"GET /models HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"nothing/1"])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("body", "status"), [(VALID, b"200"), (SMUGGLED, b"400")])
def test_an_upgrade_is_answered_over_http_1_1_and_its_body_is_not_the_next_request(
    connection: socket.socket, protocol: bytes, at_once: bool, body: bytes, status: bytes
) -> None:
    head = predict(b"Upgrade: " + protocol, b"Connection: Upgrade", b"Content-Length: %d" % len(body), body=b"")
    for part in [head + body + REQUEST] if at_once else [head, body, REQUEST]:
        connection.sendall(part)
    received = b""
    while b'{"status":"live"}' not in received:
        received += connection.recv(2**16)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [status, b"200"]
    assert (b"spike_counts" in received) == (body == VALID)


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"GET / HTTP/1.1", "the request has 0 Host headers, expected one"),
        (b"GET / HTTP/1.1\r\nHost: one\r\nHost: other", "the request has 2 Host headers, expected one"),
        (b"GET / HTTP/2.0\r\nHost: test", "the HTTP version is 2.0, expected 1.1 or 1.0"),
        (b"CONNECT test:80 HTTP/1.1\r\nHost: test", "CONNECT is not supported"),
        (
            b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked",
            "Transfer-Encoding is 'gzip, chunked', expected 'chunked' or none",
        ),
    ],
)
def test_headers_that_a_proxy_may_read_otherwise_are_400(connection: socket.socket, head: bytes, error: str) -> None:
    connection.sendall(head + b"\r\n\r\n")
    assert refusal(connection) == (400, error)


@pytest.mark.parametrize(
    "invalid", [b"no request\r\n\r\n", predict(b"Transfer-Encoding: chunked", body=b"") + b"not a length\r\n"]
)
def test_a_complete_request_is_answered_before_an_invalid_one_ends_the_connection(
    connection: socket.socket, invalid: bytes
) -> None:
    connection.sendall(predict(b"Content-Length: %d" % len(VALID)) + invalid + REQUEST)
    received = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"400"]
    assert b"spike_counts" in received


ENDLESS = {  # how each begins, and what is sent without end
    "headers": (b"GET / HTTP/1.1\r\n", b"X-Header: %s\r\n" % (b"x" * 1000)),
    "trailers": (predict(b"Transfer-Encoding: chunked", body=chunked(VALID)), b"X: y\r\n" * 100),
    "one trailer": (predict(b"Transfer-Encoding: chunked", body=chunked(VALID)) + b"X", b"y" * 1000),
    "an extension": (predict(b"Transfer-Encoding: chunked", body=b"1\r\n{\r\n5;a"), b"y" * 1000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_headers_without_end_are_cut_off(connection: socket.socket, kind: str) -> None:
    (begin, more), sent = ENDLESS[kind], 0
    with suppress(OSError):  # the server closes the connection
        connection.sendall(begin)
        while sent < 100 * MAX_HEADER_BYTES and not select.select([connection], [], [], 0)[0]:
            connection.sendall(more)
            sent += len(more)
    assert sent < 100 * MAX_HEADER_BYTES


TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"  # how it begins


# The parts that a connection gives to the parser rely on how headers end.
@pytest.mark.parametrize("end", [TLS, b"\n\n", b"\n\r\n", b"\r\n\n", b"\r\r\n", b"\r\n\r", b"\r\r"])
def test_invalid_http_is_answered_400(connection: socket.socket, end: bytes) -> None:
    connection.sendall(end if end == TLS else REQUEST[:-4] + end + REQUEST)
    assert refusal(connection) == (400, "the request is not valid HTTP/1.1")


# Of each sample 2 x 1000 spikes and membranes come back: more megabytes than the system keeps for a connection.
LONG_ANSWER = json.dumps({"inputs": [[0.3, 0.7]] * 80, "time_steps": 1000, "return": ["raster", "membrane"]}).encode()


def unread(port: int, sends: bytes) -> socket.socket:
    """Return a connection that sends and does not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sends)
    return connection


def test_an_answer_that_nobody_reads_is_dropped_and_its_bytes_are_given_back(repository: Path) -> None:
    # The answer may take 9 MB of a budget of 10: there is room for another one once the first was dropped.
    # A second is enough for a busy server to read the body, which has to come in that time too.
    flags = ("--client-seconds", "1", "--max-body-bytes", "100000", "--max-pending-bytes", "10000000")
    with running(repository, "--engine", "event", *flags) as service:
        asked = predict(b"Content-Length: %d" % len(LONG_ANSWER), body=LONG_ANSWER)
        for _ in range(2):
            with unread(urlsplit(service.url).port or 0, asked):
                service.wait_for("request")
                dropped = service.wait_for("answer_dropped")
            assert dropped["why"] == "not read in time"
            # Of an answer in pieces, one waits for the client, and a little more.
            assert 2**15 < dropped["bytes"] < 2**18
        assert service.stop() == 0


async def test_an_answer_in_one_part_that_exceeds_the_budget_is_dropped() -> None:
    sent = asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8388608")]})
        await send({"type": "http.response.body", "body": b"x" * 2**23})
        sent.set()

    async with serve(app, budget_bytes=2**20) as served:
        with await asyncio.to_thread(unread, served.address[1], REQUEST) as connection:
            await sent.wait()
            assert len(await asyncio.to_thread(read_all, connection)) < 2**23
        assert served.budget.reserved == 0


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
SPLIT = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]}
LENGTH = "the answer's body has another length than its Content-Length"


@pytest.mark.parametrize(
    ("messages", "error", "received"),
    [
        ([], None, b""),
        ([START], None, b""),
        ([SPLIT], "a header of the answer has more than one line", b""),
        ([START, {"body": b"123456", "more_body": True}], LENGTH, b""),
        ([START, {"body": b"123", "more_body": True}, {"body": b""}], LENGTH, b"123"),
    ],
    ids=["none", "no body", "a header of two lines", "too long", "too short"],
)
async def test_an_application_that_answers_wrongly_ends_its_connection(
    messages: list[Message], error: str | None, received: bytes
) -> None:
    raised: list[str] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        try:
            for message in messages:
                await send(message)
        except RuntimeError as failure:
            raised.append(str(failure))
            raise

    async with serve(app) as served:
        with await asyncio.to_thread(unread, served.address[1], REQUEST) as connection:
            answer = await asyncio.to_thread(read_all, connection)
    assert answer.partition(b"\r\n\r\n")[2] == received
    assert raised == ([error] if error else [])
