"""The fourth soak: the resident memory after many requests beside that after fewer."""

from __future__ import annotations

import asyncio
import json
import random
from time import perf_counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import post
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import mutated
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import questions
from benchmarks.soak.scale import CONNECTIONS, Scale, Tick, connect

MEMORY_PERCENT = 5.0


async def memory(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Compare the resident memory after many requests, one in sixteen of them wrong, to that after fewer."""
    asked = questions(SMALL, 64)
    rng = random.Random(21)  # noqa: S311
    requests = [
        post("/predict", mutated(json.dumps(question.body).encode(), rng)) if index % 16 == 0 else question.request
        for index, question in enumerate(asked)
    ]
    done = 0
    resident: dict[int, float] = {}
    began = perf_counter()

    async def client(start: int, until: int) -> None:
        nonlocal done
        async with connect(server) as connection:
            for index in range(start, until, CONNECTIONS):
                await connection.ask(requests[index % len(requests)])
                done += 1
                tick(done / scale.memory_last)

    for start, until in ((0, scale.memory_first), (scale.memory_first, scale.memory_last)):
        await asyncio.gather(*(client(start + offset, until) for offset in range(CONNECTIONS)))
        resident[until] = server.resident_megabytes
    first, last = resident[scale.memory_first], resident[scale.memory_last]
    name = "memory"
    return [
        Figure(name, "requests", done, at_least=scale.memory_last),
        Figure(name, "requests/s", done / (perf_counter() - began)),
        Figure(name, f"resident after {scale.memory_first:,}", first, "MB"),
        Figure(name, f"resident after {scale.memory_last:,}", last, "MB"),
        Figure(name, "growth", 100 * (last / first - 1), "%", at_most=MEMORY_PERCENT),
    ]
