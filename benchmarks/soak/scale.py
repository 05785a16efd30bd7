"""How much of everything a soak does, and what each of its phases is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving.processes import Server
from benchmarks.soak.client import Connection

Tick = Callable[[float], None]  # is told which part of a phase is done
CONNECTIONS = 32
MEANT = frozenset({503, 504})  # the only 5xx that the service means


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
    pipelined_seconds: float  # for each attack
    crowd_first: float  # seconds with one client of each kind, which warm the server up
    crowd_seconds: float
    crowd_settles: float  # seconds after a mix, before the memory is read


FULL = Scale(12_000, 60, 64, 200, 20, 20_000, 200_000, 5, 10, 30, 30)
QUICK = Scale(3_500, 4, 64, 50, 3, 2_000, 6_000, 1, 4, 6, 5)


def connect(server: Server) -> Connection:
    """Return a client's connection to a server, not yet opened."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Connection(host, int(port))
