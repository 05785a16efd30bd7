"""What a WebSocket's client can make the server hold, written out in frames that no library would send."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from spikeserve.service.inference.memory import MemoryBudget
from spikeserve.service.process.websockets import AHEAD_BYTES, websocket_class
from tests.bundles import publish
from tests.service.sessions.conftest import pairs
from tests.service.sockets import connect, read_all
from tests.serving import Process, running

TEXT, BINARY, CONTINUATION, PING = 1, 2, 0, 9
FINAL = 0x80
STREAM = "/models/pairs/stream"
HANDSHAKE = (
    f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, pairs(), "pairs")
    with running(root, "--engine", "reference", "--answer-seconds", "2") as process:
        yield process


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """Return a frame from a client, masked with zeros."""
    length = (
        bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    )
    return bytes([opcode | (FINAL if final else 0)]) + length + bytes(4) + payload


def opened(service: Process, path: str = STREAM) -> tuple[socket.socket, bytes]:
    """Open a WebSocket; return its connection and the head of the answer."""
    connection = connect(service)
    connection.sendall(HANDSHAKE.replace(STREAM, path).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return connection, head


def resident(service: Process) -> int:
    """Return the server's resident memory, in bytes."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_websocket_is_opened_where_there_is_a_stream_alone(service: Process) -> None:
    connection, head = opened(service)
    connection.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    elsewhere, head = opened(service, "/health/live")
    elsewhere.close()
    assert head.startswith(b"HTTP/1.1 200 ")  # as if `Upgrade` were not there


def test_many_empty_messages_are_taken_in_turns_with_other_clients(service: Process) -> None:
    connection, _ = opened(service)
    with connection:
        connection.sendall(frame(BINARY) * 200_000)
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        connection.sendall(frame(TEXT, b'{"type": "end"}'))
        assert b'"type":"end","windows":0' in read_all(connection)


def test_a_ping_behind_messages_that_wait_is_answered_while_one_message_closes_many_windows(service: Process) -> None:
    connection, _ = opened(service)
    with connection:
        silence = frame(BINARY, bytes(8)) + frame(TEXT, b'{"type": "time", "t": 6000000}')  # 3,000 windows of 2 ms
        connection.sendall(silence + frame(TEXT, b'{"type": "state"}') * 200 + frame(PING, b"here?"))
        connection.sendall(frame(TEXT, b'{"type": "end"}'))
        answer = read_all(connection)
    assert 0 <= answer.find(b"\x8a\x05here?") < answer.find(b'"window":1000,')
    assert answer.count(b'"type":"state"') == 200


@pytest.mark.anyio
async def test_the_servers_own_ping_ends_no_connection_whose_client_is_not_read_from() -> None:
    taking, timeouts = asyncio.Event(), asyncio.Queue[bool]()

    async def app(_: object, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await taking.wait()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    class Counting(websocket_class(60, MemoryBudget(2**30))):  # type: ignore[misc]
        def keepalive_timeout(self) -> None:
            super().keepalive_timeout()
            timeouts.put_nowait(self.close_sent)

    config = uvicorn.Config(app, lifespan="off", ws_ping_interval=0.05, ws_ping_timeout=0.05, log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(lambda: Counting(config, ServerState(), {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        messages = frame(BINARY, bytes(2**15)) * (2 + AHEAD_BYTES // 2**15)
        writer.write(HANDSHAKE.encode() + messages)
        for _ in range(3):  # the client answers no ping, but its answers could lie behind its messages
            assert not await timeouts.get()
        taking.set()
        while not await timeouts.get():
            pass
        assert struct.pack("!H", 1011) in await reader.read()
        writer.close()


def test_a_message_of_too_many_fragments_ends_the_connection(service: Process) -> None:
    connection, _ = opened(service)
    with connection:
        connection.sendall(frame(BINARY, final=False) + frame(CONTINUATION, final=False) * 300)
        assert struct.pack("!H", 1009) in read_all(connection)


def test_pings_whose_answers_nobody_reads_fill_no_memory(service: Process) -> None:
    before = resident(service)
    connection, _ = opened(service)
    with connection:
        connection.settimeout(10)
        pings = frame(PING, b"x" * 125) * 500
        sent = 0
        try:
            while sent < 64 * 2**20:
                sent += connection.send(pings)
        except OSError:
            pass  # it is not read from any more, and then closed
    assert sent < 64 * 2**20
    assert resident(service) - before < 16 * 2**20


def test_text_that_is_not_utf8_and_reserved_bits_end_the_connection(service: Process) -> None:
    for content in (frame(TEXT, b"\xff"), bytes([0xF2, 0x80, 0, 0, 0, 0]), bytes([0x82, 0x00])):
        connection, _ = opened(service)
        with connection:
            connection.sendall(content)
            assert read_all(connection)[:1] == b"\x88"  # a frame that closes
    assert httpx.get(f"{service.url}/health/live").status_code == 200


def test_what_is_sent_with_the_headers_is_read(service: Process) -> None:
    connection = connect(service)
    with connection:
        connection.sendall(
            b"GET /models/pairs/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            + frame(TEXT, b'{"type": "end"}')
        )
        assert b'"type":"end"' in read_all(connection)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (bytes([0xF1, 0x80]) + bytes(4), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(0xB), 1002),
        (b"\x81\x05hello", 1002),
    ],
)
def test_wrong_frames_sent_with_the_headers_end_the_connection_and_are_no_error_of_the_server(
    tmp_path: Path, content: bytes, code: int
) -> None:
    publish(tmp_path, pairs(), "pairs")
    with running(tmp_path, "--engine", "reference") as service:
        with connect(service) as connection:
            connection.sendall(HANDSHAKE.encode() + content)
            head, _, rest = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert (rest[0], struct.unpack("!H", rest[2:4])) == (FINAL | 8, (code,))
        assert service.stop() == 0
    assert [entry for entry in service.entries if entry["level"] == "error"] == []
