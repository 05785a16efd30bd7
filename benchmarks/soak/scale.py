"""How much of everything a soak does, and what each of its phases is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving.processes import Server
from benchmarks.soak.client import Connection

Tick = Callable[[float], None]  # gets the part of a phase that is done
CONNECTIONS = 32
MEANT = frozenset({503, 504})  # the only 5xx that the service means


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    hostile: int
    documented: int  # requests for each operation of the document
    mixed_seconds: float
    mixed_clients: int
    unloaded: int
    overload_seconds: float
    memory_first: int
    memory_last: int
    pipelining_seconds: float  # for each attack
    bundles_step: int  # of the hostile bundles, every how manieth is loaded
    answers_seconds: float
    answers_settles: float  # seconds after the last answer, before the memory is read
    fairness_first: float  # seconds with one client of each kind, which warm the server up
    fairness_seconds: float
    fairness_settles: float  # seconds after a mix, before the memory is read
    live_seconds: float


FULL = Scale(
    hostile=12_000,
    documented=100,
    mixed_seconds=60,
    mixed_clients=64,
    unloaded=200,
    overload_seconds=20,
    memory_first=20_000,
    memory_last=200_000,
    pipelining_seconds=5,
    bundles_step=1,
    answers_seconds=20,
    answers_settles=30,
    fairness_first=10,
    fairness_seconds=30,
    fairness_settles=30,
    live_seconds=60,
)
QUICK = Scale(
    hostile=1_000,
    documented=4,
    mixed_seconds=4,
    mixed_clients=64,
    unloaded=50,
    overload_seconds=3,
    memory_first=2_000,
    memory_last=6_000,
    pipelining_seconds=1,
    bundles_step=8,
    answers_seconds=4,
    answers_settles=10,
    fairness_first=4,
    fairness_seconds=6,
    fairness_settles=5,
    live_seconds=10,
)


def connect(server: Server) -> Connection:
    """Return a client's connection to a server, not yet opened."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Connection(host, int(port))
