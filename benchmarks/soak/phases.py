"""The four soaks: hostile requests, a mix of clients, overload, and memory. Each returns its figures."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.networks import Served
from benchmarks.serving.processes import Server
from benchmarks.soak.client import Connection, NoAnswer, post
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.hostile import hostile, mutated
from benchmarks.soak.networks import HEAVY, SMALL
from models.coding import encode
from models.engines.reference import ReferenceEngine

MEANT = frozenset({503, 504})  # the only 5xx that the service means
CONNECTIONS = 32

# How much of the mixed clients' requests is of which kind; the rest is sound.
INVALID, ABANDONED, SLOW = 0.1, 0.1, 0.1
SLOW_PAUSE = 0.03  # seconds between the parts of a body that comes slowly

ALONE_MS = 20.0  # about how long a request of the overload takes alone
MOST_STEPS = 1000
OVERLOAD = 10  # times the capacity
OVERLOAD_QUEUE = 16
SHED_MS = 20.0
TIMES_UNLOADED = 3

MEMORY_PERCENT = 5.0


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    hostile: int
    mixed_seconds: float
    mixed_clients: int
    unloaded: int
    overload_seconds: float
    memory_first: int
    memory_last: int


FULL = Scale(12_000, 60, 64, 200, 15, 20_000, 200_000)
QUICK = Scale(1_000, 4, 64, 50, 3, 2_000, 6_000)


class Phase(NamedTuple):
    """A soak: its name, the flags of its server and what it does to it. `tick` is called with the part that is done."""

    name: str
    flags: Sequence[str]
    run: Callable[[Server, Scale, Callable[[float], None]], Coroutine[Any, Any, list[Figure]]]


class Question(NamedTuple):
    """A sound request and the spike counts that answer it, as the reference engine has them."""

    request: bytes
    body: dict[str, Any]
    counts: list[list[int]]


def questions(served: Served, number: int) -> list[Question]:
    """Return requests of one to three random samples, and different steps, with their answers."""
    rng = np.random.default_rng(number)
    engine = ReferenceEngine(served.network)
    made = []
    for index in range(number):
        samples = rng.integers(0, served.high + 1, (1 + index % 3, served.inputs)).astype(np.float32)
        time_steps = 5 + index % 21
        result = engine.run(encode(samples, served.network.spec, time_steps))
        body = {"inputs": samples.astype(int).tolist(), "time_steps": time_steps}
        made.append(Question(post("/predict", json.dumps(body).encode()), body, result.spike_counts.tolist()))
    return made


def is_exact(question: Question, body: bytes) -> bool:
    """Return whether an answer's spike counts are the reference engine's."""
    return [each["spike_counts"] for each in json.loads(body)["predictions"]] == question.counts


async def hostile_requests(server: Server, scale: Scale, tick: Callable[[float], None]) -> list[Figure]:
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
        async with _connect(server) as connection:
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
        Figure(name, "wrong answers to sound requests afterwards", await _wrong(server, asked), at_most=0),
    ]


async def _wrong(server: Server, asked: Sequence[Question]) -> int:
    async with _connect(server) as connection:
        answers = [await connection.ask(question.request) for question in asked]
    pairs = zip(asked, answers, strict=True)
    return sum(answer.status != 200 or not is_exact(question, answer.body) for question, answer in pairs)


async def mixed_clients(server: Server, scale: Scale, tick: Callable[[float], None]) -> list[Figure]:
    """Have clients ask, err, hang up and dawdle side by side for a while; check every answer to a sound request."""
    asked = questions(SMALL, 64)
    odd = [each for each in hostile(asked[0].body) if 408 not in each.statuses]  # those would only wait
    began = perf_counter()
    kinds: Counter[str] = Counter()

    async def sound(connection: Connection, rng: random.Random, parts: int) -> None:
        question = rng.choice(asked)
        size = -(-len(question.request) // parts)
        for start in range(0, len(question.request), size):
            if start:
                await asyncio.sleep(SLOW_PAUSE)
            await connection.send(question.request[start : start + size])
        answer = await connection.answer()
        kinds["sound" if parts == 1 else "slow"] += 1
        kinds["refused"] += answer.status in MEANT
        kinds["inexact"] += answer.status not in MEANT and (answer.status != 200 or not is_exact(question, answer.body))

    async def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        async with _connect(server) as connection:
            while (passed := perf_counter() - began) < scale.mixed_seconds:
                tick(passed / scale.mixed_seconds)
                drawn = rng.random()
                try:
                    if drawn < INVALID:
                        each = rng.choice(odd)
                        kinds["invalid"] += 1
                        status = (await connection.ask(each.request)).status
                        kinds["unmeant"] += status >= 500 and status not in MEANT
                    elif drawn < INVALID + ABANDONED:
                        await connection.send(rng.choice(asked).request)
                        connection.leave()
                        kinds["abandoned"] += 1
                    else:
                        await sound(connection, rng, 4 if drawn < INVALID + ABANDONED + SLOW else 1)
                except NoAnswer:
                    kinds["unanswered"] += 1

    await asyncio.gather(*(client(number) for number in range(scale.mixed_clients)))
    name = "mixed clients"
    return [
        Figure(name, "clients", scale.mixed_clients, at_least=64),
        Figure(name, "seconds", scale.mixed_seconds),
        *(Figure(name, f"{kind} requests", kinds[kind]) for kind in ("sound", "slow", "invalid", "abandoned")),
        Figure(name, "sound requests answered 503 or 504", kinds["refused"]),
        Figure(name, "sound requests answered otherwise than exactly", kinds["inexact"], at_most=0),
        Figure(name, "5xx but the meant 503 and 504", kinds["unmeant"], at_most=0),
        Figure(name, "connections ended without an answer", kinds["unanswered"], at_most=0),
        Figure(name, "wrong answers to sound requests afterwards", await _wrong(server, asked), at_most=0),
    ]


async def overload(server: Server, scale: Scale, tick: Callable[[float], None]) -> list[Figure]:
    """Offer ten times what the server can do, on a clock that does not wait for answers."""
    request = await _of_length(server, ALONE_MS / 1000)
    async with _connect(server) as connection:
        unloaded = [await _timed(connection, request) for _ in range(scale.unloaded)]
    capacity = await _capacity(server, request, scale.unloaded)
    rate, total = OVERLOAD * capacity, int(OVERLOAD * capacity * scale.overload_seconds)
    accepted: list[float] = []
    shed: list[float] = []
    others = without_retry = 0
    idle: list[Connection] = []

    async def ask() -> None:
        nonlocal others, without_retry
        connection = idle.pop() if idle else _connect(server)
        began = perf_counter()
        try:
            answer = await connection.ask(request)
        except NoAnswer:
            others += 1
            return
        milliseconds = 1000 * (perf_counter() - began)
        if answer.status == 200:
            accepted.append(milliseconds)
        elif answer.status == 503:
            shed.append(milliseconds)
            without_retry += b"retry-after:" not in answer.head.lower()
        else:
            others += 1
        idle.append(connection)

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for sent in range(total):
            while (early := began + sent / rate - perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(ask())
            tick(sent / total)
            if sent % 8 == 0:
                await asyncio.sleep(0)  # a clock that is behind must not keep answers from being read
        offered = total / (perf_counter() - began)
    for connection in idle:
        connection.leave()
    alone, bound = 1000 * percentile(unloaded, 99), 1000 * OVERLOAD_QUEUE / capacity
    name = "overload"
    return [
        Figure(name, "capacity", capacity, "requests/s"),
        Figure(name, "offered, over the capacity", offered / capacity, "×", at_least=0.9 * OVERLOAD),
        Figure(name, "unloaded p99", alone, "ms"),
        Figure(name, f"the queue's bound, {OVERLOAD_QUEUE} requests at the capacity", bound, "ms"),
        Figure(name, "accepted", len(accepted), "requests"),
        Figure(name, "p99 of the accepted", percentile(accepted, 99), "ms", at_most=TIMES_UNLOADED * alone + bound),
        Figure(name, "shed", len(shed), "requests", at_least=1),
        Figure(name, "p50 of the shed", percentile(shed, 50), "ms"),
        Figure(name, "p99 of the shed", percentile(shed, 99), "ms", at_most=SHED_MS),
        Figure(name, "slowest of the shed", max(shed, default=0.0), "ms"),
        Figure(name, "shed without Retry-After", without_retry, at_most=0),
        Figure(name, "neither answered nor shed", others, at_most=0),
    ]


async def _of_length(server: Server, seconds: float) -> bytes:
    """Return a request for the heavy network that runs for as many steps as take about so long."""

    def of(time_steps: int) -> bytes:
        body = json.loads(HEAVY.body) | {"time_steps": time_steps}
        return post(f"/models/{HEAVY.name}/predict", json.dumps(body).encode())

    steps = 200
    async with _connect(server) as connection:
        took = sorted([await _timed(connection, of(steps)) for _ in range(5)])[2]
    return of(max(1, min(MOST_STEPS, round(steps * seconds / took))))


async def _timed(connection: Connection, request: bytes) -> float:
    began = perf_counter()
    answer = await connection.ask(request)
    if answer.status != 200:
        raise RuntimeError(f"the server answers {answer.status}: {answer.body.decode()}")
    return perf_counter() - began


async def _capacity(server: Server, request: bytes, requests: int) -> float:
    """Return how many such requests a second are answered where some always wait."""
    began = perf_counter()

    async def client() -> None:
        async with _connect(server) as connection:
            for _ in range(-(-requests // 4)):
                await _timed(connection, request)

    await asyncio.gather(*(client() for _ in range(4)))
    return 4 * -(-requests // 4) / (perf_counter() - began)


async def memory(server: Server, scale: Scale, tick: Callable[[float], None]) -> list[Figure]:
    """Compare the resident memory after many requests, one in sixteen of them wrong, to that after fewer."""
    asked = questions(SMALL, 64)
    rng = random.Random(21)  # noqa: S311
    requests = [mutated(question.body, rng) if index % 16 == 0 else question.request
                for index, question in enumerate(asked)]  # fmt: skip
    done = 0
    resident: dict[int, float] = {}
    began = perf_counter()

    async def client(start: int, until: int) -> None:
        nonlocal done
        async with _connect(server) as connection:
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


def _connect(server: Server) -> Connection:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Connection(host, int(port))


PHASES = (
    Phase("hostile", ("--header-seconds", "1", "--body-seconds", "1"), hostile_requests),
    Phase("mixed", (), mixed_clients),
    Phase("overload", ("--threads", "1", "--max-queue", str(OVERLOAD_QUEUE)), overload),
    Phase("memory", (), memory),
)
