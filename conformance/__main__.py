"""Check executors against the cases: `python -m conformance reference event c norse`.

An executor is the name of one of ours or of a framework (`conformance.executors`), a Python callable as
`module:function`, or a command in quotation marks. A callable gets the folder of a case, and gives the spikes of layers
by their names, each (time_steps, neurons). A command gets two arguments: that folder, and the .npz to write them to.
`python -m conformance make` runs the frameworks again and replaces the cases.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import shlex
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from benchmarks.tables import markdown
from conformance.case import CASES, Case, Raster, expected

Executor = Callable[[Path], Mapping[str, Raster]]
MOST_SHOWN = 100  # characters of what an executor says


@dataclass(frozen=True)
class Outcome:
    """Of how many neuron-steps of the layers that an executor shows others are given; or why it gives none."""

    differing: int = 0
    neuron_steps: int = 0
    refusal: str = ""

    def __str__(self) -> str:
        return self.refusal or f"{self.differing} of {self.neuron_steps}"


def check(executor: Executor, folder: Path) -> Outcome:
    """Run one case; an executor that raises has refused it, and so has one that shows no layer."""
    wanted, _ = expected(folder)
    try:
        with redirect_stdout(StringIO()):  # what frameworks print about themselves
            found = executor(folder)
    except Exception as error:
        return Outcome(refusal=f"{type(error).__name__}: {error}".splitlines()[0][:MOST_SHOWN])
    shown = [
        (raster, np.asarray(found[name]).reshape(raster.shape)) for name, raster in wanted.items() if name in found
    ]
    if not shown:
        return Outcome(refusal="no layer is shown")
    return Outcome(sum(int(np.count_nonzero(a != b)) for a, b in shown), sum(a.size for a, _ in shown))


def executor_of(text: str) -> Executor:
    """Find the executor that a word of the command line names."""
    if " " in text or "/" in text:
        return lambda folder: _command(shlex.split(text), folder)
    module, _, function = (text if ":" in text else f"conformance.executors:{text}").partition(":")
    found: Executor = getattr(importlib.import_module(module), function)
    return found


def _command(words: list[str], folder: Path) -> Mapping[str, Raster]:
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "spikes.npz"
        done = subprocess.run([*words, str(folder), str(answer)], check=False, capture_output=True)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), f"status {done.returncode}")
            raise RuntimeError(said)
        with np.load(answer) as arrays:
            return dict(arrays)


def main() -> None:
    """Print a table: a row for each case, a column for each executor, and their sums."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("executors", nargs="+", help="names, module:function or commands; or make")
    parser.add_argument("--cases", type=Path, default=CASES, help="the folder of the cases")
    arguments = parser.parse_args()
    if arguments.executors == ["make"]:
        from conformance.make import make

        make(arguments.cases)
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    executors = {name: executor_of(name) for name in arguments.executors}
    outcomes = {
        folder: {name: check(executor, folder) for name, executor in executors.items()}
        for folder in sorted(arguments.cases.iterdir())
    }
    rows = [
        [Case.read(folder).name, Case.read(folder).version, *map(str, found.values())]
        for folder, found in outcomes.items()
    ]
    print(markdown(["case", "version", *executors], rows, left=2))
    for name in executors:
        every = [found[name] for found in outcomes.values()]
        read = [outcome for outcome in every if not outcome.refusal]
        right = sum(outcome.differing == 0 for outcome in read)
        print(f"\n{name}: {right} of {len(every)} cases spike for spike, {len(every) - len(read)} refused")


if __name__ == "__main__":
    main()
