"""Requests leave nothing that only a garbage collection frees, as one would stop the event loop for 100 ms."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn

from spikeserve.service.app import create_app
from spikeserve.service.http.requests import Exchange
from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.process.connections import ConnectionLimits, connection_class
from spikeserve.service.process.turns import TimedSelector
from spikeserve.service.settings import Settings

ASKED = 5  # of each kind
REQUESTS = {
    "a question after its health": ("GET", "/health/live", b"", 200),
    "a path that there is not": ("GET", "/nothing", b"", 404),
    "a small request": ("POST", "/predict", b'{"inputs": [[0, 1]]}', 200),
    "a long request": ("POST", "/predict", b'{"inputs": [%s]}' % b", ".join([b"[0, 1]"] * 300), 200),
    "a request that is refused": ("POST", "/predict", b'{"inputs": [[0, "a"]]}', 422),
    "a stream that is refused": ("POST", "/models/toy/stream", b'{"close": true}\n', 415),
}


@asynccontextmanager
async def served(repository: Path) -> AsyncIterator[tuple[uvicorn.Server, httpx.AsyncClient]]:
    """Serve the application on connections of the service, in this process."""
    limits = ConnectionLimits(60, 60, MemoryBudget(2**30), lambda _: None)
    app = create_app(Settings(repository=repository))
    config = uvicorn.Config(app, http=connection_class(limits, TimedSelector()), ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            async with asyncio.timeout(60):
                while (await client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.05)
            yield server, client
        server.should_exit = True
        await serving


async def test_a_request_is_freed_without_a_garbage_collection(repository: Path) -> None:
    async with served(repository) as (server, client):
        for kind, (method, path, body, status) in REQUESTS.items():
            gc.collect()
            before = exchanges()
            gc.disable()
            try:
                for _ in range(ASKED):
                    headers = {"Content-Type": "application/json"}
                    answer = await client.request(method, path, content=body, headers=headers)
                    assert answer.status_code == status
                async with asyncio.timeout(60):
                    while server.server_state.tasks:
                        await asyncio.sleep(0)
                assert exchanges() - before == 0, kind
            finally:
                gc.enable()


def exchanges() -> int:
    """Return how many requests' objects there are."""
    return sum(type(each) is Exchange for each in gc.get_objects())
