"""The fairness soak: how long small requests wait beside clients whose requests are large, and what memory stays held.

The small ones and the large ones are asked by processes of their own, so that a client that reads megabytes does not
delay one that takes the time. Tiny requests are short enough to be answered on the server's event loop; short ones, of
a model of many steps, go through its threads.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.processes import Server
from benchmarks.soak.client import NoAnswer, get, post
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.scale import Scale, Tick, connect
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository

DIGITS, BRAILLE = "digits", "braille"
TINY_MILLISECONDS, HEALTH_MILLISECONDS = 60.0, 30.0  # targets: the 99th percentile, on two cores
GROWTH_PERCENT = 20.0  # target: the memory some time after the crowd has left, beside that before it came
HEALTH_PAUSE = 0.02  # seconds between two questions after the server's health
SAMPLES, RECORDED_SAMPLES = 1000, 36  # of a large request, and of one that asks for rasters
RASTER_SAMPLES = 600  # of a request whose body is long: a raster of each takes 6 kB as JSON
TIMEOUT = {"X-Request-Timeout-Ms": "30000"}


class Crowd(NamedTuple):
    """Clients of one kind: how many, what they ask, how many samples that is and the pause between two requests."""

    kind: str
    clients: int
    request: bytes
    samples: int = 1
    pause: float = 0.0


class Seen(NamedTuple):
    """What came of the requests of one kind: the seconds to each answer of status 200, and how many were refused."""

    kind: str
    seconds: list[float]
    refused: int
    unanswered: int


def crowds() -> tuple[list[Crowd], list[Crowd]]:
    """Return the kinds of clients: those whose requests are small, and those whose requests are large."""
    rng = np.random.default_rng(64)

    def images(samples: int) -> list[Any]:
        drawn: list[Any] = rng.integers(0, 17, (samples, 64)).tolist()
        return drawn

    letter = ModelRepository(PRETRAINED).read(BRAILLE, 1).sample.steps  # (time_steps, 1, inputs)
    t, unit = letter.reshape(len(letter), -1).nonzero()
    events = {"t": t.tolist(), "unit": unit.tolist()}
    raster = letter.reshape(len(letter), -1).astype(int).tolist()
    small = [
        Crowd("tiny", 32, _predict(DIGITS, images(1))),
        Crowd("short", 8, _predict(BRAILLE, [events])),
        Crowd("health", 1, get("/health/live"), pause=HEALTH_PAUSE),
    ]
    large = [
        Crowd("bulk", 24, _predict(DIGITS, images(SAMPLES)), SAMPLES),
        Crowd("raster", 24, _predict(DIGITS, images(RECORDED_SAMPLES), ["raster"]), RECORDED_SAMPLES),
        Crowd("megabytes", 6, _predict(BRAILLE, [raster] * RASTER_SAMPLES), RASTER_SAMPLES),
    ]
    return small, large


def _predict(model: str, inputs: list[Any], returned: Sequence[str] = ()) -> bytes:
    body: dict[str, Any] = {"inputs": inputs} | ({"return": list(returned)} if returned else {})
    return post(f"/models/{model}/predict", json.dumps(body).encode(), TIMEOUT)


def ask(server: Server, kinds: Sequence[Crowd], seconds: float) -> list[Seen]:
    """Ask with every client of these kinds for so many seconds; called in a process of its own."""
    return asyncio.run(_ask(server, kinds, seconds))


async def _ask(server: Server, kinds: Sequence[Crowd], seconds: float) -> list[Seen]:
    until = perf_counter() + seconds

    async def client(crowd: Crowd) -> tuple[list[float], int, int]:
        taken: list[float] = []
        refused = unanswered = 0
        async with connect(server) as connection:
            while (began := perf_counter()) < until:
                try:
                    answer = await connection.ask(crowd.request)
                except NoAnswer:
                    unanswered += 1
                    continue
                if answer.status == 200:
                    taken.append(perf_counter() - began)
                else:
                    refused += 1
                await asyncio.sleep(crowd.pause if answer.status == 200 else 1.0)  # as Retry-After says
        return taken, refused, unanswered

    async def all_of(crowd: Crowd) -> Seen:
        clients = await asyncio.gather(*(client(crowd) for _ in range(crowd.clients)))
        seconds = [each for taken, _, _ in clients for each in taken]
        return Seen(crowd.kind, seconds, sum(each[1] for each in clients), sum(each[2] for each in clients))

    return await asyncio.gather(*(all_of(crowd) for crowd in kinds))


async def fairness(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Ask small and large requests side by side, wait, and compare the memory with that before."""
    small, large = crowds()
    remote = Server(server.url, None, 0.0)  # type: ignore[arg-type]  # a process cannot be handed to another
    loop = asyncio.get_running_loop()
    curve: list[tuple[float, float]] = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as clients:

        async def mix(kinds: Sequence[Sequence[Crowd]], seconds: float) -> list[Seen]:
            asked = [loop.run_in_executor(clients, ask, remote, each, seconds) for each in kinds]
            return [each for seen in await asyncio.gather(*asked) for each in seen]

        await mix([[each._replace(clients=1) for each in kinds] for kinds in (small, large)], scale.fairness_first)
        await asyncio.sleep(scale.fairness_settles)
        before = server.resident_megabytes
        began = perf_counter()

        async def watch() -> None:
            whole = scale.fairness_seconds + scale.fairness_settles
            while True:
                curve.append((perf_counter() - began, server.resident_megabytes))
                tick(min(1.0, curve[-1][0] / whole))
                await asyncio.sleep(0.25)

        watching = asyncio.create_task(watch())
        seen = await mix((small, large), scale.fairness_seconds)
        ended = perf_counter() - began
        await asyncio.sleep(scale.fairness_settles)
        watching.cancel()
    after = server.resident_megabytes
    return [
        *_figures(seen, {each.kind: each for each in (*small, *large)}, scale),
        *_memory(before, after, ended, curve),
    ]


def _figures(seen: Sequence[Seen], kinds: dict[str, Crowd], scale: Scale) -> Iterator[Figure]:
    targets = {"tiny": TINY_MILLISECONDS, "health": HEALTH_MILLISECONDS}
    for each in seen:
        milliseconds = [1000 * seconds for seconds in each.seconds]
        rate = len(milliseconds) / scale.fairness_seconds
        yield Figure("fairness", f"{each.kind} p50", percentile(milliseconds, 50), "ms")
        yield Figure("fairness", f"{each.kind} p99", percentile(milliseconds, 99), "ms", at_most=targets.get(each.kind))
        yield Figure("fairness", f"{each.kind} requests/s", rate)
        if kinds[each.kind].samples > 1:
            yield Figure("fairness", f"{each.kind} samples/s", rate * kinds[each.kind].samples)
        yield Figure("fairness", f"{each.kind} refused", each.refused)
        yield Figure("fairness", f"{each.kind} without an answer", each.unanswered, at_most=0)


def _memory(before: float, after: float, ended: float, curve: Sequence[tuple[float, float]]) -> Iterator[Figure]:
    yield Figure("fairness", "resident before", before, "MB")
    yield Figure("fairness", "resident at most", max(megabytes for _, megabytes in curve), "MB")
    for seconds in (0.0, 2.0, 5.0, 10.0):
        later = [megabytes for at, megabytes in curve if at >= ended + seconds]
        if later:
            yield Figure("fairness", f"resident {seconds:g} s after", later[0], "MB")
    yield Figure("fairness", "resident at the end", after, "MB")
    yield Figure("fairness", "growth", 100 * (after / before - 1), "%", at_most=GROWTH_PERCENT)
