"""This commit beside another one, in one sitting: `python -m benchmarks.against COMMIT`.

The other commit is checked out into a temporary folder and uses this folder's .venv. The service's benchmark (with
`wrk`) and that of our engines run for either commit in turn, round after round, so that a slow moment of the machine
meets both. A case's figure is its best round: what disturbs a machine only ever
makes it slower. The exit status is 1 where a case is slower than `--least` times the other commit's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
GIT = shutil.which("git") or "git"
ENGINES = ("event", "onnx", "torch")

Case = tuple[str, ...]
Speeds = dict[Case, float]  # requests or runs per second, by case


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check `commit` out into a temporary folder; raises CalledProcessError where there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run([GIT, "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            (tree / ".venv").symlink_to(ROOT / ".venv")
            yield tree
        finally:
            subprocess.run([GIT, "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def figures(tree: Path, *command: str) -> list[dict[str, Any]]:
    """Run a benchmark of `tree` and return what it writes as JSON."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        arguments = [sys.executable, "-m", *command, "--json", file.name]
        done = subprocess.run(arguments, cwd=tree, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"error: {' '.join(command)} failed in {tree}:\n{done.stderr}")
        rows: list[dict[str, Any]] = json.loads(Path(file.name).read_text())
    return rows


def of_service(tree: Path, seconds: int) -> Speeds:
    """Return the requests per second of the service, by model, protocol and connections."""
    rows = figures(tree, "benchmarks.serving", "--seconds", str(seconds), "--rounds", "1")
    return {
        ("service", row["model"], row["protocol"], f"{row['connections']} connections"): row["requests_per_second"]
        for row in rows
        if row["server"] == "ours"
    }


def of_engines(tree: Path) -> Speeds:
    """Return the runs per second of our engines, by engine, workload and batch."""
    rows = figures(tree, "benchmarks.engines", "--quick", *(f"--contestant={name}" for name in contestants(tree)))
    return {
        (row["contestant"], row["workload"], str(row["activity"]), f"batch {row['batch']}"): 1000 / row["median_ms"]
        for row in rows
    }


def contestants(tree: Path) -> list[str]:
    """Return our engines as the benchmark of `tree` names them."""
    program = "from benchmarks.contestants import CONTESTANTS; print(*CONTESTANTS)"
    names = subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split() if name in ENGINES]


def table(best: Mapping[str, Speeds], least: float) -> tuple[Table, bool]:
    """Return each case with the ratio of its speeds, new to old, and whether none is below `least`."""
    shown = Table("case", "old /s", "new /s", "new / old", "")
    fine = True
    for case, old in best["old"].items():
        new = best["new"][case]
        fine = fine and new >= least * old
        shown.add_row(
            ", ".join(case), f"{old:.0f}", f"{new:.0f}", f"{new / old:.2f}", "" if new >= least * old else "slow"
        )
    return shown, fine


def main(
    commit: Annotated[str, typer.Argument(help="The other commit.")],
    rounds: Annotated[int, typer.Option(help="How often each of the two is measured.")] = 3,
    seconds: Annotated[int, typer.Option(help="Seconds of load for each case of the service and round.")] = 3,
    least: Annotated[float, typer.Option(help="The least ratio of new to old that passes.")] = 0.97,
) -> None:
    """Measure this commit beside another one."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; on Debian: apt-get install wrk")
    console, best = Console(width=120, highlight=False), dict[str, Speeds]()
    with checked_out(commit) as old:
        for number in range(rounds):
            trees = [("old", old), ("new", ROOT)]
            for name, tree in trees if number % 2 == 0 else reversed(trees):
                speeds = of_service(tree, seconds) | of_engines(tree)
                known = best.setdefault(name, {})
                best[name] = {case: max(speed, known.get(case, 0.0)) for case, speed in speeds.items()}
                console.print(f"round {number + 1}: {name}")
    shown, fine = table(best, least)
    console.print(shown)
    console.print(f"No case is slower than {least} times {commit}." if fine else f"Some are slower than {least} times.")
    sys.exit(not fine)


if __name__ == "__main__":
    typer.run(main)
