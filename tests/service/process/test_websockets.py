"""What a WebSocket's client can make the server hold, written out in frames that no library would send.

What a WebSocket's client sends is divided where its frames end, however it was cut, and few of them at once.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from sys import getsizeof
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.process.turns import TimedSelector
from spikeserve.service.process.websockets import AHEAD_BYTES, MAX_FRAMES, WebSocketConnection, websocket_class
from tests.bundles import published
from tests.service.asgi import traced
from tests.service.processes import until
from tests.service.sessions.conftest import pairs
from tests.service.sockets import connect, read_all
from tests.serving import Process, running

TEXT, BINARY, CONTINUATION, PING, PONG = 1, 2, 0, 9, 10
STREAM = "/models/pairs/stream"
HANDSHAKE = (
    f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root = published(tmp_path_factory, pairs=pairs())
    with running(root, "--engine", "reference", "--client-seconds", "2") as process:
        yield process
        assert process.stop() == 0
    assert [entry for entry in process.entries if entry["level"] == "error"] == []


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """Return a frame from a client."""
    return Frame(Opcode(opcode), payload, fin=final).serialize(mask=True)


def opened(service: Process, path: str = STREAM, lines: str = "") -> tuple[socket.socket, bytes]:
    """Open a WebSocket, with more lines in the head; return its connection and the head of the answer."""
    connection = connect(service)
    connection.sendall(HANDSHAKE.replace(STREAM, path).replace("\r\n\r\n", f"\r\n{lines}\r\n").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return connection, head


def resident(service: Process) -> int:
    """Return the server's resident memory, in bytes."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_websocket_is_opened_where_there_is_a_stream_alone_and_compresses_no_message(service: Process) -> None:
    # A message of a few bytes could become one of megabytes.
    connection, head = opened(service, lines="Sec-WebSocket-Extensions: permessage-deflate\r\n")
    connection.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-extensions" not in head.lower()
    elsewhere, head = opened(service, "/health/live")
    elsewhere.close()
    assert head.startswith(b"HTTP/1.1 200 ")  # as if `Upgrade` were not there


@pytest.mark.parametrize(
    ("more", "status", "sentence"),
    [
        ("Content-Length: 5\r\n", 400, "the request to open a WebSocket has a body, expected none"),
        ("Transfer-Encoding: chunked\r\n", 400, "the request to open a WebSocket has a body, expected none"),
        (f"X: {'x' * 9000}\r\n", 431, "a line of the request to open a WebSocket has 9003 bytes, expected at most 819"),
        ("X: y\r\n" * 130, 431, "the request to open a WebSocket has 135 headers, expected at most 128"),
        ("Sec-WebSocket-Version: 8\r\n", 400, "Sec-WebSocket-Version is '13, 8', expected '13'"),
        ("Sec-WebSocket-Key: A\r\n", 400, "Sec-WebSocket-Key is 'AAAAAAAAAAAAAAAAAAAAAA==, A', expected base64 of 16 "),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"hello", frame(TEXT, b"{}")], ids=["nothing", "text", "frame"])
def test_a_handshake_that_is_refused_is_answered_and_its_connection_ends(
    service: Process, more: str, status: int, sentence: str, behind: bytes
) -> None:
    with connect(service) as connection:
        connection.settimeout(20)
        connection.sendall(HANDSHAKE.replace("\r\n\r\n", f"\r\n{more}\r\n").encode() + behind)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert f'{{"error": "{sentence}'.encode() in answer


def test_a_ping_behind_messages_that_wait_is_answered_while_one_message_closes_many_windows(service: Process) -> None:
    connection, _ = opened(service)
    with connection:
        silence = frame(BINARY, bytes(8)) + frame(TEXT, b'{"type": "time", "t": 2000000}')  # 1,000 windows of 2 ms
        connection.sendall(silence + frame(TEXT, b'{"type": "state"}') * 200 + frame(PING, b"here?"))
        connection.sendall(frame(TEXT, b'{"type": "end"}'))
        answer = b""
        while b'"type":"end"' not in answer:  # after which its server waits for the client to close
            answer += connection.recv(2**16)
    assert 0 <= answer.find(b"\x8a\x05here?") < answer.find(b'"window":500,')
    assert answer.count(b'"type":"state"') == 200


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


