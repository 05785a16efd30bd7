"""The answers soak: answers too long to be given, and many of the longest that are, all at once.

They are read by a process of its own, so that megabytes delay no clock.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.serving.processes import Server
from benchmarks.soak.client import NoAnswer, post
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.networks import SMALL
from benchmarks.soak.scale import Scale, Tick, connect
from benchmarks.soak.watch import LIVE_MILLISECONDS, watching
from benchmarks.workloads import drawn, linear, stack
from tests.bundles import publish

NAME = "labels"
LABELS, INPUTS = 10_000, 4
TOO_MANY, SAMPLES = 1024, 64  # samples: an answer for the first would take 800 MB, one for the second takes 17
CLIENTS = 40  # so many of these answers take more than the budget of 512 MiB
REFUSED_MILLISECONDS = 100.0  # target: the 99th percentile of the refusals
GROWTH_PERCENT = 20.0  # target: the memory some time after the clients have left, beside that before they came
PEAK_MEGABYTES = 768.0  # target: what is held at most, beside that before: the budget, and half as much again


def publish_labels(folder: Path, _: Scale) -> None:
    """Write the small model and one of many labels into a repository."""
    SMALL.publish(folder)
    nodes = (linear(INPUTS, LABELS), {"type": "LIF", "decay": 0.5})
    spec = stack({"shape": [INPUTS], "high": 16, "scale": 1 / 16}, nodes, time_steps=8)
    publish(folder, drawn(spec, LABELS, deviation=0.5), NAME)


def _request(samples: int) -> bytes:
    rng = np.random.default_rng(samples)
    body = {"inputs": rng.integers(0, 17, (samples, INPUTS)).tolist()}
    return post(f"/models/{NAME}/predict", json.dumps(body).encode(), {"X-Request-Timeout-Ms": "30000"})


def ask(server: Server, clients: int, seconds: float) -> tuple[Counter[int], int]:
    """Ask for long answers with so many clients at once; return how many had which status, and the longest's bytes.

    It is called in a process of its own. No answer counts as status 0.
    """
    request = _request(SAMPLES)
    statuses: Counter[int] = Counter()
    longest = 0
    until = perf_counter() + seconds

    async def client() -> None:
        nonlocal longest
        async with connect(server) as connection:
            while perf_counter() < until:
                try:
                    answer = await connection.ask(request)
                except NoAnswer:
                    statuses[0] += 1
                    continue
                statuses[answer.status] += 1
                longest = max(longest, len(answer.body))
                await asyncio.sleep(0 if answer.status == 200 else 1)  # as Retry-After says

    async def every() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(every())
    return statuses, longest


async def answers(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Ask for what is refused, then for many long answers at once, and compare the memory with that before."""
    refused, otherwise = await _too_long(server)
    tick(0.1)
    remote = Server(server.url, None, 0.0)  # type: ignore[arg-type]  # a process cannot be handed to another
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as clients:
        await loop.run_in_executor(clients, ask, remote, 2, 2.0)  # what the first answers import and compile
        await asyncio.sleep(2)
        before = server.resident_megabytes
        async with watching(server) as watched:
            statuses, longest = await loop.run_in_executor(clients, ask, remote, CLIENTS, scale.answers_seconds)
    tick(0.6)
    await asyncio.sleep(scale.answers_settles)
    after = server.resident_megabytes
    meant = statuses[200] + statuses[503]
    return [
        Figure("answers", "too long: p50 of the refusals", percentile(refused, 50), "ms"),
        Figure("answers", "too long: p99", percentile(refused, 99), "ms", at_most=REFUSED_MILLISECONDS),
        Figure("answers", "too long: answered otherwise than 413", otherwise, at_most=0),
        Figure("answers", "clients at once", CLIENTS),
        Figure("answers", "the longest answer", longest / 1e6, "MB", at_least=15),
        Figure("answers", "answered 200", statuses[200], at_least=1),
        Figure("answers", "answered 503", statuses[503]),
        Figure("answers", "answered otherwise, or not", statuses.total() - meant, at_most=0),
        Figure("answers", "live p50", percentile(watched.milliseconds, 50), "ms"),
        Figure("answers", "live p99", percentile(watched.milliseconds, 99), "ms", at_most=LIVE_MILLISECONDS),
        Figure("answers", "live, slowest", max(watched.milliseconds), "ms"),
        Figure("answers", "resident before", before, "MB"),
        Figure("answers", "resident at most", watched.peak, "MB", at_most=before + PEAK_MEGABYTES),
        Figure("answers", f"resident {scale.answers_settles:g} s after", after, "MB"),
        Figure("answers", "growth", 100 * (after / before - 1), "%", at_most=GROWTH_PERCENT),
    ]


async def _too_long(server: Server) -> tuple[list[float], int]:
    """Return the milliseconds of refusals of an answer that would be too long, and how many were no refusals."""
    request = _request(TOO_MANY)
    milliseconds, otherwise = [], 0
    async with connect(server) as connection:
        for _ in range(200):  # so that the 99th percentile is not the first one
            began = perf_counter()
            otherwise += (await connection.ask(request)).status != 413
            milliseconds.append(1000 * (perf_counter() - began))
    return milliseconds, otherwise
