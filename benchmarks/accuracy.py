"""The accuracy of the trainer: each task trained once for each seed, and tested once, as it would be served.

A seed draws the split, the weights and the order of the data. The validation split chooses the epoch, if there is one,
and the test split chooses nothing. A task whose data is not here is left out, and says why.

    python -m benchmarks.accuracy digits
    python -m benchmarks.accuracy braille --file braille7.npz --seeds 5 --json accuracy.json
    python -m benchmarks.accuracy digits --bits 8 7 6 4

With --bits each network is also tested with its weights rounded to so many bits after training, as `quantise` does
with its data: the training split moves the weights, and the test split chooses nothing.
"""

from __future__ import annotations

import argparse
import json
import math
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
from spikeserve.models.engines import create
from spikeserve.models.spec.narrow import BITS
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import TrainingError
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.gptq import input_products, quantised
from spikeserve.training.fit.job import architecture_for, prepare
from spikeserve.training.fit.loop import fit
from spikeserve.training.report.evaluate import evaluate

BRAILLE = {"data": {"dataset": "arrays"}, "network": {"coding": "spikes"}}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "digits-wide": {"network": {"architecture": "64C3-AP2-128C3-AP2-128"}, "optimisation": {"label_smoothing": 0.1}},
    "mnist-5000": {"data": {"dataset": "mnist-5000"}},
    "mnist-5000-256": {"data": {"dataset": "mnist-5000"}, "network": {"architecture": "256"}, "augment": {"shift": 0}},
    "mnist-5000-short": {"data": {"dataset": "mnist-5000"}, "optimisation": {"epochs": 20}},
    "braille": BRAILLE,
    "braille-64R": BRAILLE | {"network": {"coding": "spikes", "architecture": "64R"}},
    "braille-128R": BRAILLE | {"network": {"coding": "spikes", "architecture": "128R"}},
    "braille-window": {
        "data": {"dataset": "arrays", "window": 2, "validation_share": 0},
        "network": {"coding": "spikes", "architecture": "64T9Th-BN-64T9d2Th-BN-64T9d4Th-BN"},
        "augment": {"time_jitter": 1, "time_shift": 4},
        "optimisation": {"epochs": 60},
    },
    "spoken-digits": {"data": {"dataset": "spoken-digits"}, "network": {"coding": "spikes"}},
}


@dataclass(frozen=True)
class Result:
    """A task with one seed; accuracies are shares of the validation and the test split. No `bits` is float32.

    `firing` is spikes per neuron and step, the mean of the layers, and `operations` are those of a test sample.
    """

    task: str
    seed: int
    bits: int | None
    validation: float
    test: float
    seconds: float
    firing: float
    operations: float


def train(task: str, config: TrainingConfig, bits: Sequence[WeightBits]) -> list[Result]:
    """Train once, and test as trained and with weights of so many bits; raises TrainingError without the data."""
    config, data = prepare(config)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(architecture_for(config, data), data, config, Path(folder) / "checkpoint.pt")
    seconds = time.perf_counter() - began
    network = round_to_grid(fitted.network).network
    names = network.spec.weight_bits
    products = input_products(network, data.training) if bits else {}
    networks = {None: network} | {each: quantised(network, dict.fromkeys(names, each), products) for each in bits}
    found = list[Result]()
    for each, made in networks.items():
        engine = create("torch", made)
        test, validation = evaluate(engine, data.test), fitted.best.validation_accuracy
        if len(data.validation):
            validation = evaluate(engine, data.validation).accuracy
        firing, operations = np.mean([*test.firing_rates.values()]), test.synaptic_operations.mean()
        found.append(
            Result(task, config.seed, each, validation, test.accuracy, seconds, float(firing), float(operations))
        )
    return found


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
    """Return a Markdown table: a task's mean accuracy over its seeds, their spread, and what its bits lost of it."""
    rows = []
    for task, bits in dict.fromkeys((result.task, result.bits) for result in results):
        own, plain = (
            [result for result in results if (result.task, result.bits) == (task, each)] for each in (bits, None)
        )
        test, validation = ([100 * getattr(each, name) for each in own] for name in ("test", "validation"))
        lost = [100 * (before.test - after.test) for before, after in zip(plain, own, strict=True)]
        rows.append(
            [
                task,
                "float32" if bits is None else str(bits),
                str(len(own)),
                f"{statistics.mean(test):.2f} ± {statistics.pstdev(test):.2f} %",
                "" if bits is None else f"{statistics.mean(lost):.2f} ± {statistics.pstdev(lost):.2f}",
                f"{min(test):.2f} %",
                "" if math.isnan(validation[0]) else f"{statistics.mean(validation):.2f} %",
                f"{statistics.mean(result.seconds for result in own):.0f}",
                f"{100 * statistics.mean(result.firing for result in own):.1f} %",
                f"{statistics.mean(result.operations for result in own):,.0f}",
            ]
        )
    headings = ["task", "bits", "seeds", "test accuracy, mean ± standard deviation", "points lost, paired"]
    return markdown([*headings, "lowest", "validation", "seconds", "firing", "operations"], rows)


def main() -> None:
    """Read the command line, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=TASKS, metavar="task", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds 0 to this, less 1 (default: 5)")
    parser.add_argument("--bits", type=int, nargs="+", choices=BITS, default=[], help="also round weights to so many")
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
                    found = train(task, TrainingConfig.read(given.config, wanted), given.bits)
                except TrainingError as error:
                    print(f"{task}: {error}")
                    break
                results += found
                said = (
                    f"{each.bits or 'float32'}: {each.test:.2%}"
                    + ("" if math.isnan(each.validation) else f", validation {each.validation:.2%}")
                    for each in found
                )
                print(f"{task} seed {seed}: {', '.join(said)}", flush=True)
    print("\n".join(["", machine(["torch", "numba"]), "", table(results)]))
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
