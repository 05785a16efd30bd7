"""An ordinary call is answered, byte for byte, as the full way answers it, whatever its message says.

The first two calls with a message go the full way. Once more, it is ordinary where it can be; and with metadata that is
rare it goes the full way again. All are compared.
"""

import asyncio
import re
from asyncio import Runner
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spikeserve.plugins.grpc import ordinary
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.wire import delimited, varint
from spikeserve.service.inference.ordinary.tick import Tick
from spikeserve.service.keys import new_key
from spikeserve.service.services import Services
from tests.bundles import published
from tests.plugins.grpc.inside import GrpcInside, grpc_started
from tests.plugins.grpc.rpc import infer_request
from tests.service.one_way.model import NETWORKS, asks
from tests.service.ordinary import Counting, networks
from tests.service.processes import until

KEY, DIGEST = new_key()
KEYED = ("authorization", f"Bearer {KEY}")
RARE = ("x-request-timeout-ms", "60000")
OWN = re.compile(r"[0-9a-f]{32}")  # an id that no client gave


class Answered(NamedTuple):
    """How a call ended, and the names of its trailing metadata."""

    code: StatusCode
    details: str
    message: bytes
    trailers: list[str]


class Served:
    """A server of models inside an event loop that runs while a test asks."""

    def __init__(self, root: Path) -> None:
        self.runner, self.stack = Runner(), AsyncExitStack()
        self.inside: GrpcInside = self.run(self._start(root))
        self.services = self.inside.services
        self.infer = self.inside.server.infer

    async def _start(self, root: Path) -> GrpcInside:
        started = grpc_started(root, tick=self._tick, engine="event", default_model="toy", api_keys=DIGEST)
        return await self.stack.enter_async_context(started)

    def _tick(self, services: Services) -> Tick:
        services.iteration.files = 1  # are ready in each iteration of the event loop
        self.tick = Counting(services)
        return self.tick

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run the event loop until it is done, and the server has ended all calls too."""

        async def wait() -> Any:
            result = await awaitable
            while hasattr(self, "inside") and self.inside.requests:
                await asyncio.sleep(0)
            return result

        return self.runner.run(wait())

    def call(self, content: bytes, *metadata: tuple[str, str], timeout: float = 60) -> Any:
        """Begin a call with the bytes of a message."""
        method = self.inside.channel.unary_unary(f"/{SERVICE}/ModelInfer")
        return method(content, metadata=[KEYED, *metadata], timeout=timeout)

    async def ask(self, content: bytes, *metadata: tuple[str, str], timeout: float = 60) -> Answered:
        """Call with the bytes of a message."""
        call = self.call(content, *metadata, timeout=timeout)
        try:
            message = await call
        except grpc.aio.AioRpcError:
            message = b""
        trailers = [name for name, _ in await call.trailing_metadata()]
        return Answered(await call.code(), OWN.sub("", await call.details()), message, trailers)

    async def learn(self, content: bytes) -> Answered:
        """Call with the bytes of a message as often as it takes for the next call to be ordinary."""
        first, second = [await self.ask(content) for _ in range(2)]
        assert first == second
        return first

    async def all_ways(self, contents: Sequence[bytes]) -> list[Answered]:
        """Ask with each message alone, with all at the same moment, and by the full way alone; compare; return."""
        first = [await self.learn(content) for content in contents]
        again = await asyncio.gather(*map(self.ask, contents))
        full = await asyncio.gather(*(self.ask(content, RARE) for content in contents))
        assert first == again == full
        return first


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = published(tmp_path_factory, **networks() | {name: each for name, (each, _) in NETWORKS.items()})
    served = Served(root)
    served.run(served.ask(b""))  # the connection is made
    yield served
    served.runner.run(served.stack.aclose())
    served.runner.close()
    del served.inside, served.infer  # else gRPC's library keeps its sockets


OUTPUTS = [[], [], [], ["label"], ["probabilities", "spike_counts"], ["values"], ["steps_used"], ["no"], ["label"] * 2]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Return the bytes of a message, most of them ordinary."""
    content = draw(asks(calls=True, http=False)).message()
    content += b"".join(delimited(6, delimited(1, name.encode())) for name in draw(st.sampled_from(OUTPUTS)))
    return _spoilt(draw, content) if draw(st.integers(0, 3)) == 0 else content


