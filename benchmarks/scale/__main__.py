"""Measure one process, several workers, replicas behind HAProxy and replicas on Ray Serve: what each gives and costs.

    ./scripts/bench-scale --seconds 3 --rounds 3 --json scale.json

needs `wrk` and `haproxy` (Debian's packages) on PATH; Ray is measured where the extra ray is installed. The digits
model on the loopback, one thread of the engine in each process, in three loads: one client with one sample, whose p50
tells what a layer adds to each request; 16 clients with one sample, whose cost is that of serving; and 16 clients with
64 samples, whose cost is the engine's. Client, proxy and servers share the machine's cores, so requests a second cannot
grow with more processes than there are cores. What tells is the processor time of a request, in the servers and in what
stands between: how much of one process's work a core does in that layout is its efficiency.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.processor import between
from benchmarks.processor import seconds as processor_seconds
from benchmarks.scale.layouts import Layout, Run, layouts
from benchmarks.serving.load import load
from benchmarks.serving.processes import ask

REPLICAS = (1, 2, 4)
IMAGE = [float(value % 17) for value in range(64)]
LOADS = {  # how many clients, and how many samples each request has
    "1 client, 1 sample": (1, 1),
    "16 clients, 1 sample": (16, 1),
    "16 clients, 64 samples": (16, 64),
}
PATH = "/predict"


@dataclass(frozen=True)
class Row:
    """A layout under a load; microseconds are processor time of one request."""

    layout: str
    load: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_us: float
    between_us: float
    errors: int


def body(samples: int) -> bytes:
    """Return a request for so many images of 8×8."""
    return json.dumps({"inputs": [IMAGE] * samples}).encode()


def measure(layout: Layout, name: str, kind: str, seconds: int) -> Row:
    """Put one load on a layout that runs."""
    clients, samples = LOADS[kind]
    before = processor_seconds(layout.servers), processor_seconds(layout.between)
    found = load(layout.url + PATH, body(samples), clients, seconds)
    after = processor_seconds(layout.servers), processor_seconds(layout.between)
    requests = found.requests_per_second * seconds
    server, proxy = (1e6 * between(*each) / requests for each in zip(before, after, strict=True))
    return Row(name, kind, found.requests_per_second, found.p50_ms, found.p99_ms, server, proxy, found.errors)


def rows(found: dict[str, Run], seconds: int, rounds: int) -> list[Row]:
    """Start each layout in turn, several times, and return the median of each figure for each load.

    Raises RuntimeError where a layout answers another than the first.
    """
    taken: dict[tuple[str, str], list[Row]] = {}
    expected: dict[str, bytes] = {}
    for _ in range(rounds):
        for name, run in found.items():
            with run() as layout:
                for kind, (clients, samples) in LOADS.items():
                    answer = ask(layout.url + PATH, body(samples))
                    if answer != expected.setdefault(kind, answer):
                        raise RuntimeError(f"{name} answers {answer[:200]!r}, expected {expected[kind][:200]!r}")
                    load(layout.url + PATH, body(samples), clients, 1)  # warms up
                    taken.setdefault((name, kind), []).append(measure(layout, name, kind, seconds))
    return [_median(each) for each in taken.values()]


def _median(several: list[Row]) -> Row:
    figures = {
        field: median(getattr(row, field) for row in several)
        for field in ("requests_per_second", "p50_ms", "p99_ms", "server_us", "between_us")
    }
    return Row(several[0].layout, several[0].load, **figures, errors=sum(row.errors for row in several))


def table(measured: list[Row]) -> Table:
    """Return the rows as a person reads them, each beside one process under the same load."""
    shown = Table(
        "load", "layout", "requests/s", "p50 ms", "p99 ms", "server µs", "between µs", "efficiency of a core", "errors"
    )
    for kind in LOADS:
        some = [row for row in measured if row.load == kind]
        for row in some:
            one = some[0].server_us + some[0].between_us
            shown.add_row(
                row.load,
                row.layout,
                f"{row.requests_per_second:.0f}",
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                f"{row.server_us:.0f}",
                f"{row.between_us:.0f}",
                f"{one / (row.server_us + row.between_us):.2f}",
                str(row.errors),
            )
    return shown


def main(
    seconds: Annotated[int, typer.Option(min=1, help="How long each load takes.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="How many times all are measured.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Only layouts whose name holds this; may be repeated.")] = None,
    all_addresses: Annotated[
        bool, typer.Option(help="Also Ray with HAProxy, whose statistics any machine that reaches this one can read.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Print the table."""
    if missing := [program for program in ("wrk", "haproxy") if shutil.which(program) is None]:
        raise SystemExit(f"bench-scale needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    found = layouts(REPLICAS, all_addresses=all_addresses)
    first = next(iter(found))
    chosen = {name: run for name, run in found.items() if not only or name == first or any(o in name for o in only)}
    measured = rows(chosen, seconds, rounds)
    console = Console(width=150)
    console.print(machine(("uvicorn", "ray")))
    console.print(table(measured))
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in measured], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
