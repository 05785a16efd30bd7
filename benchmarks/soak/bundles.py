"""The bundles soak: a repository full of hostile bundles, and one good model that is to serve soon, and all the while.

The bundles are the corpus of the tests, `tests.hostile_bundles`: among them loops without an end, graphs that ask for
gigabytes and specs of a kilobyte that call for terabytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.processor import children, resident_megabytes
from benchmarks.serving.processes import Server
from benchmarks.soak.client import get
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import questions
from benchmarks.soak.scale import Scale, Tick, connect
from benchmarks.soak.watch import LIVE_MILLISECONDS, watching
from tests.hostile_bundles import HostileBundle, hostile_bundles

LOAD_SECONDS, MODEL_MEGABYTES = 8, 256  # the settings of this server
BUNDLE_FLAGS = (
    *("--load-seconds", str(LOAD_SECONDS), "--max-model-bytes", str(MODEL_MEGABYTES * 2**20)),
    *("--strict-readiness", "false"),
)
READY_SECONDS = 8.0  # target: from the start until the good model answers; it waits for two of the others at most
GROWTH_MEGABYTES = 96.0  # target: the server itself, which loads the good model
EXCESS_MEGABYTES = 128.0  # target: a process that loads, over its limit; it is looked at every 20 ms
LIMIT = "max_model_bytes"  # is smaller here than usual, so that it may be met first


def chosen(scale: Scale) -> Mapping[str, HostileBundle]:
    """Return the bundles of this scale, by the names of their models."""
    every = {f"bad-{index}": each for index, each in enumerate(hostile_bundles())}
    return dict(list(every.items())[:: scale.bundles_step])


def publish_bundles(folder: Path, scale: Scale) -> None:
    """Write the good model and the hostile bundles into a repository."""
    SMALL.publish(folder)
    for name, bundle in chosen(scale).items():
        bundle.make(folder, name)


def failing(scale: Scale) -> int:
    """Return how many of the bundles are to be refused, each with a line in the log."""
    return len(chosen(scale))


async def bundles(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Wait until every bundle has loaded or failed, and ask the good model and /health/live meanwhile."""
    began = perf_counter()
    wanted = chosen(scale)
    question = questions(SMALL, 1)[0]
    loading = 0.0
    ready = before = 0.0
    good: list[float] = []

    def weigh() -> None:
        nonlocal loading
        loading = max(loading, _largest_load(server.process.pid))

    async with watching(server, weigh) as watched, connect(server) as connection:
        while True:
            asked = perf_counter()
            if (await connection.ask(question.request)).status == 200:
                good.append(1000 * (perf_counter() - asked))
                if not ready:
                    ready, before = server.ready_seconds + perf_counter() - began, server.resident_megabytes
            models = json.loads((await connection.ask(get("/models"))).body)["models"]
            found = {model["name"]: model["versions"][0] for model in models}
            left = sum(version["state"] == "loading" for version in found.values())
            tick(1 - left / len(found))
            if ready and not left:
                break
            await asyncio.sleep(0.05)
        over = perf_counter() - began
    after = server.resident_megabytes
    return [
        Figure("bundles", "hostile bundles", len(wanted)),
        Figure("bundles", "the good model is ready after", ready, "s", at_most=READY_SECONDS),
        Figure("bundles", "all others have failed after", over, "s"),
        Figure("bundles", "bundles without their sentence", _wrong(wanted, found), at_most=0),
        Figure("bundles", "live p50", percentile(watched.milliseconds, 50), "ms"),
        Figure("bundles", "live p99", percentile(watched.milliseconds, 99), "ms", at_most=LIVE_MILLISECONDS),
        Figure("bundles", "live, slowest", max(watched.milliseconds), "ms"),
        Figure("bundles", "the good model p99", percentile(good, 99), "ms"),
        Figure("bundles", "resident once the good model is ready", before, "MB"),
        Figure("bundles", "resident at most", watched.peak, "MB"),
        Figure("bundles", "resident at the end", after, "MB"),
        Figure("bundles", "growth at the peak", watched.peak - before, "MB", at_most=GROWTH_MEGABYTES),
        Figure(
            "bundles",
            "the largest load, over the process that it was forked from",
            loading,
            "MB",
            at_most=MODEL_MEGABYTES + EXCESS_MEGABYTES,
        ),
    ]


def _wrong(wanted: Mapping[str, HostileBundle], found: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many bundles did not fail with their sentence."""
    errors = {name: found[name].get("error") or "" for name in wanted}
    return sum(bundle.sentence not in errors[name] and LIMIT not in errors[name] for name, bundle in wanted.items())


def _largest_load(server: int) -> float:
    """Return by how many megabytes the largest process that loads exceeds the fork server; 0 where none loads."""
    loads = [
        resident_megabytes((load,)) - resident_megabytes((fork_server,))
        for fork_server in children(server)
        for watcher in children(fork_server)
        for load in children(watcher)
    ]
    return max(loads, default=0.0)