def _spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a message that is cut, or has a byte or a field more or less."""
    at = draw(st.integers(0, len(content)))
    field = draw(
        st.sampled_from(
            [
                varint(9 << 3) + b"\x01",  # unknown
                delimited(7, b"\x00" * 8),  # raw contents once more
                delimited(5, b""),  # an input more
                varint(5 << 3) + b"\x05",  # the inputs as a number
                varint(7 << 3 | 5) + b"\x00" * 4,  # the raw contents as a float
                varint(1 << 3 | 3),  # a group
                delimited(1, b"toy"),
            ]
        )
    )
    return draw(
        st.sampled_from(
            [
                content[:at],
                content[:at] + field + content[at:],
                content + field,
                field + content,
                content * 2,
                content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :],
            ]
        )
    )


@hypothesis_settings(max_examples=100)
@given(st.lists(contents(), min_size=1, max_size=4))
def test_all_ways_answer_byte_for_byte_alike(served: Served, mix: list[bytes]) -> None:
    served.run(served.all_ways(mix))


def message(values: Sequence[Sequence[float]] = ((1, 0),), model: str = "toy", **more: Any) -> bytes:
    """Return the bytes of a message with samples."""
    return infer_request(np.array(values), model, **more).SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        message(),
        message(raw=False),
        message(model="values"),
        message(model="rate", parameters={"seed": 3}),
    ],
    ids=["raw", "floats", "values", "rate"],  # a map has its entries in any order
)
def test_a_plain_call_is_ordinary_from_its_third_message_on(served: Served, content: bytes) -> None:
    served.inside.forget()  # so that no frame is known yet
    answered = served.tick.answered
    (found,) = served.run(served.all_ways([content]))
    assert found.code is StatusCode.OK
    assert found.trailers == ["x-request-id"]
    assert served.tick.answered == answered + 1


GONE = f'spikeserve_http_requests_total{{method="POST",route="/{SERVICE}/ModelInfer",status="499"}}'


def gone(served: Served) -> float:
    """Return how many calls are counted whose clients had left."""
    text = served.services.metrics.exposition(served.services.catalog.every_version(), ready=True, labels={})
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(GONE))


def test_a_call_that_is_cancelled_while_it_waits_is_withdrawn_and_logged_as_gone(served: Served) -> None:
    async def ask() -> None:
        await served.learn(message())
        await until(lambda: not served.inside.server.calls.tasks)
        before, answered, served.tick.held = gone(served), served.tick.answered, True
        call = served.call(message())
        await until(lambda: bool(served.tick.waiting))
        call.cancel()
        await until(lambda: not served.inside.server.calls.tasks)
        served.tick.held = False
        served.tick.answer_all()
        assert served.tick.answered == answered
        assert gone(served) == before + 1

    served.run(ask())


def test_calls_at_once_are_one_batch_and_none_waits_for_long(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(calls: int) -> None:
        served.infer.expected, batches = 4, served.tick.batches
        await asyncio.gather(*(served.ask(message()) for _ in range(calls)))
        assert served.tick.batches == batches + 1

    served.run(served.learn(message()))
    served.run(ask(1))
    monkeypatch.setattr(ordinary, "GATHER_SECONDS", 3600)
    served.run(ask(4))


def test_a_batch_that_fails_goes_the_full_way_for_each_call(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        await served.learn(message())
        monkeypatch.setattr(served.inside.model("toy"), "run", None)
        answers = await asyncio.gather(*(served.ask(message()) for _ in range(2)))
        assert [answer.code for answer in answers] == [StatusCode.INTERNAL] * 2

    served.run(ask())
