"""A server on an event loop of its own, which runs while a test asks it, and what it tells of what it was asked."""

import asyncio
import io
import json
import re
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import uvicorn

from spikeserve.plugins.grpc.call import CODES
from spikeserve.plugins.grpc.protocol import PROTOCOL
from spikeserve.service.app import create_app
from spikeserve.service.process.server import Loop, Running
from spikeserve.service.process.server import Server as OurServer
from spikeserve.service.settings import with_protocols
from spikeserve.service.telemetry.metrics.families import Value
from tests.inside import Inside
from tests.plugins.grpc.rpc import free_port
from tests.service.asgi import until
from tests.service.one_way.model import GRPC, Ask
from tests.service.telemetry.test_tracing import Collector, attributes

# What differs between two servers, or two moments: the date, ids that clients did not give, and times.
DIFFERS = re.compile(rb"date: [^\r]*|x-request-id: [0-9a-f]{32}|request [0-9a-f]{32}|server-timing: [^\r]*")
STATUSES = {code: status for status, code in CODES.items()} | {grpc.StatusCode.OK: 200}
COUNTED = re.compile(
    "http_requests$|http_request_seconds|model_requests|model_request_seconds|samples|steps_saved|requests_|layer_"
    "|connections_refused|encode_seconds|request_synaptic_operations|dense_synaptic_operations"
)


class Answer(NamedTuple):
    """What was received without what differs, and its parts; the headers of a call are its trailing metadata."""

    received: bytes
    status: int
    headers: dict[str, str]
    content: bytes


class Log(io.StringIO):
    """A log of what was asked."""

    def take(self) -> list[dict[str, Any]]:
        """Return the requests that were logged since."""
        entries = [json.loads(line) for line in self.getvalue().splitlines()]
        self.seek(0)
        self.truncate()
        return [entry for entry in entries if entry["event"] == "request"]


