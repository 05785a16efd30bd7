"""The soaks by their names, each with its server's flags and models."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.serving.processes import Server
from benchmarks.soak.abuse import hostile_requests
from benchmarks.soak.answers import answers, publish_labels
from benchmarks.soak.bodies import bodies, publish_bodies
from benchmarks.soak.bundles import BUNDLE_FLAGS, bundles, failing, publish_bundles
from benchmarks.soak.fairness import fairness
from benchmarks.soak.figures import Figure
from benchmarks.soak.live import LIVE_FLAGS, live, publish_streamed
from benchmarks.soak.memory import memory
from benchmarks.soak.mixed import mixed_clients
from benchmarks.soak.overload import OVERLOAD_QUEUE, overload
from benchmarks.soak.pipelining import pipelining
from benchmarks.soak.scale import Scale, Tick


class Phase(NamedTuple):
    """A soak: its name, the flags of its server and what it does to it.

    `publish` writes the models that it serves where these are not the usual ones. `until` is the path that answers once
    it begins, and `errors` the number of errors that the server is to log.
    """

    name: str
    flags: Sequence[str]
    run: Callable[[Server, Scale, Tick], Coroutine[Any, Any, list[Figure]]]
    publish: Callable[[Path, Scale], None] | None = None
    until: str = "/health/ready"
    errors: Callable[[Scale], int] = lambda _: 0


PHASES = (
    Phase("hostile", ("--client-seconds", "1"), hostile_requests),
    Phase("bodies", ("--client-seconds", "1"), bodies, publish_bodies),
    Phase("mixed", (), mixed_clients),
    Phase("overload", ("--threads", "1", "--max-queue", str(OVERLOAD_QUEUE)), overload),
    Phase("memory", (), memory),
    Phase("pipelining", (), pipelining),
    Phase("bundles", BUNDLE_FLAGS, bundles, publish_bundles, "/health/live", failing),
    Phase("answers", (), answers, publish_labels),
    Phase("fairness", (), fairness),
    Phase("live", LIVE_FLAGS, live, publish_streamed),
)
