"""A body is stopped at its first byte over the limit and when its time is over, whatever it says of its length."""

import asyncio
import select
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from spikeserve.service.inference.decoding import body as bodies
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES, Body, BodyLimits
from spikeserve.service.inference.decoding.memory import MemoryBudget
from tests.bundles import published
from tests.networks import toy
from tests.service.decoding.test_heap import needs_glibc
from tests.service.sockets import CHUNK, connect, read_all, read_answer
from tests.serving import Process, running, serving

HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
MEBIBYTE = 2**20
HEAP_BYTES = 2**26  # the addresses that glibc reserves for a thread's own heap, at a multiple of as many
EXPIRED = 'spikeserve_requests_expired_total{model="toy"}'

pytestmark = pytest.mark.usefixtures("reference_engine")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose clients have 1.5 seconds for a body, and which no test here makes end."""
    root = published(tmp_path_factory, toy=toy())
    with running(root, "--engine", "reference", "--client-seconds", "1.5") as process:
        yield process
        assert process.stop() == 0


def test_a_chunked_body_is_counted_as_it_arrives(repository: Path) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        yield b'{"inputs":[[0,1]]}'.ljust(size // 2)
        yield b" " * (size - size // 2)

    with serving(repository, max_body_bytes=100) as client:
        assert client.post("/predict", content=chunks(100)).status_code == 200
        answer = client.post("/predict", content=chunks(101))
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body has 101 bytes or more, expected at most 100"}


def test_a_body_that_came_in_time_counts_though_the_server_was_too_busy_to_see_it() -> None:
    arrived = asyncio.Event()

    async def receive() -> Message:
        await arrived.wait()
        return {"type": "http.request", "body": b"ok"}

    def work() -> None:  # longer than the body may take, which arrives meanwhile, and is seen beside the timer
        time.sleep(0.05)
        asyncio.get_running_loop().call_soon(arrived.set)

    async def read() -> bytes:
        asyncio.get_running_loop().call_soon(work)
        return await Body({b"content-length": b"2"}, receive, BodyLimits(100, 0.02, MemoryBudget(100))).read()

    assert asyncio.run(read()) == b"ok"


def peak_memory(service: Process) -> int:
    """Return the most bytes that the process has held at once."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_ten_gigabytes_are_cut_off_early_and_fill_no_memory(repository: Path) -> None:
    chunk = b"%x\r\n%s\r\n" % (CHUNK, b" " * CHUNK)
    with running(repository) as service, connect(service) as connection:
        before, sent = peak_memory(service), 0
        connection.sendall(HEAD)
        try:
            while sent < 10 * 2**30 and not select.select([connection], [], [], 0)[0]:
                connection.sendall(chunk)
                sent += CHUNK
        except OSError:
            pass  # the server has closed the connection
        answer = read_all(connection)
        grown = peak_memory(service) - before
        assert service.stop() == 0
    # The limit is 16 MiB; what else was sent lay in the buffers of the sockets, or was read so that it could be told.
    assert 16 * MEBIBYTE < sent < 64 * MEBIBYTE
    assert grown < 3 * 16 * MEBIBYTE
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert answer.endswith(b'bytes or more, expected at most 16777216"}')


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 40000")])
def test_a_body_that_trickles_is_answered_408_and_its_connection_ends(service: Process, head: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(head)
        while not select.select([connection], [], [], 0.02)[0]:  # a byte now and then, and never the last one
            connection.sendall(b"1\r\n \r\n" if head is HEAD else b" ")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b"bytes after 1.5 seconds, expected all of it by then" in answer


@pytest.mark.parametrize("header", [b"Content-Length: 40000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [b"/predict", b"/v2/models/toy/infer"])
def test_a_request_whose_time_ends_while_its_body_arrives_is_504(service: Process, path: bytes, header: bytes) -> None:
    def expired() -> float:
        text = httpx.get(f"{service.url}/metrics").text
        return sum(float(each.split()[-1]) for each in text.splitlines() if each.startswith(EXPIRED))

    before = expired()
    head = b"POST %s HTTP/1.1\r\nHost: test\r\nX-Request-Timeout-Ms: 50\r\n%s\r\n\r\n" % (path, header)
    with connect(service) as connection:
        connection.sendall(head)
        while not select.select([connection], [], [], 0.02)[0]:  # a byte now and then, and never the last one
            connection.sendall(b"1\r\n \r\n" if b"chunked" in header else b" ")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"connection: close" in answer
    assert answer.endswith(b"bytes when the request's time was over, expected all of it by then\"}")
    assert expired() == before + 1


async def test_a_client_that_waits_for_its_answer_is_not_slow() -> None:
    # The time is that of the body alone: it is over long before the server listens for the client to leave.
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"x", "more_body": False})
    asyncio.get_running_loop().call_later(0.05, messages.put_nowait, {"type": "http.disconnect"})

    body = Body({b"content-length": b"1"}, messages.get, BodyLimits(100, 0.001, MemoryBudget(100)))
    assert await body.read() == b"x"
    await body.wait_for_disconnect()
    assert messages.empty()


@pytest.mark.parametrize(("size", "kept"), [(10, True), (UNRESERVED_BYTES, True), (UNRESERVED_BYTES + 1, False)])
def test_a_connection_outlives_an_answer_that_came_before_a_small_body(service: Process, size: int, kept: bool) -> None:
    head = b"POST /models/nobody/predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size
    with connect(service) as connection:
        connection.sendall(head + b" " * size)
        answer = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert (b"connection: close" not in answer) == kept
        if kept:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        else:
            assert read_all(connection) == b""


def test_of_a_refused_body_a_mebibyte_more_is_read_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> Message:
        return {"type": "http.request", "body": b"x" * 2**16, "more_body": True}

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    def drained(receive: Callable[[], Awaitable[Message]]) -> int:
        body = Body({b"transfer-encoding": b"chunked"}, receive, BodyLimits(100, 60, MemoryBudget(100)))
        asyncio.run(asyncio.wait_for(body.drain(), 60))
        return body.arrived

    assert (bodies.LINGER_BYTES, bodies.LINGER_SECONDS) == (2**20, 1)
    assert drained(endless) == 2**20
    monkeypatch.setattr(bodies, "LINGER_SECONDS", 0.01)
    assert drained(silent) == 0


@needs_glibc
def test_all_threads_of_a_server_share_one_heap(repository: Path) -> None:
    with running(repository, is_new=True) as service:  # a fork has the heaps of the process that it came from
        assert httpx.get(f"{service.url}/models", timeout=60).status_code == 200
        assert heaps_of_threads(service.process.pid) == []


def heaps_of_threads(process: int) -> list[str]:
    """Return the first addresses of the heaps that threads have for themselves: a used part, and a reserved rest."""
    mapped = [line.split()[:2] for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    found = []
    for (used, access), (reserved, none) in pairwise(mapped):
        start, ends = (int(each, 16) for each in used.split("-"))
        rest, last = (int(each, 16) for each in reserved.split("-"))
        is_heap = start % HEAP_BYTES == 0 and ends == rest and last == start + HEAP_BYTES
        if is_heap and (access, none) == ("rw-p", "---p"):
            found.append(used)
    return found
