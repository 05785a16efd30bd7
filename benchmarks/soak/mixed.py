"""The second soak: clients that ask, err, hang up and dawdle, side by side."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from time import perf_counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import Connection, NoAnswer
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import hostile
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import is_exact, questions, wrong
from benchmarks.soak.scale import MEANT, Scale, Tick, connect

# How much of the mixed clients' requests is of which kind; the rest is sound.
INVALID, ABANDONED, SLOW = 0.1, 0.1, 0.1
SLOW_PAUSE = 0.03  # seconds between the parts of a body that comes slowly


async def mixed_clients(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Have clients ask, err, hang up and dawdle side by side for a while; check every answer to a sound request."""
    asked = questions(SMALL, 64)
    odd = [each for each in hostile(asked[0].body) if 408 not in each.statuses]  # those would only wait
    began = perf_counter()
    seen: Counter[str] = Counter()

    async def sound(connection: Connection, rng: random.Random, parts: int) -> None:
        question = rng.choice(asked)
        size = -(-len(question.request) // parts)
        for start in range(0, len(question.request), size):
            if start:
                await asyncio.sleep(SLOW_PAUSE)
            await connection.send(question.request[start : start + size])
        answer = await connection.answer()
        seen["sound" if parts == 1 else "slow"] += 1
        seen["refused"] += answer.status in MEANT
        seen["inexact"] += answer.status not in MEANT and (answer.status != 200 or not is_exact(question, answer.body))

    async def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        async with connect(server) as connection:
            while (passed := perf_counter() - began) < scale.mixed_seconds:
                tick(passed / scale.mixed_seconds)
                drawn = rng.random()
                try:
                    if drawn < INVALID:
                        each = rng.choice(odd)
                        seen["invalid"] += 1
                        status = (await connection.ask(each.request)).status
                        seen["unmeant"] += status >= 500 and status not in MEANT
                    elif drawn < INVALID + ABANDONED:
                        await connection.send(rng.choice(asked).request)
                        connection.leave()
                        seen["abandoned"] += 1
                    else:
                        await sound(connection, rng, 4 if drawn < INVALID + ABANDONED + SLOW else 1)
                except NoAnswer:
                    seen["unanswered"] += 1

    await asyncio.gather(*(client(number) for number in range(scale.mixed_clients)))
    name = "mixed clients"
    return [
        Figure(name, "clients", scale.mixed_clients, at_least=64),
        Figure(name, "seconds", scale.mixed_seconds),
        *(Figure(name, f"{kind} requests", seen[kind]) for kind in ("sound", "slow", "invalid", "abandoned")),
        Figure(name, "sound requests answered 503 or 504", seen["refused"]),
        Figure(name, "sound requests answered otherwise than exactly", seen["inexact"], at_most=0),
        Figure(name, "5xx but the meant 503 and 504", seen["unmeant"], at_most=0),
        Figure(name, "connections ended without an answer", seen["unanswered"], at_most=0),
        Figure(name, "wrong answers to sound requests afterwards", await wrong(server, asked), at_most=0),
    ]
