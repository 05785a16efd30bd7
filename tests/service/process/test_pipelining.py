"""Requests that are sent ahead of their answers are answered in order, and until then cost no more than their bytes.

The backlog gives the parser parts in which at most one request ends.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import accumulate, pairwise
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.process.backlog import MAX_PART_BYTES, Backlog
from spikeserve.service.process.connections import MAX_BACKLOG_BYTES, Connection, ConnectionLimits, connection_class
from spikeserve.service.process.turns import TimedSelector
from tests.service.asgi import until

READ_BYTES = 2**18  # the most that asyncio reads at once
LAST = b"/last \n\r\n0\r\n\r\n"  # the end of the answer to a request for /last


class App:
    """Answers every request with its path and body, or a long answer; a request for /wait first waits for `go`."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.begun: list[str] = []
        self.ended = 0
        self.iterations: list[int] = []  # of the event loop, in which each request began
        self.iteration = 0
        self.waiting, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append(scope["path"])
        self.iterations.append(self.iteration)
        if scope["path"] == "/wait":
            self.waiting.set()
            await self.go.wait()
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = self.answer or scope["path"].encode() + b" " + body + b"\n"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})
        self.ended += 1

    def count_iterations(self) -> None:
        """Count the iterations of the event loop from now on."""
        self.iteration += 1
        asyncio.get_running_loop().call_soon(self.count_iterations)


class Served:
    """A server of an application, its budget, and the statuses of the requests that it refused."""

    def __init__(self, app: ASGIApp, budget_bytes: int, client_seconds: float) -> None:
        self.budget = MemoryBudget(budget_bytes)
        self.refused: list[int] = []
        self.selector = TimedSelector()  # of no event loop, so that a test says what it tells
        limits = ConnectionLimits(60, client_seconds, self.budget, self.refused.append)
        config = uvicorn.Config(
            app, http=connection_class(limits, self.selector), lifespan="off", ws="none", log_config=None
        )
        self.server = uvicorn.Server(config)
        self.address: tuple[str, int] = ("", 0)

    @property
    def connection(self) -> Connection:
        """The only connection."""
        (connection,) = self.server.server_state.connections
        assert isinstance(connection, Connection)
        return connection

    def connect(self) -> socket.socket:
        """Return a client's connection, whose receive buffer is small."""
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.connect(self.address)
        connected.setblocking(False)
        return connected


@asynccontextmanager
async def serve(app: ASGIApp, budget_bytes: int = 2**30, client_seconds: float = 60) -> AsyncIterator[Served]:
    served = Served(app, budget_bytes, client_seconds)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served.address = listener.getsockname()
        serving = asyncio.create_task(served.server.serve([listener]))
        try:
            async with asyncio.timeout(60):
                yield served
        finally:
            served.server.should_exit = True
            served.server.force_exit = True
            await serving


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[App, Served, socket.socket]]:
    app = App()
    async with serve(app) as served:
        with served.connect() as client:
            yield app, served, client


