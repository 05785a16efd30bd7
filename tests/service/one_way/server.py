"""A server on an event loop of its own, which runs while a test asks it, and what it tells of what it was asked."""

import asyncio
import gc
import io
import json
import re
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence, Sized
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import grpc
import httptools
import httpx
import uvicorn

from spikeserve.service.app import create_app
from spikeserve.service.process.server import Loop
from spikeserve.service.process.server import Server as OurServer
from spikeserve.service.settings import with_protocols
from tests.inside import Inside
from tests.plugins.grpc.rpc import free_port
from tests.service.asgi import until
from tests.service.one_way.model import GRPC, KEY, Ask
from tests.service.telemetry.test_tracing import Collector, attributes

COUNTED = "http_requests_total|model_requests_total|samples_total|requests_shed_total|requests_expired_total"


class Answers:
    """Reads the answers of one connection."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.whole: list[httpx.Response] = []

    def on_message_begin(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != 100:
            self.whole.append(httpx.Response(status, headers=self.headers, content=self.body))


class Log(io.StringIO):
    """A log, and how many lines of answers were written in one iteration of the event loop at most."""

    iteration, most = 0, 0
    latest = (0, 0)  # an iteration, and the lines of it

    def write(self, text: str) -> int:
        iteration, lines = self.latest
        lines = text.count('"status":200') + (lines if iteration == self.iteration else 0)
        self.latest, self.most = (self.iteration, lines), max(self.most, lines)
        return super().write(text)

    def take(self) -> list[dict[str, Any]]:
        """Return the requests that were logged since."""
        entries = [json.loads(line) for line in self.getvalue().splitlines()]
        self.seek(0)
        self.truncate()
        return [entry for entry in entries if entry["event"] == "request"]


class Server:
    """Our server of an app with gRPC or, if it is `plain`, uvicorn's own."""

    def __init__(
        self, root: Path, collector: Collector | None = None, log: Log | None = None, *, plain: bool, **settings: Any
    ) -> None:
        self.grpc_port = 0 if plain else free_port()
        values: dict[str, Any] = {"repository": root, "grpc_port": self.grpc_port, **settings}
        configured = with_protocols()(engine="event", default_model="toy", **values)
        self.log = log or Log()
        self.app = create_app(configured)
        self.inside = Inside(self.app)
        self.services = self.inside.services
        self.plain, self.collector = plain, collector
        self.ready: dict[str, dict[int, int]] = {}  # by name and version, the weights
        self.server: uvicorn.Server
        if plain:
            config = uvicorn.Config(
                self.app, http="httptools", ws="none", log_config=None, access_log=False, server_header=False
            )
            self.server, self.runner = uvicorn.Server(config), asyncio.Runner()
        else:
            self.server = ours = OurServer(self.app, configured)
            self.runner = asyncio.Runner(loop_factory=lambda: Loop(ours.selector))
        self.server.config.timeout_keep_alive = 600  # a busy machine takes long from one step to the next
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
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        if not self.plain:
            self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")

    def reset(self) -> None:
        """Forget what a test that failed left behind."""
        self.services.catalog.draining = False
        self.services.catalog.changes += 1  # so that no head or frame is known
        self.log.take()
        self.spans()
        while self.idle:
            self.idle.pop()[1].close()

    def close(self) -> None:
        """Stop it, and the event loop."""
        self.run(self._stop())
        self.runner.close()

    async def _stop(self) -> None:
        if isinstance(self.server, OurServer) and self.server.protocols:
            await self.channel.close()
            await self.server.protocols.pop().stop()
            del self.channel  # else gRPC's library keeps its sockets
        for _, writer in self.idle:
            writer.close()
        self.server.should_exit = True
        await self.serving
        self.listener.close()

    async def answers(self, asks: Sequence[Ask], cuts: Sequence[float], *, ahead: bool) -> list[Any]:
        """Ask all at once, or one ahead of the answer to the other on one connection; return the answers in order.

        Requests are cut at these places, and calls are at the same moment, or one after the other.
        """
        answers: dict[int, Any] = {}
        calls = [number for number, ask in enumerate(asks) if ask.is_call]
        streams: list[list[int]] = [[]]
        for number in sorted(set(range(len(asks))) - set(calls)):
            streams[-1].append(number)
            if not ahead or ("Connection", "close") in asks[number].headers:
                streams.append([])
        streams = [stream for stream in streams if stream]
        while len(self.idle) < len(streams):
            self.idle.append(await asyncio.open_connection(*self.address))
        connections = [self.idle.pop() for _ in streams]

        async def call() -> None:
            for group in [[number] for number in calls] if ahead else [calls]:
                of_group = await asyncio.gather(*(self._call(asks[number]) for number in group))
                answers.update(zip(group, of_group, strict=True))

        async def count() -> None:
            while True:
                self.log.iteration += 1
                await asyncio.sleep(0)

        calling, counting = asyncio.create_task(call()), asyncio.create_task(count())
        pieces = [_pieces(b"".join(asks[number].request() for number in stream), cuts) for stream in streams]
        for parts in zip_longest(*pieces, fillvalue=b""):
            for (_, writer), part in zip(connections, parts, strict=True):
                writer.write(part)
            for _ in range(3 * (len(cuts) > 0)):
                await asyncio.sleep(0)
        for connection, stream in zip(connections, streams, strict=True):
            answers.update(zip(stream, await self._received(connection, len(stream)), strict=True))
        await calling
        counting.cancel()
        await until(lambda: not self.inside.held)
        return [answers[number] for number in range(len(asks))]

    async def _received(self, connection: Any, count: int) -> list[httpx.Response]:
        reader, writer = connection
        answers = Answers()
        async with asyncio.timeout(60):
            while len(answers.whole) < count:
                data = await reader.read(2**16)
                assert data, f"{count} requests have {len(answers.whole)} answers: {answers.whole}"
                answers.parser.feed_data(data)
        if answers.whole[-1].headers.get("connection") == "close":
            assert await reader.read() == b""
            writer.close()
        else:
            self.idle.append(connection)
        return answers.whole

    async def _call(self, ask: Ask) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"} | ask.broken_headers
        metadata = [
            (name.lower(), each)
            for name, each in headers.items()
            if name != "Authorization" or "no key" not in ask.faults
        ]
        metadata += [("x-request-id", ask.id)] if ask.id else []
        call = self.channel.unary_unary(GRPC)(ask.message(), metadata=metadata, timeout=60)
        try:
            content = await call
        except grpc.aio.AioRpcError as error:
            return error
        return content, await call.trailing_metadata()

    def spans(self) -> Counter[tuple[str, int]]:
        """Return the requests' spans that came to the collector since, by their name and status."""
        spans: Counter[tuple[str, int]] = Counter()
        if self.collector and self.services.tracing:
            self.services.tracing.provider.force_flush()
            told = [(span.name, attributes(span)) for span in self.collector.spans()]
            spans.update((name, of["http.response.status_code"]) for name, of in told if "http.request.method" in of)
            self.collector.bodies.clear()
        return spans

    def stores(self) -> Counter[str]:
        """Return the size of each collection that an object of the service has, the largest of those of one name."""
        self.counts()
        sizes: Counter[str] = Counter()
        for each in gc.get_objects():
            if str(type(each).__module__).startswith("spikeserve.service") and not isinstance(each, Loop):
                for name, value in getattr(each, "__dict__", {}).items():
                    if isinstance(value, Sized) and not isinstance(value, str | bytes):
                        of = f"{type(each).__qualname__}.{name}"
                        sizes[of] = max(sizes[of], len(value))
        return sizes

    def counts(self, names: str = COUNTED) -> Counter[str]:
        """Return the counts of its metrics of these names."""
        text = self.run(self.services.control.exposition()).decode()
        found = re.findall(rf"^spikeserve_((?:{names}).*) (\S+)$", text, re.MULTILINE)
        return Counter({name: round(float(value)) for name, value in found})


def _pieces(content: bytes, cuts: Sequence[float]) -> list[bytes]:
    places = [0, *sorted(int(len(content) * cut) for cut in cuts), len(content)]
    return [content[start:stop] for start, stop in pairwise(places)]
