"""How fast a training step is, side by side with others: `./scripts/bench-training` or `python -m benchmarks.training`.

Everyone takes the same step: forward, cross-entropy of the spike counts, backward, AdamW, from the same weights on the
same batch. Losses and gradients are compared with those of the neurons' rule before anyone is timed; then all take
turns in one process. It prints Markdown.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.measure import FULL, QUICK, Effort
from benchmarks.training import report
from benchmarks.training.cases import build
from benchmarks.training.choose import CONTESTANTS
from benchmarks.training.learning import DIGITS, learn_all
from benchmarks.training.measure import Step, measure
from benchmarks.workers import Worker
from benchmarks.workloads import TRAINED, Workload

BATCHES, QUICK_BATCHES, CHECK_BATCHES = (32, 128), (32,), (8,)
PACKAGES = ("torch", "numba", "snntorch", "spikingjelly", "norse", "sinabs", "jax", "spyx")


def main(
    output: Annotated[Path | None, typer.Option("--json", help="Write a list of the figures to this file.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few cases and turns, and nobody under torch.compile: a minute or two.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Time nothing; fail where a loss or a gradient is not as it should be.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this workload, or only this contestant; may be repeated.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Only this batch size; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="The number of threads of every contestant.")] = 2,
) -> None:
    """Measure a training step of ours beside other libraries', and the epochs that each takes to learn digits."""
    workloads, names, learns = _chosen(only or [], quick=quick, check=check)
    batches = tuple(batch or (CHECK_BATCHES if check else QUICK_BATCHES if quick else BATCHES))
    if min(batches) < 1:
        sys.exit(f"error: --batch is {min(batches)}, expected at least 1")
    effort = None if check else QUICK if quick else FULL
    steps = _measure(workloads, batches, names, threads, effort, quick=quick)
    disagreements = [step.disagreement for step in steps if step.disagreement]
    for sentence in disagreements:
        print(f"error: {sentence}", file=sys.stderr)
    if check:
        print(report.agreement_table(steps))
        sys.exit(bool(disagreements))
    if steps:
        print(f"Medians in milliseconds, {threads} thread{'s' if threads > 1 else ''} for every contestant.\n")
        print(report.steps_table(steps), report.agreement_table(steps), sep="\n\n")
    if learns:
        torch.set_num_threads(threads)
        learners = [name for name in names if not CONTESTANTS[name].is_compiled]  # compiled it would learn the same
        title = f"{DIGITS.name}, {DIGITS.title}, {DIGITS.time_steps} steps, on samples that were held out:"
        print(f"\n{title}\n\n{report.learning_table(learn_all(learners, threads))}")
    print(f"\n{machine(PACKAGES)}")
    if output:
        output.write_text(json.dumps([step.row() for step in steps], indent=1) + "\n")


def _chosen(only: Sequence[str], *, quick: bool, check: bool) -> tuple[list[Workload], list[str], bool]:
    """Return the workloads and the contestants that `--only` leaves, and whether digits are to be learned.

    Without it, `--quick` leaves out workloads without quick activities, and both it and `--check` leave out contestants
    under torch.compile, which takes minutes for each case.
    """
    known = {work.name: work for work in TRAINED}
    if unknown := set(only) - {*known, *CONTESTANTS, DIGITS.name}:
        names = ", ".join([*known, DIGITS.name, *CONTESTANTS])
        sys.exit(f"error: --only is '{min(unknown)}', expected one of {names}")
    named = [work for work in only if work in known or work == DIGITS.name]
    workloads = (
        [known[name] for name in named if name in known]
        if named
        else [work for work in TRAINED if work.quick or not quick]
    )
    contestants = [name for name in CONTESTANTS if name in only] or [
        name for name, contestant in CONTESTANTS.items() if not (contestant.is_compiled and (quick or check))
    ]
    return workloads, contestants, DIGITS.name in named if named else not quick and not check


def _measure(
    workloads: Sequence[Workload],
    batches: Sequence[int],
    names: Sequence[str],
    threads: int,
    effort: Effort | None,
    *,
    quick: bool,
) -> list[Step]:
    progress, steps, told = Console(stderr=True, highlight=False), list[Step](), set[str]()
    if not workloads:
        return steps
    if threads > (os.cpu_count() or 1):
        progress.print(f"--threads is {threads}, and this machine has {os.cpu_count()} cores")
    worker = Worker(threads, "benchmarks.training")
    try:
        for work in workloads:
            for activity in work.quick if quick and work.quick else work.activities:
                largest = build(work, activity, max(batches))
                for size in batches:
                    began = time.monotonic()
                    measured, absent = measure(largest.first(size), worker, names, effort)
                    steps += measured
                    for name, reason in absent.items():
                        if name not in told:
                            progress.print(f"left out: {name}: {reason}")
                            told.add(name)
                    progress.print(f"{work.name}, {activity} %, batch {size}: {time.monotonic() - began:.0f} s")
    finally:
        worker.close()
    return steps


if __name__ == "__main__":
    typer.run(main)
