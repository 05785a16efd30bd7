"""Measure the service beside LitServe, a plain FastAPI endpoint and a constant answer, all in one run.

    python -m benchmarks.serving --seconds 4 --rounds 2 --json serving.json

needs `wrk` (Debian's package) on PATH and the extra `bench`. Every contestant serves the same weights and must give
the same spike counts. All of them are up at once, all but the one that is measured held still, and rounds go through
them in turn, so that a slow moment of the machine meets all alike; of several rounds the median counts. The load comes
from the same machine and shares its cores.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.contestants import Contestant, contestants, installed
from benchmarks.serving.load import Load, load
from benchmarks.serving.networks import NETWORKS, TIME_STEPS, Served
from benchmarks.serving.processes import Server, ask, running

CONNECTIONS = (1, 16, 64)
TIMES_LITSERVE = 5.0
OF_FLOOR = 0.6
WIDTH = 130  # of the tables, also where there is no terminal
P50_MS = 0.7  # of the small network at one connection


@dataclass(frozen=True)
class Row:
    """One line of the table: a contestant at a number of connections."""

    model: str
    contestant: str
    kind: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    ready_seconds: float
    resident_megabytes: float


def measure(served: Served, entrants: Sequence[Contestant], repository: Path, seconds: int, rounds: int) -> list[Row]:
    """Start every contestant on one model, compare their answers, and measure each in turn."""
    counts = served.publish(repository)
    answer_bytes = 0
    with ExitStack() as stack:
        servers: dict[Contestant, Server] = {}
        for each in entrants:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            arguments = each.command(served, repository, answer_bytes)
            ready = ("/health/ready", None) if each.kind == "ours" else (each.path(served), served.body)
            server = stack.enter_context(running(each.module, arguments, log, *ready))
            with server.awake():
                answer = ask(server.url + each.path(served), served.body)
                load(server.url + each.path(served), served.body, 1, 1)  # let it find its pace
            if each.kind == "ours":
                answer_bytes = len(answer)
            if each.kind != "floor" and json.loads(answer)["predictions"][0]["spike_counts"] != counts:
                raise RuntimeError(f"{each.title} answers {answer.decode()}, expected the counts {counts}")
            servers[each] = server
        loads: dict[tuple[Contestant, int], list[Load]] = {}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for each, server in servers.items():
                    with server.awake():
                        found = load(server.url + each.path(served), served.body, connections, seconds)
                    loads.setdefault((each, connections), []).append(found)
        return [
            Row(
                served.title,
                each.title,
                each.kind,
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
    """Return a model's rows with their ratios to LitServe's best setting and the floor; ours against the targets."""
    shown = Table(
        *("connections", "contestant", "requests/s", "p50 ms", "p99 ms", "× LitServe", "of floor", "errors"),
        title=f"{served.title}, {TIME_STEPS} steps; {os.cpu_count()} cores, shared with wrk",
    )
    for connections in CONNECTIONS:
        group = [row for row in rows if (row.model, row.connections) == (served.title, connections)]
        best = {
            kind: max((row.requests_per_second for row in group if row.kind == kind), default=None)
            for kind in ("litserve", "floor")
        }
        for row in sorted(group, key=lambda row: -row.requests_per_second):
            p50_is_target = row.kind == "ours" and served is NETWORKS[0] and connections == 1
            shown.add_row(
                str(row.connections),
                row.contestant,
                f"{row.requests_per_second:.0f}",
                _judged(f"{row.p50_ms:.2f}", row.p50_ms < P50_MS if p50_is_target else None),
                f"{row.p99_ms:.2f}",
                _ratio(row, best["litserve"], TIMES_LITSERVE, "{:.1f}"),
                _ratio(row, best["floor"], OF_FLOOR, "{:.0%}"),
                str(row.errors),
            )
        shown.add_section()
    return shown


def _ratio(row: Row, other: float | None, target: float, form: str) -> str:
    if other is None:
        return "–"
    ratio = row.requests_per_second / other
    return _judged(form.format(ratio), ratio >= target if row.kind == "ours" else None)


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
    console.print(
        f"Targets: {TIMES_LITSERVE:g} × LitServe's best setting, {OF_FLOOR:.0%} of the floor, and for the small model "
        f"a p50 below {P50_MS} ms at one connection."
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
