"""Measure one application, the service's own, on several HTTP servers: what the choice of the server costs.

    pip install granian
    python -m benchmarks.serving.servers --seconds 2 --rounds 10

needs `wrk` (Debian's package) on PATH. All servers run one process on asyncio's loop and serve the small network of
`benchmarks.serving`; all but the one that is measured are stopped meanwhile. Each figure is the best of the rounds, and
CPU is the server's processor time for one request, which depends least on what else the machine does.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.__main__ import CONNECTIONS, started
from benchmarks.serving.contestants import Contestant, installed
from benchmarks.serving.load import Load, load
from benchmarks.serving.networks import NETWORKS
from benchmarks.serving.protocols import NATIVE

APPLICATION = "benchmarks.serving.peers.same_app:application"
UVICORN = (
    *("--factory", APPLICATION, "--port", "{port}", "--loop", "asyncio", "--ws", "none"),
    *("--no-access-log", "--no-server-header", "--log-level", "warning"),
)
GRANIAN = (
    *("--factory", APPLICATION, "--port", "{port}", "--loop", "asyncio", "--no-ws"),
    *("--interface", "asgi", "--http", "1", "--workers", "1", "--no-log"),
)
OURS = Contestant("ours", "uvicorn", NATIVE, "service", ("--port", "{port}", "--repository", "{repository}"))
ENTRANTS = (
    OURS,
    Contestant("uvicorn", "httptools", NATIVE, "uvicorn", (*UVICORN, "--http", "httptools")),
    Contestant("uvicorn", "h11", NATIVE, "uvicorn", (*UVICORN, "--http", "h11"), ("h11",)),
    Contestant("uvicorn", "zttp", NATIVE, "uvicorn", (*UVICORN, "--http", "zttp"), ("zttp",)),
    Contestant("granian", "", NATIVE, "granian", GRANIAN, ("granian",)),
)


@dataclass(frozen=True)
class Round:
    """One load on one server, and the processor time that the server used for each request, in microseconds."""

    load: Load
    cpu_microseconds: float


def measure(repository: Path, seconds: int, rounds: int) -> dict[tuple[int, Contestant], list[Round]]:
    """Return the rounds by the number of connections and the server."""
    os.environ["SPIKESERVE_REPOSITORY"] = str(repository)
    served = NETWORKS[0]
    measured: dict[tuple[int, Contestant], list[Round]] = {}
    with started(served, installed(ENTRANTS), repository) as servers:
        for number in range(rounds + 1):
            for connections in CONNECTIONS:
                for each, server in servers.items():
                    url, body = server.url + each.protocol.path_of(served), each.protocol.body(served)
                    with server.awake():
                        before = server.cpu_seconds
                        found = load(url, body, connections, seconds)
                        cpu_seconds = server.cpu_seconds - before
                    answered = found.requests_per_second * seconds
                    if number > 0:  # the first warms up
                        one = Round(found, 1e6 * cpu_seconds / answered)
                        measured.setdefault((connections, each), []).append(one)
    return measured


def main(
    seconds: Annotated[int, typer.Option(help="Seconds of load for each server, connections and round.")] = 2,
    rounds: Annotated[int, typer.Option(help="How often to go through all; the best counts.")] = 10,
) -> None:
    """Measure every server that is installed."""
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), seconds, rounds)
    shown = Table("connections", "server", "requests/s", "p50 ms", "p99 ms", "CPU µs", "errors")
    for (connections, each), found in measured.items():
        shown.add_row(
            str(connections),
            each.title,
            f"{max(one.load.requests_per_second for one in found):.0f}",
            f"{min(one.load.p50_ms for one in found):.2f}",
            f"{min(one.load.p99_ms for one in found):.2f}",
            f"{min(one.cpu_microseconds for one in found):.0f}",
            str(sum(one.load.errors for one in found)),
        )
    Console(width=100).print(shown)


if __name__ == "__main__":
    typer.run(main)
