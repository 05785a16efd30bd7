"""An ordinary call is answered, byte for byte, as the full way answers it, whatever its message says.

The first two calls with a message go the full way. Once more, it is ordinary where it can be; and with metadata that is
rare it goes the full way again. All are compared.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.plugins.grpc import ordinary
from spikeserve.plugins.grpc.wire import delimited, varint
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.scheduling.pipeline import Pipeline
from spikeserve.service.process.server import Server as OurServer
from tests.bundles import published
from tests.networks import regression
from tests.plugins.grpc.rpc import infer_request
from tests.service.asgi import until
from tests.service.one_way.model import DIGEST, GRPC, KEY, NETWORKS, asks
from tests.service.one_way.server import Server

RARE = ("x-request-timeout-ms", "60000")
OWN = re.compile(r"[0-9a-f]{32}")  # an id that no client gave
PLAIN = {  # messages that are ordinary; a map has its entries in any order
    "raw": infer_request(np.array([[1, 0]])),
    "floats": infer_request(np.array([[1, 0]]), raw=False),
    "values": infer_request(np.array([[1, 0]]), "values"),
    "rate": infer_request(np.array([[1, 0]]), "rate", parameters={"seed": 3}),
}
MESSAGE = PLAIN["raw"].SerializeToString()


def call(server: Server, content: bytes, *metadata: tuple[str, str]) -> Any:
    """Begin a call with the bytes of a message."""
    own = [("authorization", f"Bearer {KEY}"), *metadata]
    return server.channel.unary_unary(GRPC)(content, metadata=own, timeout=60)


async def ask(server: Server, content: bytes, *metadata: tuple[str, str]) -> tuple[Any, ...]:
    """Call, and return how it ended, its message, and the names of its trailing metadata."""
    asked = call(server, content, *metadata)
    message = b""
    with suppress(grpc.aio.AioRpcError):
        message = await asked
    trailers = [name for name, _ in await asked.trailing_metadata()]
    await until(lambda: not server.inside.requests)
    return await asked.code(), OWN.sub("", await asked.details()), message, trailers


async def all_ways(server: Server, contents: Sequence[bytes]) -> None:
    """Ask with each message twice, all at the same moment, and by the full way alone; compare."""
    first = [await ask(server, content) for content in contents]
    assert [await ask(server, content) for content in contents] == first
    again = await asyncio.gather(*(ask(server, content) for content in contents))
    full = await asyncio.gather(*(ask(server, content, RARE) for content in contents))
    assert first == again == full


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    networks = {name: each for name, (each, _) in NETWORKS.items()}
    server = Server(published(tmp_path_factory, values=regression(), **networks), plain=False, api_keys=DIGEST)
    yield server
    server.close()


OUTPUTS = [[], [], [], ["label"], ["probabilities", "spike_counts"], ["values"], ["steps_used"], ["no"], ["label"] * 2]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Return the bytes of a message, most of them ordinary."""
    content = draw(asks(calls=True, http=False)).message()
    content += b"".join(delimited(6, delimited(1, name.encode())) for name in draw(st.sampled_from(OUTPUTS)))
    return _spoilt(draw, content) if draw(st.integers(0, 3)) == 0 else content


FIELDS = [
    varint(9 << 3) + b"\x01",  # unknown
    delimited(7, b"\x00" * 8),  # raw contents once more
    delimited(5, b""),  # an input more
    varint(5 << 3) + b"\x05",  # the inputs as a number
    varint(7 << 3 | 5) + b"\x00" * 4,  # the raw contents as a float
    varint(1 << 3 | 3),  # a group
    delimited(1, b"toy"),
]


def _spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a message that is cut, or has a byte or a field more or less."""
    at, field = draw(st.integers(0, len(content))), draw(st.sampled_from(FIELDS))
    begin, end, byte = content[:at], content[at:], draw(st.binary(min_size=1, max_size=1))
    spoilt = [begin, begin + field + end, content + field, field + content, content * 2, begin + byte + end[1:]]
    return draw(st.sampled_from(spoilt))


@given(st.lists(contents(), min_size=1, max_size=4))
def test_all_ways_answer_byte_for_byte_alike(server: Server, mix: list[bytes]) -> None:
    server.run(all_ways(server, mix))


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_call_is_ordinary_from_its_third_message_on(server: Server, kind: str) -> None:
    content = PLAIN[kind].SerializeToString()
    server.inside.forget()  # so that no frame is known yet
    server.run(all_ways(server, [content]))
    with patch.object(Pipeline, "answer", None):  # so that the full way could not answer it
        code, _, _, trailers = server.run(ask(server, content))
    assert (code, trailers) == (StatusCode.OK, ["x-request-id"])


GONE = f'http_requests_total{{method="POST",route="{GRPC}",status="499"}}'


def test_a_call_that_is_cancelled_while_it_waits_is_withdrawn_and_logged_as_gone(server: Server) -> None:
    async def leave() -> None:
        await all_ways(server, [MESSAGE])
        with patch.object(tick, "answer_all"):  # so that it waits
            asked = call(server, MESSAGE)
            await until(lambda: bool(tick.waiting))
            asked.cancel()
            await until(lambda: not server.inside.requests)
        with patch.object(LoadedModel, "run", None):  # so that an answer would fail
            tick.answer_all()

    assert isinstance(server.server, OurServer)
    tick, before = server.server.tick, server.counts()
    server.run(leave())
    assert (server.counts() - before)[GONE] == 1


def test_calls_at_once_are_one_batch_and_none_waits_for_long(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def four() -> None:
        await asyncio.gather(*(ask(server, MESSAGE) for _ in range(4)))

    assert isinstance(server.server, OurServer)
    server.run(all_ways(server, [MESSAGE]))
    server.server.protocols[0].infer.expected = 4  # type: ignore[attr-defined]
    server.run(ask(server, MESSAGE))  # though three more are expected
    monkeypatch.setattr(ordinary, "GATHER_SECONDS", 3600)
    server.server.protocols[0].infer.expected = 4  # type: ignore[attr-defined]
    with patch.object(LoadedModel, "run", autospec=True, side_effect=LoadedModel.run) as run:
        server.run(four())
    assert run.call_count == 1


def test_a_batch_that_fails_goes_the_full_way_for_each_call(server: Server) -> None:
    async def fail() -> None:
        await all_ways(server, [MESSAGE])
        with patch.object(LoadedModel, "run", None):
            answers = await asyncio.gather(*(ask(server, MESSAGE) for _ in range(2)))
        assert [code for code, *_ in answers] == [StatusCode.INTERNAL] * 2

    server.run(fail())
