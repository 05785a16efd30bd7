"""A client that asks whether the service is alive while something else goes on, and notes the memory meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import get
from benchmarks.soak.scale import connect

LIVE_MILLISECONDS = 50.0  # target: the 99th percentile of this client's answers
PAUSE_SECONDS = 0.01


@dataclass
class Watched:
    """The milliseconds of each answer, and the most megabytes that the server has held."""

    milliseconds: list[float] = field(default_factory=list)
    peak: float = 0.0


@asynccontextmanager
async def watching(server: Server, each: Callable[[], None] = lambda: None) -> AsyncIterator[Watched]:
    """Watch a server as long as the context lasts, and call `each` between two questions."""
    watched = Watched()

    async def watch() -> None:
        async with connect(server) as connection:
            while True:
                began = perf_counter()
                await connection.ask(get("/health/live"))
                watched.milliseconds.append(1000 * (perf_counter() - began))
                watched.peak = max(watched.peak, server.resident_megabytes)
                each()
                await asyncio.sleep(PAUSE_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield watched
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
