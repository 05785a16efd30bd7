"""A request is answered, byte for byte, as the app under uvicorn answers it: whatever it says, however it is cut.

Two servers of the same models stand side by side: ours, which answers ordinary requests as a batch, and uvicorn's own.
Each conversation is held with both.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.rows import RowReader
from spikeserve.service.inference.ordinary.native import NativeEndpoint
from spikeserve.service.inference.scheduling.pipeline import Pipeline
from spikeserve.service.process.connections import OrdinaryRequest, cancel_requests
from spikeserve.service.process.server import Server as OurServer
from tests.bundles import published
from tests.service.asgi import until
from tests.service.infer_requests import INFER, request
from tests.service.one_way.model import DIGEST, KEY, NETWORKS, OWN, Ask, asks
from tests.service.one_way.server import Server

RESET = b"reset"
LAST = b"GET /health/live HTTP/1.1\r\nHost: test\r\nX-Request-ID: last\r\nConnection: close\r\n\r\n"
# What differs between two servers, or two moments: the date, ids that clients did not give, and times.
DIFFERS = re.compile(rb"date: [^\r]*|x-request-id: [0-9a-f]{32}|request [0-9a-f]{32}|server-timing: [^\r]*")
COUNTED = (
    "http_requests_total|http_request_seconds_count|model_requests_total|model_request_seconds_count|samples_total"
    "|request_synaptic_operations|dense_synaptic_operations|layer_|steps_saved|encode_seconds_count|connections_refused"
)


async def converse(server: Server, pieces: Sequence[bytes]) -> bytes:
    """Send the pieces one after the other, and return all that is received up to the connection's end."""
    reader, writer = await asyncio.open_connection(*server.address)
    received = asyncio.create_task(reader.read())
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            return DIFFERS.sub(b"", await received)
    except ConnectionResetError:
        return RESET
    finally:
        writer.close()


class Pair:
    """Our server and uvicorn's, each with an event loop of its own."""

    def __init__(self, root: Path) -> None:
        # Two requests fill a batch, and three samples of an image are too many values: of 12 pixels, at 4 steps, 144.
        self.both = self.ours, self.plain = tuple(
            Server(root, plain=plain, api_keys=DIGEST, max_batch=4, max_values=100) for plain in (False, True)
        )

    def converse(self, *conversations: Sequence[bytes]) -> list[bytes]:
        """Hold conversations with both servers, all of them at once, and compare; return what was received."""

        async def hold(server: Server) -> list[bytes]:
            return await asyncio.gather(*(converse(server, pieces) for pieces in conversations))

        ours, theirs = (server.run(hold(server)) for server in self.both)
        # Who sends on after an answer that closes the connection may lose that answer: the system resets it.
        compared = [each for each in zip(ours, theirs, strict=True) if RESET not in each]
        assert [our for our, _ in compared] == [their for _, their in compared]
        return ours


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(published(tmp_path_factory, **{name: network for name, (network, _) in NETWORKS.items()}))
    yield pair
    for server in pair.both:
        server.close()


