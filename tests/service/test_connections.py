"""Headers are bounded in time and size, and what is no HTTP is told so in the form that every error has."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.connections import MOST_BYTES
from tests.service.conftest import Process, running

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def service(repository: Path) -> Iterator[Process]:
    """A service whose clients have half a second for their headers."""
    with running(repository, "--header-seconds", "0.5") as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
def connection(service: Process) -> Iterator[socket.socket]:
    place = urlsplit(service.url)
    with socket.create_connection((place.hostname, place.port or 0), timeout=60) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connected


def read_all(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the error of what is answered up to the connection's end."""
    received = b""
    try:
        while part := connection.recv(2**16):
            received += part
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


def read_answer(connection: socket.socket) -> bytes:
    received = b""
    while b"}" not in received:
        received += connection.recv(2**16)
    return received


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nX-Slow: "])
def test_headers_that_do_not_arrive_are_answered_408(connection: socket.socket, first: bytes) -> None:
    connection.sendall(first)
    while first and not select.select([connection], [], [], 0.05)[0]:
        connection.sendall(b"x")
    assert read_all(connection) == (408, "the headers had not arrived after 0.5 seconds, expected them all")


def test_a_second_request_has_no_more_time_than_the_first(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
    connection.sendall(REQUEST[:10])
    while not select.select([connection], [], [], 0.05)[0]:
        connection.sendall(b"x")
    assert read_all(connection)[0] == 408


def test_headers_without_end_are_cut_off(connection: socket.socket) -> None:
    sent = 0
    connection.sendall(b"GET / HTTP/1.1\r\n")
    try:
        while sent < 100 * MOST_BYTES and not select.select([connection], [], [], 0)[0]:
            connection.sendall(b"X-Header: %s\r\n" % (b"x" * 1000))
            sent += 1000
    except OSError:
        pass  # the server has closed the connection
    assert sent < 100 * MOST_BYTES


def test_a_few_bytes_too_many_are_answered_431(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nX-Header: ".ljust(MOST_BYTES + 1, b"x"))
    status, error = read_all(connection)
    assert status == 431
    assert error == f"the headers have {MOST_BYTES + 1} bytes or more, expected at most {MOST_BYTES}"


@pytest.mark.parametrize("body", [b"", b"y" * MOST_BYTES])
def test_headers_that_arrive_whole_have_no_more_room(connection: socket.socket, body: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\nX-Header: " % len(body)
    connection.sendall(head.ljust(MOST_BYTES + 100, b"x") + b"\r\n\r\n" + body)
    status, error = read_all(connection)
    assert status == 431
    assert error.endswith(f"expected at most {MOST_BYTES}")


def test_a_long_body_takes_no_room_from_the_headers(connection: socket.socket) -> None:
    body = b'{"inputs": [[0, 1]]}'.ljust(2 * MOST_BYTES)
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_what_is_refused_before_it_is_a_request_has_an_id_a_line_in_the_log_and_is_counted(repository: Path) -> None:
    with running(repository) as service:
        place = urlsplit(service.url)
        for start in (b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\nX: \0\r\n", b"\x16\x03\x01 not HTTP\r\n"):
            with socket.create_connection((place.hostname, place.port or 0), timeout=60) as connection:
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


def test_what_is_not_http_is_answered_400(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")  # how TLS begins
    assert read_all(connection) == (400, "this is not HTTP as it should be: Invalid HTTP request received.")


def test_requests_that_are_whole_are_answered_one_after_the_other(connection: socket.socket) -> None:
    for _ in range(3):
        connection.sendall(REQUEST)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
    connection.sendall(REQUEST * 2)  # at once
    received = b""
    while received.count(b'{"status":"live"}') < 2:
        received += connection.recv(2**16)
