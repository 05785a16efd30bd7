"""Measure the service beside LitServe, MLServer, a plain FastAPI endpoint and a constant answer, all in one run.

    ./scripts/bench-serving --seconds 4 --rounds 2 --json serving.json

needs `wrk` (Debian's package) on PATH, and installs what else it needs. Every contestant serves the same weights and
must give the same spike counts. MLServer speaks the Open Inference Protocol v2 only, and so ours is measured over that
too. All of them are up at once, all but the one that is measured held still, and rounds go through
them in turn, so that a slow moment of the machine meets all alike; of several rounds the median counts. The load comes
from the same machine and shares its cores.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.contestants import FLOOR, LITSERVE, MLSERVER, OURS, Contestant, contestants, installed
from benchmarks.serving.load import Load, load
from benchmarks.serving.networks import NETWORKS, TIME_STEPS, Served
from benchmarks.serving.processes import Server, ask, free_port, running
from benchmarks.serving.protocols import NATIVE

CONNECTIONS = (1, 16, 64)
WIDTH = 140  # of the tables, also where there is no terminal
P50_MS = 0.7  # of the small network at one connection


@dataclass(frozen=True)
class Comparison:
    """A column of the table: how many times as fast a row is as the best setting of a server of the same protocol."""

    title: str
    server: str
    form: str
    target: float | None = None  # for ours


COMPARISONS = (
    Comparison("× LitServe", LITSERVE, "{:.1f}", 5.0),
    Comparison("× MLServer", MLSERVER, "{:.1f}"),
    Comparison("of floor", FLOOR, "{:.0%}", 0.6),
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a contestant at a number of connections."""

    model: str
    contestant: str
    server: str
    protocol: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    ready_seconds: float
    resident_megabytes: float


@contextmanager
def started(served: Served, entrants: Sequence[Contestant], repository: Path) -> Iterator[Mapping[Contestant, Server]]:
    """Start every contestant on one model, held still once it has answered.

    Raises RuntimeError where one does not start or gives other spike counts than it should.
    """
    counts = served.publish(repository)
    first = b""
    with ExitStack() as stack:
        servers: dict[Contestant, Server] = {}
        for each in entrants:
            port = free_port()
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            path, body = each.protocol.path_of(served), each.protocol.body(served)
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            command = each.command(served, repository, port, scratch, first)
            server = stack.enter_context(running(command, port, log, path, body))
            with server.awake():
                answer = ask(server.url + path, body)
            if each.protocol.counts(answer) != counts:
                raise RuntimeError(f"{each.title} answers {answer.decode()}, expected the counts {counts}")
            first = first or answer
            servers[each] = server
        yield servers


def measure(served: Served, entrants: Sequence[Contestant], repository: Path, seconds: int, rounds: int) -> list[Row]:
    """Start every contestant on one model, compare their answers, and measure each in turn."""
    with started(served, entrants, repository) as servers:

        def put_under_load(each: Contestant, connections: int, seconds: int) -> Load:
            server, protocol = servers[each], each.protocol
            with server.awake():
                return load(server.url + protocol.path_of(served), protocol.body(served), connections, seconds)

        for each in servers:
            put_under_load(each, 1, 1)  # let it find its pace
        loads: dict[tuple[Contestant, int], list[Load]] = {}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for each in servers:
                    loads.setdefault((each, connections), []).append(put_under_load(each, connections, seconds))
        return [
            Row(
                served.title,
                each.title,
                each.server,
                each.protocol.title,
                connections,
                requests_per_second=median(found.requests_per_second for found in of_each),
                p50_ms=median(found.p50_ms for found in of_each),
                p99_ms=median(found.p99_ms for found in of_each),
                errors=sum(found.errors for found in of_each),
                ready_seconds=servers[each].ready_seconds,
                resident_megabytes=servers[each].resident_megabytes,
            )
            for (each, connections), of_each in loads.items()
        ]


def table(served: Served, rows: Sequence[Row]) -> Table:
    """Return a model's rows with their ratios to others' best settings; ours against the targets."""
    ratios = [comparison.title for comparison in COMPARISONS]
    shown = Table(
        *("connections", "contestant", "requests/s", "p50 ms", "p99 ms", *ratios, "errors"),
        title=f"{served.title}, {TIME_STEPS} steps; {os.cpu_count()} cores, shared with wrk",
    )
    for connections in CONNECTIONS:
        group = [row for row in rows if (row.model, row.connections) == (served.title, connections)]
        for row in sorted(group, key=lambda row: -row.requests_per_second):
            is_ours = (row.server, row.protocol) == (OURS, NATIVE.title)
            p50_is_target = is_ours and served is NETWORKS[0] and connections == 1
            shown.add_row(
                str(row.connections),
                row.contestant,
                f"{row.requests_per_second:.0f}",
                _judged(f"{row.p50_ms:.2f}", row.p50_ms < P50_MS if p50_is_target else None),
                f"{row.p99_ms:.2f}",
                *(_ratio(row, group, comparison) for comparison in COMPARISONS),
                str(row.errors),
            )
        shown.add_section()
    return shown


def _ratio(row: Row, group: Sequence[Row], comparison: Comparison) -> str:
    others = [
        each.requests_per_second for each in group if (each.server, each.protocol) == (comparison.server, row.protocol)
    ]
    if not others:
        return "–"
    ratio = row.requests_per_second / max(others)
    target = comparison.target if row.server == OURS else None
    return _judged(comparison.form.format(ratio), None if target is None else ratio >= target)


def _judged(text: str, met: bool | None) -> str:
    return text if met is None else f"{text} {'met' if met else 'missed'}"


def main(
    seconds: Annotated[int, typer.Option(help="Seconds of load for each contestant, connections and round.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often to go through all; the median counts.")] = 3,
    engine: Annotated[str, typer.Option(help="The service's engine.")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")] = None,
) -> None:
    """Measure every contestant that is installed, on both models."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; on Debian: apt-get install wrk")
    entrants = installed(contestants(engine))
    rows: list[Row] = []
    for served in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(served, entrants, Path(folder), seconds, rounds)
    console = Console(width=WIDTH)
    for served in NETWORKS:
        console.print(table(served, rows))
    targets = [
        f"{each.title} at least {each.form.format(each.target)}" for each in COMPARISONS if each.target is not None
    ]
    console.print(
        f"Each ratio is to the best setting of that server over the same protocol. Targets: {', '.join(targets)}, and "
        f"for the small model a p50 below {P50_MS} ms at one connection."
    )
    for row in rows:
        if row.connections == CONNECTIONS[0]:
            console.print(
                f"{row.model}, {row.contestant}: start to ready {row.ready_seconds:.2f} s, "
                f"resident memory {row.resident_megabytes:.0f} MB",
                highlight=False,
            )
    if output:
        output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
