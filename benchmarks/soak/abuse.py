"""The first soak: hostile and mutated requests over many connections."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import NoAnswer
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import hostile, mutated
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import questions, wrong
from benchmarks.soak.scale import CONNECTIONS, MEANT, Scale, Tick, connect


async def hostile_requests(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Send mutated and hostile requests over many connections; then see whether sound ones are still answered."""
    asked = questions(SMALL, 32)
    rng = random.Random(20)  # noqa: S311  (the same requests each time)
    odd = hostile(asked[0].body)
    work = [
        (odd[index % len(odd)].request, odd[index % len(odd)].statuses)
        if index % 4 == 0
        else (mutated(rng.choice(asked).body, rng), frozenset({200, 400, 413, 422}))
        for index in range(scale.hostile)
    ]
    statuses: Counter[int] = Counter()
    unmeant = not_listed = 0
    left = iter(work)

    async def client() -> None:
        nonlocal unmeant, not_listed
        async with connect(server) as connection:
            for request, expected in left:
                try:
                    status = (await connection.ask(request)).status
                except NoAnswer:
                    status = 0
                statuses[status] += 1
                unmeant += status >= 500 and status not in MEANT
                not_listed += status not in expected
                tick(statuses.total() / len(work))

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    name = "hostile requests"
    return [
        Figure(name, "requests", statuses.total(), at_least=scale.hostile),
        Figure(name, "5xx but the meant 503 and 504", unmeant, at_most=0),
        Figure(name, "connections ended without an answer", statuses[0], at_most=0),
        Figure(name, "answers of another status than that kind's", not_listed, at_most=0),
        *(Figure(name, f"answers {status}", count) for status, count in sorted(statuses.items())),
        Figure(name, "wrong answers to sound requests afterwards", await wrong(server, asked), at_most=0),
    ]
