"""The five soaks by their names, each with what its server is told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from benchmarks.serving.processes import Server
from benchmarks.soak.abuse import hostile_requests
from benchmarks.soak.crowd import crowd
from benchmarks.soak.figures import Figure
from benchmarks.soak.memory import memory
from benchmarks.soak.mixed import mixed_clients
from benchmarks.soak.overload import OVERLOAD_QUEUE, overload
from benchmarks.soak.pipelined import pipelined
from benchmarks.soak.scale import Scale, Tick


class Phase(NamedTuple):
    """A soak: its name, the flags of its server and what it does to it."""

    name: str
    flags: Sequence[str]
    run: Callable[[Server, Scale, Tick], Coroutine[Any, Any, list[Figure]]]


PHASES = (
    Phase("hostile", ("--header-seconds", "1", "--body-seconds", "1"), hostile_requests),
    Phase("mixed", (), mixed_clients),
    Phase("overload", ("--threads", "1", "--max-queue", str(OVERLOAD_QUEUE)), overload),
    Phase("memory", (), memory),
    Phase("pipelined", (), pipelined),
    Phase("crowd", (), crowd),
)
