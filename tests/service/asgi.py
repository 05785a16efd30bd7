"""An app called as a server calls it, on the test's own event loop, by clients that may leave."""

import asyncio
import gc
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Scope

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import Record, RunResult, State, Stop
from spikeserve.models.engines.base import Engine
from spikeserve.models.engines.blocks import DenseEngine
from spikeserve.service.app import create_app
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.settings import Settings
from tests.inside import Inside


@dataclass(frozen=True)
class Answered:
    """A status, headers and JSON; status 0 where the client had left."""

    status: int
    headers: Mapping[str, str]
    json: Any


class Client(Inside):
    """Posts to an app; `left`, once set, is a client that has hung up."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self.app = app
        self.address = ("127.0.0.1", 1)  # that it comes from

    async def post(
        self,
        body: Any,
        path: str = "/predict",
        headers: Mapping[str, str] | None = None,
        left: asyncio.Event | None = None,
    ) -> Answered:
        content = json.dumps(body).encode()
        return await self.call("POST", path, content, headers or {}, left or asyncio.Event())

    async def get(self, path: str) -> Answered:
        return await self.call("GET", path, b"", {}, asyncio.Event())

    def scope(self, method: str, path: str, headers: Mapping[str, str]) -> Scope:
        """Return the scope of a request, as a server gives it to an app."""
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": self.address,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "app": self.app,
        }

    async def call(
        self, method: str, path: str, content: bytes, headers: Mapping[str, str], left: asyncio.Event
    ) -> Answered:
        """Ask. Of a body that says to be longer than `content`, the rest never arrives."""
        headers = {"Content-Length": str(len(content)), **headers}
        length = int(headers["Content-Length"])
        scope = self.scope(method, path, headers)
        incoming = [{"type": "http.request", "body": content, "more_body": length > len(content)}]
        sent: list[Message] = []

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return Answered(0, {}, None)
        text = b"".join(message.get("body", b"") for message in sent)
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        is_json = found.get("content-type") == "application/json"
        return Answered(sent[0]["status"], found, json.loads(text) if is_json else text.decode())


@asynccontextmanager
async def started(root: Path, **settings: Any) -> AsyncIterator[Client]:
    """Start an app on `root` and go on once its models are loaded or have failed."""
    app = create_app(Settings(repository=root, **settings))
    async with app.router.lifespan_context(app):
        client = Client(app)
        while "still loading" in str((await client.get("/health/ready")).json):
            await asyncio.sleep(0)  # so that the loads begin
            await client.loader.loads_over()
        yield client


class Held(DenseEngine):
    """An engine that notes each run's samples and steps, and waits in each until it is let go on.

    `entered` counts the runs that have begun; `go_on` releases one run for each time. `stops` are those of the runs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.batches = engine.name, engine.batches
        self.network, self.spec = engine.network, engine.spec
        self.runs: list[tuple[int, int]] = []
        self.stops: list[Stop | None] = []
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def run(
        self, inputs: Inputs, state: State | None = None, *, record: Record = Record.NONE, stop: Stop | None = None
    ) -> tuple[RunResult, State]:
        self.runs.append((inputs.batch, inputs.time_steps))
        self.stops.append(stop)
        self.entered.release()
        assert self.go_on.acquire(timeout=60)
        return self.engine.run(inputs, state, record=record, stop=stop)

    def run_dense(self, *_: Any) -> tuple[RunResult, State]:
        raise NotImplementedError

    async def begun(self) -> None:
        """Wait until one more run has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=60)


class Broken(Held):
    """An engine that fails as no engine should."""

    def run(self, *_: Any, **__: Any) -> tuple[RunResult, State]:
        raise RuntimeError("the secret path")


def slow(model: LoadedModel) -> Held:
    """Have every request for `model` go to a worker, into an engine that waits to be let go on."""
    held = Held(model.engine)
    model.engine = held
    model.cost = Cost(1e-3)  # so that a few steps take longer than a quick request may
    return held


@asynccontextmanager
async def busy(root: Path, **settings: Any) -> AsyncIterator[tuple[Client, Held, asyncio.Task[Answered]]]:
    """Start an app whose one thread a first request of three steps holds; the engine has to be let go on for it."""
    async with started(root, threads=1, **settings) as client:
        held = slow(client.model())
        first = asyncio.create_task(client.post(LEFT))
        await held.begun()
        yield client, held, first


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def settled() -> None:
    """Let everything happen that can before something else does."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Return the bytes of Python's objects that were made since; no garbage collection frees those in a cycle."""
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()


LEFT, RIGHT = {"inputs": [[1, 0]]}, {"inputs": [[0, 1]]}


async def metric(client: Client, line: str) -> float:
    text = (await client.get("/metrics")).json
    (found,) = [each for each in text.splitlines() if each.startswith(line + " ")] or [f"{line} 0"]
    return float(found.split()[-1])