async def some_iterations() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def exchange(connected: socket.socket, sent: list[bytes], last: bytes) -> bytes:
    """Send the pieces, and return what is received up to `last`."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        for piece in sent:
            await loop.sock_sendall(connected, piece)

    sending = asyncio.create_task(send())
    received = b""
    while not received.endswith(last):
        part = await loop.sock_recv(connected, 2**20)
        assert part, received[-1000:]
        received += part
    await sending
    return received


def get(path: str, *headers: bytes) -> bytes:
    return b"\r\n".join((b"GET %s HTTP/1.1" % path.encode(), b"Host: test", *headers, b"\r\n"))


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    return get(path, b"Content-Length: %d" % len(body), *headers) + body


def post_in_chunks(path: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    framed = b"".join(b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(path, b"Transfer-Encoding: chunked") + framed + b"0\r\n" + trailers + b"\r\n"


UPGRADE = (b"Connection: upgrade", b"Upgrade: h2c")
# Requests of every form, with bodies that look like the ends of headers, of chunks and of bodies, and their answers.
FORMS = [
    (get("/get"), b"/get \n"),
    (post("/post", b"one"), b"/post one\n"),
    (post("/lines", b"\r\n\r\n0\r\n\r\n"), b"/lines \r\n\r\n0\r\n\r\n\n"),
    (post("/none", b""), b"/none \n"),
    (b"\r\n" + get("/behind-a-line"), b"/behind-a-line \n"),
    (post_in_chunks("/chunks", b"one", b"two"), b"/chunks onetwo\n"),
    (post_in_chunks("/trailers", b"one", trailers=b"X: y\r\n"), b"/trailers one\n"),
    (post_in_chunks("/lines", b"\r\n", b"\r\n\r\n", b"\r", b"0\r\n\r\n"), b"/lines \r\n\r\n\r\n\r0\r\n\r\n\n"),
    (post_in_chunks("/none"), b"/none \n"),
    (get("/upgrade", *UPGRADE), b"/upgrade \n"),
    (post("/upgrade", b"one\r\n\r\n", *UPGRADE), b"/upgrade one\r\n\r\n\n"),
]


@pytest.mark.parametrize("size", [1, 3, 7, 4099, 2**20])
async def test_five_hundred_requests_at_once_are_answered_in_order_however_they_are_split(size: int) -> None:
    count = 500 if size > 1000 else 44
    requests = [FORMS[index % len(FORMS)] for index in range(count)]
    async with connected() as (_, served, client):
        sent = b"".join(request for request, _ in requests) + get("/last")
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        received = await exchange(client, pieces, LAST)
    bodies = [answer.split(b"\r\n\r\n", 1)[1] for answer in received.split(b"HTTP/1.1 200 OK")[1:]]
    expected = [b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer), answer) for _, answer in [*requests, (b"", b"/last \n")]]
    assert bodies == expected
    assert served.refused == []


async def test_what_is_sent_ahead_is_not_parsed_before_the_answer() -> None:
    async with connected() as (app, served, client):
        ahead = get("/") * 500
        await asyncio.get_running_loop().sock_sendall(client, get("/wait") + ahead)
        await until(lambda: len(served.server.server_state.connections) == 1)
        await until(lambda: len(served.connection.backlog) == len(ahead))
        await app.waiting.wait()
        await some_iterations()
        assert app.begun == ["/wait"]
        assert bytes(served.connection.backlog.data[served.connection.backlog.start :]) == ahead
        app.go.set()
        await until(lambda: app.ended == 501)


async def test_reading_pauses_at_a_long_backlog_which_counts_in_the_memory_budget() -> None:
    async with connected() as (app, served, client):
        ahead = get("/") * 50_000  # 1.7 MB
        sending = asyncio.create_task(exchange(client, [get("/wait") + ahead + get("/last")], LAST))
        await app.waiting.wait()
        await until(lambda: not served.connection.transport.is_reading())
        await some_iterations()
        held = len(served.connection.backlog.data)
        assert MAX_BACKLOG_BYTES < held <= MAX_BACKLOG_BYTES + READ_BYTES
        assert served.budget.reserved == held
        sending.cancel()
        client.close()
        app.go.set()
        await until(lambda: not served.server.server_state.connections)
        assert served.budget.reserved == 0


async def test_no_more_is_read_behind_a_long_backlog_once_its_application_has_taken_the_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            await until(lambda: len(served.connection.backlog) > MAX_BACKLOG_BYTES)
            before = len(served.connection.backlog)
            await receive()
            await some_iterations()
            assert len(served.connection.backlog) == before
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": scope["path"][1:2].encode() or b"x"})

    async with serve(app) as served:
        with served.connect() as client:
            sent = post("/wait", b"one") + get("/") * 12_000 + get("/last")  # 420 kB
            received = await exchange(client, [sent], b"\r\n\r\nl")
            assert received.count(b"HTTP/1.1 200 ") == 12_002
            assert served.budget.reserved == 0


async def test_a_backlog_for_which_the_budget_has_no_room_closes_the_connection_after_the_answer() -> None:
    app = App()
    async with serve(app, budget_bytes=MAX_BACKLOG_BYTES) as served:
        with served.connect() as client:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, get("/wait") + get("/") * 3000)
            await until(lambda: served.refused == [503])
            app.go.set()
            await until(lambda: not served.server.server_state.connections)
    assert app.begun == ["/wait"]
    assert served.budget.reserved == 0


async def test_no_request_begins_while_the_client_does_not_read() -> None:
    app = App(answer=bytes(2**20))
    async with serve(app) as served:
        with served.connect() as client:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, get("/") * 40)
            await until(lambda: bool(served.server.server_state.connections))
            await until(lambda: not served.connection.writable.is_set())
            await some_iterations()
            assert len(app.begun) == app.ended < 40
            while app.ended < 40:
                await loop.sock_recv(client, 2**20)


async def test_of_all_requests_sent_ahead_one_begins_in_each_iteration_of_the_event_loop() -> None:
    app = App()
    async with serve(app) as served:
        clients = [served.connect() for _ in range(20)]
        loop = asyncio.get_running_loop()
        for client in clients:
            await loop.sock_sendall(client, get("/wait") + get("/") * 3)
        await until(lambda: len(app.begun) == 20)
        app.count_iterations()
        app.go.set()
        await until(lambda: app.ended == 80)
        ahead = app.iterations[20:]
        assert len(set(ahead)) == len(ahead) == 60
        for client in clients:
            client.close()


@pytest.mark.parametrize("is_late", [True, False], ids=["come", "begin"])
async def test_first_requests_that_come_or_begin_late_in_a_long_iteration_take_turns(is_late: bool) -> None:
    app = App()
    async with serve(app) as served:
        clients = [served.connect() for _ in range(20)]
        connections = served.server.server_state.connections
        await until(lambda: len(connections) == 20)
        selector = served.selector

        def begin_iteration(spent: float = 0.0) -> None:
            selector.spent = spent  # every iteration goes on for long, and so none gives more turns than one
            asyncio.get_running_loop().call_soon(begin_iteration, spent + 0.01)

        if is_late:
            begin_iteration()
        for connection in connections:
            connection.data_received(get("/"))
        if not is_late:
            begin_iteration()
        app.count_iterations()
        await until(lambda: app.ended == 20)
        assert len(set(app.iterations)) == 20
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("chunks", "iterations"),
    # 64 parts in each turn; or 512 chunks, and the rest of a part.
    [([b"\r\n\r\n" * 5000], 5000 // 64), ([b"x"] * 20_000, 10)],
    ids=["empty lines", "tiny chunks"],
)
async def test_a_body_of_tiny_chunks_lets_the_event_loop_run_on(chunks: list[bytes], iterations: int) -> None:
    async with connected() as (app, _, client):
        app.count_iterations()
        received = await exchange(client, [post_in_chunks("/chunks", *chunks) + get("/last")], LAST)
    assert b"".join(chunks) in received
    assert app.iterations[1] - app.iterations[0] >= iterations


@pytest.mark.parametrize(("pieces", "is_read"), [([2**20] * 64, False), ([2**22], True)], ids=["slowly", "in time"])
async def test_an_answer_has_its_time_as_a_whole_and_none_once_it_was_read(pieces: list[int], is_read: bool) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for left in range(len(pieces))[::-1]:
            await send({"type": "http.response.body", "body": bytes(pieces[left]), "more_body": left > 0})

    loop, part, last = asyncio.get_running_loop(), b"first", b"\r\n0\r\n\r\n"
    async with serve(app, client_seconds=60 if is_read else 0.5) as served:
        with served.connect() as client:
            await loop.sock_sendall(client, get("/"))
            with suppress(ConnectionResetError):
                while part and not part.endswith(last):
                    part = await loop.sock_recv(client, 2**20 if is_read else 2**10)
            assert part.endswith(last) == is_read
            if is_read:
                await until(lambda: served.connection.late == served.connection._close_idle)


async def test_a_client_that_leaves_is_noticed_although_it_sent_its_next_request() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with serve(app) as served:
        client = served.connect()
        await asyncio.get_running_loop().sock_sendall(client, get("/") * 3)
        await begun.wait()
        client.close()
        await left.wait()


REQUESTS = [
    get("/"),
    post_in_chunks("/", b"\r\n\r\n\r\n", b"\r", trailers=b"X: y\r\n"),
    *(b"x" * before + b"\r\n\r\n" for before in range(MAX_PART_BYTES - 5, MAX_PART_BYTES + 2)),
]


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), st.data())
def test_a_part_is_short_and_no_request_ends_within_it_wherever_bytes_are_cut(requests: list[bytes], data: Any) -> None:
    whole, backlog, parts = b"".join(requests), Backlog(MemoryBudget(2**20)), list[bytes]()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    for start, stop in pairwise([0, *cuts, len(whole)]):
        backlog.add(whole[start:stop])
        parts += iter(lambda: bytes(backlog.take(0)), b"")
    assert b"".join(parts) == whole
    assert max(map(len, parts)) <= MAX_PART_BYTES
    assert {*accumulate(map(len, requests))} <= {*accumulate(map(len, parts))}
    backlog.add(whole)
    first = backlog.take(0)
    backlog.release()
    assert len(backlog.data) == len(backlog) == len(whole) - len(first)  # what was taken is held no longer
