"""The third soak: ten times the load that the server can do, on a clock that does not wait for answers."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter

from benchmarks.serving.processes import Server
from benchmarks.soak.client import Connection, NoAnswer, post
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.networks import HEAVY
from benchmarks.soak.scale import Scale, Tick, connect

ALONE_MS = 40.0  # about how long a request takes alone: so long that ten times as many leave the clients a core
MOST_STEPS = 1000
OVERLOAD = 10  # times the capacity
# A tenth of a second of work, as for clients that would not wait longer; a long queue adds up every slow moment that a
# shared machine has.
OVERLOAD_QUEUE = 4
SHED_MS = 20.0
TIMES_UNLOADED = 3


async def overload(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Offer ten times what the server can do, on a clock that does not wait for answers.

    What it can do unhurried is measured before and after, and the lesser counts, so that a neighbour who takes a core
    meanwhile is not mistaken for the queue.
    """
    request = await _of_length(server, ALONE_MS / 1000)
    unloaded = await _alone(server, request, scale.unloaded)
    capacity = await _capacity(server, request, scale.unloaded)
    rate, total = OVERLOAD * capacity, int(OVERLOAD * capacity * scale.overload_seconds)
    accepted: list[float] = []
    shed: list[float] = []
    others = without_retry = 0
    idle: list[Connection] = []

    async def ask() -> None:
        nonlocal others, without_retry
        connection = idle.pop() if idle else connect(server)
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
    unloaded += await _alone(server, request, scale.unloaded)
    afterwards = await _capacity(server, request, scale.unloaded)
    alone, bound = 1000 * percentile(unloaded, 99), 1000 * OVERLOAD_QUEUE / min(capacity, afterwards)
    name = "overload"
    return [
        Figure(name, "capacity", capacity, "requests/s"),
        Figure(name, "capacity afterwards", afterwards, "requests/s"),
        Figure(name, "offered, over the capacity", offered / capacity, "×", at_least=0.9 * OVERLOAD),
        Figure(name, "unloaded p99", alone, "ms"),
        Figure(name, f"the queue's bound, {OVERLOAD_QUEUE} requests at the capacity", bound, "ms"),
        Figure(name, "accepted", len(accepted), "requests"),
        Figure(name, "p50 of the accepted", percentile(accepted, 50), "ms"),
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
    async with connect(server) as connection:
        for _ in range(3):  # times do not grow quite as steps do
            took = sorted([await _timed(connection, of(steps)) for _ in range(5)])[2]
            steps = max(1, min(MOST_STEPS, round(steps * seconds / took)))
    return of(steps)


async def _alone(server: Server, request: bytes, requests: int) -> list[float]:
    """Return the seconds that such requests take, one after the other."""
    async with connect(server) as connection:
        return [await _timed(connection, request) for _ in range(requests)]


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
        async with connect(server) as connection:
            for _ in range(-(-requests // 4)):
                await _timed(connection, request)

    await asyncio.gather(*(client() for _ in range(4)))
    return 4 * -(-requests // 4) / (perf_counter() - began)
