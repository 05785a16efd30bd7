"""How fast the engines are, side by side with others: `./scripts/bench`, or `python -m benchmarks.engines`.

Everyone runs the same weights on the same inputs. The counts of all are compared before anyone is timed; then they take
turns. A contestant is prepared outside the time: its weights and inputs lie as it likes them, and it is compiled. A run
goes from those inputs to counts in a NumPy array.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.cases import build
from benchmarks.contestants import CONTESTANTS
from benchmarks.limit import additions_per_second
from benchmarks.machine import machine
from benchmarks.measure import FULL, QUICK, Figure, measure
from benchmarks.workers import Worker
from benchmarks.workloads import WORKLOADS, Workload

BATCHES, QUICK_BATCHES = (1, 32, 256), (1, 32)
THREADS = (1, 2)
PACKAGES = (
    "numba",
    "onnxruntime",
    "torch",
    "snntorch",
    "spikingjelly",
    "norse",
    "sinabs",
    "jax",
    "jaxpike",
    "brainevent",
)
WIDTH = 120  # of what is written where there is no terminal


def main(
    output: Annotated[Path | None, typer.Option("--json", help="Write a list of the figures to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer cases and turns: under two minutes.")] = False,
    workload: Annotated[list[str] | None, typer.Option(help="Only this workload; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Only this batch size; may be repeated.")] = None,
    bits: Annotated[int | None, typer.Option(min=2, max=8, help="Round weights to so many bits.")] = None,
    contestant: Annotated[list[str] | None, typer.Option(help="Only this contestant; may be repeated.")] = None,
) -> None:
    """Measure our engines beside other libraries on the same networks and inputs."""
    names = contestant or list(CONTESTANTS)
    if unknown := set(names) - set(CONTESTANTS):
        sys.exit(f"error: --contestant is '{min(unknown)}', expected one of {', '.join(CONTESTANTS)}")
    known = {work.name: work for work in WORKLOADS}
    if unknown := set(workload or ()) - known.keys():
        sys.exit(f"error: --workload is '{min(unknown)}', expected one of {', '.join(known)}")
    batches = tuple(batch or (QUICK_BATCHES if quick else BATCHES))
    if min(batches) < 1:
        sys.exit(f"error: --batch is {min(batches)}, expected at least 1")
    # --quick leaves out workloads without quick activities, unless they are asked for by name.
    chosen = [known[name] for name in workload or [work.name for work in WORKLOADS if work.quick or not quick]]
    figures, rate = _measure(chosen, batches, names, quick, bits)
    console = _console()
    console.print(report.activity_table(figures), report.figures_table(figures, rate))
    for size in batches:
        ratios = report.ratios_table(figures, size)
        console.print(ratios if ratios is not None else f"Batch {size}: 'event' did not run, so there is no ratio.")
    if rate is not None:
        console.print(f"The limit: one core adds {rate / 1e9:.1f} billion float32 a second, in rows from its L2 cache.")
    console.print(machine(PACKAGES))
    if output:
        output.write_text(json.dumps([_row(figure, rate) for figure in figures], indent=1) + "\n")


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


def _measure(
    workloads: list[Workload], batches: tuple[int, ...], names: list[str], quick: bool, bits: int | None
) -> tuple[list[Figure], float | None]:
    """Run the cases and return the figures, and a core's vector additions per second."""
    progress, figures, told = _console(stderr=True), list[Figure](), set[tuple[str, str]]()
    rate = additions_per_second()
    workers = [Worker(threads) for threads in THREADS if threads <= (os.cpu_count() or 1)]
    try:
        for work in workloads:
            for activity in work.quick if quick and work.quick else work.activities:
                largest = build(work, activity, max(batches), bits)
                for size in batches:
                    began = time.monotonic()
                    measured = measure(largest.first(size), workers, names, QUICK if quick else FULL)
                    figures += measured.figures
                    for reason in measured.absent.items():
                        if reason not in told:
                            progress.print(f"left out: {reason[0]}: {reason[1]}")
                            told.add(reason)
                    what = f"{work.name}, {report.show_activity(activity)}, batch {size}"
                    progress.print(f"{what}: {time.monotonic() - began:.0f} s")
    finally:
        for worker in workers:
            worker.close()
    return figures, rate


def _row(figure: Figure, rate: float | None) -> dict[str, object]:
    return figure.row() | {"of_limit": None if rate is None else report.of_limit(figure, rate)}


if __name__ == "__main__":
    typer.run(main)
