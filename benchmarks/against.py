"""This commit beside another one, in one sitting: `python -m benchmarks.against COMMIT`.

The other commit is checked out into a temporary folder and uses this folder's .venv. Both services are up at once and
take turns under the load of `wrk`, case by case and round by round; then the engines' benchmark runs for either in
turn. So a slow moment of the machine meets both. A case's figure is its best round: what disturbs a machine only ever
makes it slower. The exit status is 1 where a case is slower than `--least` times the other commit's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.load import load
from benchmarks.serving.networks import NETWORKS, Served
from benchmarks.serving.processes import ROOT, Server, free_port, running
from benchmarks.serving.protocols import NATIVE, V2

GIT = shutil.which("git") or "git"
ENGINES = ("event", "onnx", "torch")
CONNECTIONS = (1, 16, 64)

Trees = Mapping[str, Path]  # "old" and "new", each where it is checked out
Case = tuple[str, ...]
Speeds = dict[Case, float]  # requests or runs per second


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


@contextmanager
def serving(tree: Path, served: Served) -> Iterator[Server]:
    """Run a tree's service on a network that the tree published itself."""
    with ExitStack() as stack:
        repository = stack.enter_context(tempfile.TemporaryDirectory())
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        program = (
            "import sys; from pathlib import Path; from benchmarks.serving.networks import NETWORKS; "
            f"NETWORKS[{NETWORKS.index(served)}].publish(Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", program, repository], cwd=tree, check=True)
        port = free_port()
        # The working folder decides whose service it is.
        command = [
            "env",
            f"--chdir={tree}",
            sys.executable,
            "-m",
            "service",
            "--port",
            str(port),
            "--repository",
            repository,
        ]
        yield stack.enter_context(running(command, port, log, NATIVE.path_of(served), NATIVE.body(served)))


def measure_services(trees: Trees, best: Mapping[str, Speeds], rounds: int, seconds: int) -> None:
    """Put both services under load in turn, and note each case's best requests per second."""
    for served in NETWORKS:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(serving(tree, served)) for name, tree in trees.items()}
            for number in range(-1, rounds):  # the first round lets them find their pace
                for connections in CONNECTIONS:
                    for protocol in (NATIVE, V2):
                        case = ("service", served.title, protocol.title, f"{connections} connections")
                        for name in sorted(servers, reverse=number % 2 == 1):
                            with servers[name].awake():
                                url = servers[name].url + protocol.path_of(served)
                                speed = load(url, protocol.body(served), connections, seconds if number >= 0 else 1)
                            if number >= 0:
                                best[name][case] = max(best[name].get(case, 0.0), speed.requests_per_second)


def measure_engines(trees: Trees, best: Mapping[str, Speeds], rounds: int) -> None:
    """Run each tree's engines in turn, and note each case's best runs per second."""
    for number in range(rounds):
        for name in sorted(trees, reverse=number % 2 == 1):
            for row in figures(trees[name]):
                case = (row["contestant"], row["workload"], f"{row['activity']} %", f"batch {row['batch']}")
                best[name][case] = max(best[name].get(case, 0.0), 1000 / row["median_ms"])


def figures(tree: Path) -> list[dict[str, Any]]:
    """Run the benchmark of a tree's engines, and return its output."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.engines", "--quick", "--json", file.name]
        command += [f"--contestant={name}" for name in ENGINES]
        subprocess.run(command, cwd=tree, capture_output=True, check=True)
        rows: list[dict[str, Any]] = json.loads(Path(file.name).read_text())
    return rows


def table(best: Mapping[str, Speeds], least: float) -> tuple[Table, bool]:
    """Return each case with the ratio of its speeds, new to old, and whether none is below `least`."""
    shown, fine = Table("case", "old /s", "new /s", "new / old", ""), True
    for case, old in best["old"].items():
        new = best["new"][case]
        fine = fine and new >= least * old
        judged = "" if new >= least * old else "slow"
        shown.add_row(", ".join(case), f"{old:.0f}", f"{new:.0f}", f"{new / old:.2f}", judged)
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
    best: dict[str, Speeds] = {"old": {}, "new": {}}
    with checked_out(commit) as old:
        trees = {"old": old, "new": ROOT}
        measure_services(trees, best, rounds, seconds)
        measure_engines(trees, best, rounds)
    shown, fine = table(best, least)
    console = Console(width=120, highlight=False)
    console.print(shown)
    console.print(f"No case is slower than {least} times {commit}." if fine else f"Some are slower than {least} times.")
    sys.exit(not fine)


if __name__ == "__main__":
    typer.run(main)
