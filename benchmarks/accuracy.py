"""The accuracy of the trainer: each task trained once for each seed, and tested once, as it would be served.

A seed draws the split, the weights and the order of the data. The validation split chooses the epoch, and the test
split chooses nothing. A task whose data is not here is left out, and says why.

    python -m benchmarks.accuracy digits
    python -m benchmarks.accuracy braille --file braille7.npz --seeds 5 --json accuracy.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tables import markdown
from spikeserve.models.engines import EngineName, create
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import load
from spikeserve.training.errors import TrainingError
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import fit
from spikeserve.training.report.evaluate import evaluate

BRAILLE = {"data": {"dataset": "arrays"}, "network": {"coding": "spikes"}}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "digits-wide": {
        "network": {"architecture": "64C3-AP2-128C3-AP2-128"},
        "optimisation": {"label_smoothing": 0.1},
    },
    "mnist-5000": {"data": {"dataset": "mnist-5000"}},
    "mnist-5000-shifted": {
        "data": {"dataset": "mnist-5000"},
        "augment": {"shift": 2},
        "optimisation": {"epochs": 20},
    },
    "braille": BRAILLE,
    "braille-64R": BRAILLE | {"network": {"coding": "spikes", "architecture": "64R"}},
    "braille-varied": BRAILLE
    | {
        "network": {"coding": "spikes", "architecture": "256R-DO0.3"},
        "augment": {"event_drop": 0.2, "time_shift": 8, "time_jitter": 2},
        "optimisation": {"epochs": 60, "label_smoothing": 0.1, "batch_size": 32},
    },
    "spoken-digits": {"data": {"dataset": "spoken-digits"}, "network": {"coding": "spikes"}},
}


@dataclass(frozen=True)
class Result:
    """A task with one seed; accuracies are shares of the validation and the test split."""

    task: str
    seed: int
    validation: float
    test: float
    seconds: float


def train(task: str, config: TrainingConfig) -> Result:
    """Train and test once; raises TrainingError where the data is not here."""
    config = config.for_data()
    data = load(config.data, config.network.coding)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(architecture_for(config, data), data, config, Path(folder) / "checkpoint.pt")
    seconds = time.perf_counter() - began
    engine = create(EngineName.TORCH, round_to_grid(fitted.network).network)
    return Result(task, config.seed, fitted.best.validation_accuracy, evaluate(engine, data.test).accuracy, seconds)


def unpacked(file: Path, folder: Path) -> Path:
    """Return an .npz whose x is a raster: the Braille letters come with eight steps' bits in a byte (12 channels)."""
    with np.load(file) as arrays:
        x, y = arrays["x"], arrays["y"]
    if x.dtype != np.uint8 or x.shape[-1] != 2:
        return file
    path = folder / "braille.npz"
    np.savez(path, x=np.unpackbits(x, axis=-1)[..., :12], y=y)
    return path


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table: a task's mean accuracy over its seeds, and the spread of them."""
    rows = []
    for task in dict.fromkeys(result.task for result in results):
        own = [result for result in results if result.task == task]
        test, validation = ([100 * getattr(each, name) for each in own] for name in ("test", "validation"))
        spread = f"{statistics.mean(test):.2f} ± {statistics.pstdev(test):.2f} %"
        seconds = statistics.mean(result.seconds for result in own)
        rows.append(
            [
                task,
                str(len(own)),
                spread,
                f"{min(test):.2f} %",
                f"{statistics.mean(validation):.2f} %",
                f"{seconds:.0f}",
            ]
        )
    headings = ["task", "seeds", "test accuracy, mean ± standard deviation", "lowest", "validation", "seconds"]
    return markdown(headings, rows)


def main() -> None:
    """Read the command line, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=TASKS, metavar="task", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds 0 to this, less 1 (default: 5)")
    parser.add_argument("--file", type=Path, help="braille: the .npz with x and y")
    parser.add_argument("--folder", type=Path, help="spoken-digits: the folder of the recordings")
    parser.add_argument("--config", type=Path, help="a TOML file, which the task's settings are laid over")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    given = parser.parse_args()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        data: dict[str, Any] = {"file": unpacked(given.file, Path(folder))} if given.file else {}
        data |= {"folder": given.folder} if given.folder else {}
        for task in given.tasks:
            for seed in range(given.seeds):
                wanted = dict(TASKS[task]) | {"seed": seed}
                wanted["data"] = {**wanted.get("data", {}), **data, "split_seed": seed}
                try:
                    result = train(task, TrainingConfig.read(given.config, wanted))
                except TrainingError as error:
                    print(f"{task}: {error}")
                    break
                results.append(result)
                print(f"{task} seed {seed}: {result.test:.2%} (validation {result.validation:.2%})", flush=True)
    print("\n".join(["", machine(["torch", "numba"]), "", table(results)]))
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