ODD = "0 1 0.5 1.0 -0 -0.0 10 11 1e0 1E-3 2.5e+0 01 1. .5 +1 NaN Infinity -Infinity true [] 1e400 92233720368547758080"
NUMBERS = st.one_of(
    st.sampled_from([*ODD.split(), '"1"', "9" * 30, "0." + "9" * 30, "1" + "0" * 400, "0." + "0" * 30 + "1"]),
    st.floats(0, 10, width=32).map(repr),
    st.floats(-300, 300).map(repr),
    st.integers(0, 255).map(str),
    st.decimals(0, 10, places=20).map(str),
)
ODD_HEADERS = (
    b"Connection: keep-alive|X-Request-ID: odd id!|X-Request-Timeout-Ms: 0900|Inference-Header-Content-Length: 1"
    b"|X-Request-Timeout-Ms: +900|Content-Encoding: identity|content-type: application/json |Authorization: Bearer none"
).split(b"|")
ODD_BYTES = st.sampled_from([b"", b",", b"]", b"[", b'"', b"\xff", b"0", b" ", b"\n", b"\t \r\n", b"\f"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request, one in two with another number, byte or header in it."""
    head, _, body = draw(asks(calls=False)).request().partition(b"\r\n\r\n")
    for odd in draw(st.lists(st.sampled_from(["number", "byte", "header"]), max_size=2)) * draw(st.integers(0, 1)):
        start = draw(st.integers(0, len(body)))
        stop = start + draw(st.integers(0, 1))
        if odd == "number" and (numbers := list(re.finditer(rb"[0-9][0-9.]*", body))):
            start, stop = draw(st.sampled_from(numbers)).span()
        if odd == "header":
            head += b"\r\n" + draw(st.sampled_from(ODD_HEADERS))
        else:
            body = body[:start] + (draw(NUMBERS).encode() if odd == "number" else draw(ODD_BYTES)) + body[stop:]
    return re.sub(rb"(Content-Length): \d+", rb"\1: %d" % len(body), head) + b"\r\n\r\n" + body


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Return a client's bytes, cut anywhere."""
    whole = b"".join(draw(st.lists(requests(), min_size=1, max_size=3))) + LAST
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@given(st.lists(conversations(), min_size=1, max_size=4))
def test_both_servers_answer_byte_for_byte_alike(pair: Pair, mix: list[list[bytes]]) -> None:
    pair.converse(*mix)
    assert pair.ours.counts(COUNTED) == pair.plain.counts(COUNTED)


def post(body: bytes, *lines: bytes, path: bytes = b"/predict") -> bytes:
    """Return an ordinary request, with more header lines if they are given."""
    head = (b"POST %s HTTP/1.1" % path, b"Host: test", b"Content-Type: application/json", b"X-Request-ID: one")
    key = b"Authorization: Bearer " + KEY.encode()
    return b"\r\n".join([*head, key, *lines, b"Content-Length: %d" % len(body), b"", body])


BODY, V2 = b'{"inputs":[[1,0]]}', INFER.encode()
TENSORS = json.dumps(request([[1, 0], [0, 1]])).encode()


@pytest.mark.parametrize(
    ("usual", "odd", "status"),
    [
        (post(BODY), post(b'{"inputs":[[1,0]],"inputs":[[1,0]]}'), b"400"),
        (post(BODY), post(b'{"inputs":[[1,0]],"return":["spikes_per_node"]}'), b"200"),
        (post(BODY), post(BODY, b"Accept: a", b"Accept: b"), b"200"),  # a name that is there twice
        (Ask("image").request(), Ask("image", samples=3).request(), b"413"),  # more values than the limits allow
        (post(TENSORS, path=V2), post(TENSORS.replace(b", 0, 1", b""), path=V2), b"400"),  # fewer than their shape says
    ],
)
def test_what_is_odd_is_answered_alike_behind_what_is_usual(
    pair: Pair, usual: bytes, odd: bytes, status: bytes
) -> None:
    (received,) = pair.converse([3 * usual + odd + LAST])
    assert re.findall(rb"HTTP/1.1 (...)", received) == [*[b"200"] * 3, status, b"200"]


def test_a_connection_closes_once_it_was_idle_for_all_its_time(pair: Pair) -> None:
    async def ask(server: Server) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        server.server.config.timeout_keep_alive = 1
        for _ in range(4):
            writer.write(post(BODY).replace(b"X-Request-ID: one\r\n", b""))
            await reader.readuntil(b"}]}")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.4)  # together longer than it may be idle
        assert await reader.read() == b""
        writer.close()

    pair.ours.run(ask(pair.ours))


def test_a_request_that_waits_for_its_batch_at_the_end_of_the_grace_period_is_503(pair: Pair) -> None:
    server = pair.ours
    assert isinstance(server.server, OurServer)

    async def ask() -> bytes:
        answer = asyncio.create_task(converse(server, [post(BODY)]))
        await until(lambda: server.services.metrics.requests.in_flight == 1)
        server.services.catalog.draining = True
        await asyncio.wait(await cancel_requests(server.server))
        return await answer

    with patch.object(server.server.tick, "answer_all"):  # so that none is answered
        assert server.run(ask()).startswith(b"HTTP/1.1 503 ")
    server.services.catalog.draining = False


def test_a_body_that_comes_late_is_waited_for_and_a_client_that_leaves_is_counted_as_gone(pair: Pair) -> None:
    whole = post(BODY)

    async def ask(server: Server) -> bytes:
        requests, connections = server.services.metrics.requests, server.server.server_state.connections

        def waits() -> bool:  # no longer than BODY_SECONDS for the body of an ordinary request
            return requests.in_flight == 1 and not any(
                isinstance(getattr(each, "request", None), OrdinaryRequest) for each in connections
            )

        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(whole[:-5])
        await until(waits)
        writer.write(whole[-5:] + LAST)
        received = await reader.read()
        writer.close()
        gone = requests.answered.of("POST", "/predict", 499)
        for condition in (lambda: requests.in_flight == 1, waits):
            before = gone.value
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(whole[:-1])
            await until(condition)
            writer.close()
            await until(lambda: gone.value == before + 1 and requests.in_flight == 0)  # noqa: B023
        return DIFFERS.sub(b"", received)

    ours, theirs = (server.run(ask(server)) for server in pair.both)
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("before", "status"), [(len(post(BODY)) - 5, b"200"), (0, b"503")], ids=["due", "in a buffer"])
def test_what_has_come_when_the_server_stops_is_answered_and_closes(pair: Pair, before: int, status: bytes) -> None:
    services, connections = pair.ours.services, pair.ours.server.server_state.connections

    async def ask(server: Server) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(post(BODY)[:before])
        await until(lambda: services.metrics.requests.in_flight == 1 if before else len(connections) == 1)
        services.catalog.draining = True
        writer.write(post(BODY)[before:])  # the server reads it in its next iteration
        for connection in list(connections):
            connection.shutdown()
        received = await reader.read()
        writer.close()
        services.catalog.draining = False
        return received

    received = pair.ours.run(ask(pair.ours))
    assert received.startswith(b"HTTP/1.1 %s " % status)
    assert received.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize(("of", "name"), [(RowReader, "read"), (NativeEndpoint, "decode"), (LoadedModel, "run")])
def test_a_failure_goes_the_full_way_for_each_request(pair: Pair, of: type, name: str) -> None:
    never_seen = BODY.replace(b"{", b"{ \n", 1)  # so that its frame is not known
    with patch.object(of, name, _fail):
        received = pair.converse(*[[post(never_seen) + LAST]] * 3)
    assert {each[9:12] for each in received} == {b"500" if name == "run" else b"200"}


@pytest.mark.parametrize("kind", ["charset", "gzip", "<f4", "<f8", "|u1", "<i4", "v2 FP64", "bytes UINT8"])
def test_no_request_of_numbers_is_dear_nor_one_that_finds_a_batch_full(pair: Pair, kind: str) -> None:
    request = Ask(kind=kind, samples=3, headers=(("Origin", OWN), ("X-Server-Timing", "1"))).request() + LAST

    async def ask() -> list[bytes]:
        return await asyncio.gather(*(converse(pair.ours, [request]) for _ in range(8)))

    with patch.object(Pipeline, "answer", _fail):  # so that the application could not answer it
        assert {answer[:13] for answer in pair.ours.run(ask())} == {b"HTTP/1.1 200 "}


def _fail(*_: object) -> None:
    raise RuntimeError("nobody caught this")