class Server:
    """Our server of an app or, if it is `plain`, uvicorn's own, where calls of gRPC go the full way as well."""

    def __init__(self, root: Path, *, plain: bool, collector: Collector | None = None, **settings: Any) -> None:
        self.grpc_port, self.collector = free_port(), collector
        values: dict[str, Any] = {"repository": root, "grpc_port": self.grpc_port, **settings}
        configured = with_protocols()(engine="event", default_model="toy", **values)
        self.app = create_app(configured)
        self.inside = Inside(self.app)
        self.services = self.inside.services
        self.batcher = self.services.batcher
        self.ready: dict[str, dict[int, int]] = {}  # by name and version, the weights
        self.protocols: list[Running] = []
        self.server: uvicorn.Server
        if plain:
            config = uvicorn.Config(
                self.app, http="httptools", ws="none", log_config=None, access_log=False, server_header=False
            )
            self.server, self.runner = uvicorn.Server(config), asyncio.Runner()
        else:
            self.server = ours = OurServer(self.app, configured)
            self.protocols = ours.protocols
            self.runner = asyncio.Runner(loop_factory=lambda: Loop(ours.selector))
        self.run(self._start())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the event loop until it is done."""
        return self.runner.run(coroutine)

    async def _start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        # Not our own method, whose threads would end this process after the grace period.
        self.serving = asyncio.create_task(uvicorn.Server.serve(self.server, [self.listener]))
        await until(lambda: self.server.started or self.serving.done())
        while not self.services.readiness.first_load_over:
            await self.services.loader.loads_over()
            await asyncio.sleep(0)
        if not self.protocols:
            self.protocols.append(await PROTOCOL.start(self.services, self.address[0], self.grpc_port))
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")

    def close(self) -> None:
        """Stop it, and the event loop."""
        self.run(self._stop())
        self.runner.close()

    async def _stop(self) -> None:
        await self.channel.close()
        await self.protocols.pop().stop(0)
        del self.channel  # else gRPC's library keeps its sockets
        self.server.should_exit = True
        await self.serving
        self.listener.close()

    async def answers(self, asks: Sequence[Ask], cuts: Sequence[float] = (), *, ahead: bool = False) -> list[Answer]:
        """Ask all at once, or one ahead of the answer to the other on one connection; return the answers in order.

        Requests are cut at these places, and calls are at the same moment, or one after the other.
        """
        answers: dict[int, Answer] = {}
        requests, calls = list[list[int]]([[]]), list[list[int]]([[]])  # those of a list one after the other
        for number, ask in enumerate(asks):
            of_kind = calls if ask.is_call else requests
            of_kind[-1].append(number)
            if not ahead or ("Connection", "close") in ask.headers:
                of_kind.append([])
        connections = [await self.connect() for _ in requests]

        async def send(numbers: list[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            content = b"".join(asks[number].request() for number in numbers)
            places = [0, *sorted(int(len(content) * cut) for cut in cuts), len(content)]
            for start, stop in pairwise(places):
                writer.write(content[start:stop])
                for _ in range(3 * (len(cuts) > 0)):
                    await asyncio.sleep(0)
            for number in numbers:
                answers[number] = answer = await receive(reader)
            if numbers and answer.headers.get("connection") == "close":
                assert await reader.read() == b""
            writer.close()

        async def call(numbers: list[int]) -> None:
            for number in numbers:
                answers[number] = await self.call(asks[number])

        async with asyncio.timeout(60):
            sending = [send(each, *of) for each, of in zip(requests, connections, strict=True)]
            await asyncio.gather(*map(call, calls), *sending)
        await until(lambda: not self.inside.held)
        return [answers[number] for number in range(len(asks))]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(*self.address)

    def begin(self, ask: Ask) -> Any:
        """Begin a call."""
        metadata = {name.lower(): value for name, value in ask.metadata.items()}
        return self.channel.unary_unary(GRPC)(ask.message(), metadata=[*metadata.items()], timeout=60)

    async def call(self, ask: Ask) -> Answer:
        """Call."""
        asked, message = self.begin(ask), b""
        with suppress(grpc.aio.AioRpcError):
            message = await asked
        code, sentence, headers = await asked.code(), await asked.details(), dict(await asked.trailing_metadata())
        received = f"{code} {sentence} {[*headers]} ".encode() + message
        return Answer(DIFFERS.sub(b"", received), STATUSES[code], headers, message or sentence.encode())

    def spans(self) -> Counter[tuple[str, int]]:
        """Return the requests' spans that came to the collector since, by their name and status."""
        spans: Counter[tuple[str, int]] = Counter()
        if self.collector and self.services.tracing:
            self.services.tracing.provider.force_flush()
            told = [(span.name, attributes(span)) for span in self.collector.spans()]
            spans.update((name, of["http.response.status_code"]) for name, of in told if "http.request.method" in of)
            self.collector.bodies.clear()
        return spans

    def counts(self) -> Counter[tuple[str, ...]]:
        """Return the counts of its metrics of requests, by their names and labels."""
        metrics, counts = self.services.metrics, Counter[tuple[str, ...]]()
        metrics.settle()
        for family in (each for of in (metrics.models, metrics.requests, metrics.queues) for each in of.families):
            name = family.metric.args[0].removeprefix("spikeserve_")  # type: ignore[attr-defined]  # of a partial
            for labels, count in family.counts.items() if COUNTED.match(name) else ():
                counts[name, *labels] = round(count.value) if isinstance(count, Value) else sum(count.counts)
                counts[name, *labels, "sum"] = 0 if isinstance(count, Value) or "seconds" in name else round(count.sum)
        return counts


async def receive(reader: asyncio.StreamReader) -> Answer:
    """Read an answer of HTTP, and the line before it that asks for the body, where it comes."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        answer = await receive(reader)
        return answer._replace(received=head + answer.received)
    lines = [(name.decode(), value.decode()) for name, value in re.findall(rb"([^\r\n:]+): ([^\r]*)\r\n", head)]
    headers = httpx.Headers(lines)
    content = await reader.readexactly(int(headers["content-length"]))
    return Answer(DIFFERS.sub(b"", head + content), int(head[9:12]), dict(headers), content)
