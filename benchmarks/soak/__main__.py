"""Soak a service of its own on the loopback, and say where a target is missed: `./scripts/soak`.

Ten phases, each with a fresh server: hostile and mutated requests; mutated bodies of all kinds, and WebSocket frames;
clients that ask, err, hang up and dawdle side by side; ten times the load that the server can do; its memory after many
requests; clients that send thousands of requests ahead of their answers; hostile bundles beside a good model; long
answers, and answers that are too long; small requests beside large ones; and live sessions. The clients share the cores
with the server, which in the overload has one thread to compute on: what they take, it lacks.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.serving.processes import free_port, running
from benchmarks.soak.figures import Figure
from benchmarks.soak.networks import HEAVY, SMALL
from benchmarks.soak.phases import PHASES, Phase
from benchmarks.soak.scale import FULL, QUICK, Scale
from spikeserve.models.bundle.repository import PRETRAINED

WIDTH = 120  # of the table, also where there is no terminal


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Far fewer requests: some two minutes.")] = False,
    phase: Annotated[list[str] | None, typer.Option(help="Only this phase; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")] = None,
) -> None:
    """Soak the service; the exit status is 1 where a target is missed."""
    known = {each.name: each for each in PHASES}
    if unknown := set(phase or ()) - known.keys():
        sys.exit(f"error: --phase is '{min(unknown)}', expected one of {', '.join(known)}")
    chosen = [known[name] for name in phase or known]
    figures = soak(chosen, QUICK if quick else FULL)
    load = os.getloadavg()[0]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(
        table(figures), f"{os.cpu_count()} cores, shared with the clients; load average {load:.1f} at the end."
    )
    if output:
        written = [asdict(figure) | {"met": figure.met} for figure in figures]
        output.write_text(json.dumps(written, indent=2) + "\n")
    missed = [figure for figure in figures if figure.met is False]
    if missed:
        sys.exit(f"{len(missed)} of {sum(figure.met is not None for figure in figures)} targets missed")


def soak(phases: list[Phase], scale: Scale) -> list[Figure]:
    """Run the phases one after the other, each against a server of its own."""
    figures: list[Figure] = []
    console = Console(stderr=True)
    with Progress(console=console) as progress, tempfile.TemporaryDirectory() as root:
        for phase in phases:
            bar = progress.add_task(phase.name, total=1.0)
            folder = Path(root) / phase.name / "repository"
            (phase.publish or publish_usual)(folder, scale)
            with tempfile.TemporaryFile("w+") as log:
                port = free_port()
                flags = ("--port", str(port), "--repository", str(folder), "--default-model", SMALL.name, *phase.flags)
                command = [sys.executable, "-m", "spikeserve.service", *flags]
                with running(command, port, log, phase.until) as server, server.awake():
                    found = asyncio.run(phase.run(server, scale, lambda part: progress.update(bar, completed=part)))  # noqa: B023
                log.seek(0)
                errors = sum('"level":"error"' in line.replace(" ", "") for line in log)
            progress.update(bar, completed=1.0)
            meant = phase.errors(scale)
            about = "errors in the server's log" + (f", other than {meant} meant" if meant else "")
            figures += [*found, Figure(found[0].phase, about, abs(errors - meant), at_most=0)]
    return figures


def publish_usual(folder: Path, _: Scale) -> None:
    """Write the models that most phases ask into a repository."""
    for served in (SMALL, HEAVY):
        served.publish(folder)
    shutil.copytree(PRETRAINED, folder, dirs_exist_ok=True)


def table(figures: list[Figure]) -> Table:
    """Return the figures, each beside its target."""
    shown = Table("soak", "what", "target", "figure", "")
    for index, figure in enumerate(figures):
        is_first = index == 0 or figures[index - 1].phase != figure.phase
        if is_first and index:
            shown.add_section()
        judged = {None: "", True: "met", False: "[red]missed[/red]"}[figure.met]
        shown.add_row(figure.phase if is_first else "", figure.name, figure.target, figure.shown, judged)
    return shown


if __name__ == "__main__":
    typer.run(main)