def test_wrong_frames_sent_with_the_headers_end_the_connection_and_are_no_error(service: Process) -> None:
    for content, code in (
        (bytes([0xF1, 0x80]) + bytes(4), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (b"\x8b\x80" + bytes(4), 1002),
        (b"\x81\x05hello", 1002),
        (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002),
        (frame(BINARY, bytes(8)) + b"\x81\x05hello", 1002),
    ):
        with connect(service) as connection:
            connection.sendall(HANDSHAKE.encode() + content)
            head, _, rest = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert (rest[0], struct.unpack("!H", rest[2:4])) == (0x88, (code,))


class Client:
    """One WebSocket in the test's event loop, whose application takes messages only when the test says so."""

    def __init__(self, budget: MemoryBudget, ping_seconds: float | None = None) -> None:
        self.taking = asyncio.Semaphore(0)
        self.taken: list[Any] = []
        self.first = b""  # what came with the headers, behind them
        self.selector = TimedSelector()  # of no event loop, so that no iteration is long
        self.connections: list[WebSocketConnection] = []
        self.made = websocket_class(60, budget, self.selector)
        pings: Any = {"ws_ping_interval": ping_seconds, "ws_ping_timeout": ping_seconds}
        self.config = uvicorn.Config(self.answer, interface="asgi3", lifespan="off", log_config=None, **pings)
        self.config.load()

    async def answer(self, _: object, receive: Any, send: Any) -> None:
        """Accept, and take a message for each permit."""
        await receive()
        self.connections[-1].data_received(self.first)  # the server takes it apart from the headers
        await send({"type": "websocket.accept"})
        message = None
        while message is None or message["type"] == "websocket.receive":
            await self.taking.acquire()
            message = await receive()
            self.taken.append(message)

    def connect(self) -> WebSocketConnection:
        """Return a connection of the server."""
        self.connections.append(self.made(self.config, ServerState(), {}))
        return self.connections[-1]

    @asynccontextmanager
    async def opened(self, first: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a WebSocket, and send these bytes with the headers."""
        async with await asyncio.get_running_loop().create_server(self.connect, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            self.first = first
            writer.write(HANDSHAKE.encode())
            await reader.readuntil(b"\r\n\r\n")
            yield reader, writer
            writer.close()


async def test_the_servers_own_ping_ends_no_connection_whose_client_is_not_read_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, timeouts = Client(MemoryBudget(2**30), ping_seconds=0.05), asyncio.Queue[bool]()
    usual = client.made.keepalive_timeout

    def counting(connection: WebSocketConnection) -> None:
        usual(connection)
        timeouts.put_nowait(connection.close_sent)

    monkeypatch.setattr(client.made, "keepalive_timeout", counting)
    messages = 2 + AHEAD_BYTES // 2**15
    async with client.opened(frame(BINARY, bytes(2**15)) * messages) as (reader, _):
        for _ in range(3):  # the client answers no ping, but its answers could lie behind its messages
            assert not await timeouts.get()
        for _ in range(messages + 1):
            client.taking.release()
        while not await timeouts.get():
            pass
        assert struct.pack("!H", 1011) in await reader.read()


KINDS = [frame(PING), frame(PONG), frame(BINARY, final=False) + frame(CONTINUATION)]


@pytest.mark.parametrize("kind", KINDS, ids=["pings", "pongs", "fragments"])
async def test_of_thousands_of_frames_that_come_at_once_few_are_parsed_in_each_iteration(kind: bytes) -> None:
    client, iterations, frames = Client(MemoryBudget(2**30)), 0, 6000

    def count() -> None:
        nonlocal iterations
        iterations += 1
        asyncio.get_running_loop().call_soon(count)

    async with client.opened() as (_, writer):
        (connection,) = client.connections
        for _ in range(10_000):
            client.taking.release()
        connection.data_received(kind * (frames // (len(kind) // 6)))
        count()
        await until(lambda: not connection.backlog)
        assert iterations >= 0.95 * frames / MAX_FRAMES
        writer.close()
        await until(lambda: connection.reserved.size == 0)


async def test_a_message_counts_with_all_that_it_takes_until_the_application_asks_for_the_next() -> None:
    budget = MemoryBudget(2**30)
    client, text = Client(budget), "x" * 2**20 + "\N{SNAKE}"  # of four bytes a character, as one of them takes more
    async with client.opened() as (_, writer):
        content = frame(TEXT, text.encode())
        with traced() as taken:
            writer.write(content[:-1])
            await until(lambda: budget.reserved == len(content) - 1)
            writer.write(content[-1:])
            await until(lambda: budget.reserved == getsizeof(text) > 4 * 2**20)
            assert taken() < budget.reserved + 2**19  # the bytes of which the text was made take 2**20
        client.taking.release()
        await until(lambda: len(client.taken) == 1)
        assert budget.reserved == getsizeof(text)
        client.taking.release()
        await until(lambda: budget.reserved == 0)
        writer.write(content[: len(content) // 2])
        await until(lambda: budget.reserved == len(content) // 2)
    await until(lambda: budget.reserved == 0)


async def test_messages_that_nobody_takes_are_given_back_once_the_application_has_ended() -> None:
    budget = MemoryBudget(2**30)
    client = Client(budget)
    async with client.opened() as (_, writer):
        writer.write(frame(TEXT, b"x" * 2**16) + frame(TEXT, b"x" * 2**17))
        await until(lambda: budget.reserved > 2**16 + 2**17)
        writer.close()
        await until(lambda: client.connections[0].transport.is_closing())
        assert budget.reserved > 2**16 + 2**17  # the application may take them yet
        for _ in range(9):
            client.taking.release()
        await until(lambda: budget.reserved == 0)


FRAGMENTS = st.lists(st.sampled_from(["", "\xe9", "x" * 126, "y" * 2**16]), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), FRAGMENTS), max_size=9), st.lists(st.integers(0, 2**18)))
def test_messages_in_any_fragments_and_pieces_are_taken_as_they_were_sent(sent: list[Any], cuts: list[int]) -> None:
    whole = b""
    for opcode, texts in sent:
        for place, text in enumerate(texts):
            code = CONTINUATION if place else opcode
            whole += frame(code, text.encode(), final=place == len(texts) - 1) + frame(PING)

    async def taken() -> list[Any]:
        client = Client(MemoryBudget(2**30))
        async with client.opened():
            for begin, end in pairwise(sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})):
                client.connections[0].data_received(whole[begin:end])
            for _ in sent:
                client.taking.release()
            await until(lambda: len(client.taken) == len(sent))
        return [message.get("text", message.get("bytes")) for message in client.taken]

    assert asyncio.run(taken()) == [("".join(texts).encode(), "".join(texts))[opcode == TEXT] for opcode, texts in sent]
