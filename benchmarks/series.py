"""Sequences: random kernels with a ridge, the nearest neighbour by time warping, and `spikeserve fit`, side by side.

    python -m benchmarks.series GunPoint.npz ArrowHead.npz --seeds 2 --json series.json
    python -m benchmarks.series braille.npz --coding spikes --methods kernels warping

kernels  10,000 random kernels of random dilations, whose largest value and share of positive values are the features of
         a ridge classifier (ROCKET, Dempster, Petitjean and Webb, 2020); leaving one out chooses its penalty
warping  the class of the nearest training sample by dynamic time warping over all channels, within a band of 10 %
ours     the default of `spikeserve fit`, or with --architecture another network

Files are those of `fit --file`, with splits of their own or split by the seed. `ours` holds validation samples out of
the training split, unless its readout is solved; the other two have them too, and take shorter sequences as padded. The
test split chooses nothing. Both scale each channel by the training samples. Seconds are those of training and testing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks import accuracy
from benchmarks.machine import machine
from benchmarks.tables import markdown
from spikeserve.models.engines.event.compiled import Kernel
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.dataset import Labels
from spikeserve.training.data.datasets import load
from spikeserve.training.errors import TrainingError

KERNELS = 10_000
LENGTHS = (7, 9, 11)
PENALTIES = np.logspace(-3, 3, 10)
BAND = 0.1  # of a sequence's length, to both sides

Array: TypeAlias = Any  # in a compiled function


@dataclass(frozen=True)
class Result:
    """One method on one file with one seed: the share of the test samples that it gets right."""

    file: str
    method: str
    seed: int
    accuracy: float
    seconds: float


def kernels(train: FloatArray, labels: Labels, test: FloatArray, seed: int) -> Labels:
    """Predict the test samples, each (n, channels, time), by a ridge over the features of random kernels."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    drawn = draw_kernels(np.random.default_rng(seed), *train.shape[1:])
    seen, asked = (np.empty((len(part), 2 * KERNELS), np.float32) for part in (train, test))
    for part, features in ((train, seen), (test, asked)):
        convolve.call(part, *drawn, features)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES)).fit(seen, labels)
    predicted: Labels = model.predict(asked)
    return predicted


def draw_kernels(rng: np.random.Generator, channels: int, steps: int) -> tuple[Array, ...]:
    """Draw kernels: which channels (n, channels), weights (n, channels, 11), lengths, biases, dilations, paddings (n).

    Each sees a random number of channels, on a scale of octaves as its dilation. Its weights are normal, and have the
    mean 0 in each channel.
    """
    lengths = rng.choice([length for length in LENGTHS if length <= max(steps, LENGTHS[0])], KERNELS)
    sees = np.zeros((KERNELS, channels), np.bool_)
    weights = np.zeros((KERNELS, channels, LENGTHS[-1]), np.float32)
    for row, length in enumerate(lengths):
        several = int(2 ** rng.uniform(0, np.log2(min(channels, length) + 1)))
        sees[row, rng.choice(channels, several, replace=False)] = True
        drawn = rng.normal(size=(channels, length))
        weights[row, :, :length] = drawn - drawn.mean(axis=1, keepdims=True)
    octaves = np.log2(np.maximum((steps - 1) / (lengths - 1), 1))
    dilations = (2 ** rng.uniform(0, octaves)).astype(np.int64)
    paddings = np.where(rng.random(KERNELS) < 0.5, (lengths - 1) * dilations // 2, 0)
    reaches = (lengths - 1) * dilations + 1
    paddings = np.maximum(paddings, (reaches - steps + 1) // 2)  # of a sequence that is shorter than the kernel
    return sees, weights, lengths, rng.uniform(-1, 1, KERNELS).astype(np.float32), dilations, paddings


@Kernel
def convolve(
    samples: Array, sees: Array, weights: Array, lengths: Array, biases: Array, dilations: Array, paddings: Array,
    features: Array,
) -> None:  # fmt: skip
    """Write the share of positive values and the largest value of each kernel over samples (n, channels, time)."""
    count, channels, steps = samples.shape
    for kernel in range(lengths.size):
        length, dilation, padding = lengths[kernel], dilations[kernel], paddings[kernel]
        places = steps + 2 * padding - (length - 1) * dilation
        for sample in range(count):
            sums = np.full(places, biases[kernel], np.float32)
            for channel in range(channels):
                if sees[kernel, channel]:
                    for tap in range(length):
                        weight, first = weights[kernel, channel, tap], tap * dilation - padding
                        for place in range(max(0, -first), min(places, steps - first)):
                            sums[place] += weight * samples[sample, channel, place + first]
            features[sample, 2 * kernel] = np.sum(sums > 0) / places
            features[sample, 2 * kernel + 1] = np.max(sums)


def warping(train: FloatArray, labels: Labels, test: FloatArray, _: int) -> Labels:
    """Predict the test samples, each (n, channels, time), by the training sample of the least warped distance."""
    nearest = np.empty(len(test), np.int64)
    by_time = (np.ascontiguousarray(part.transpose(0, 2, 1)) for part in (train, test))
    find_nearest.call(*by_time, max(1, round(BAND * train.shape[2])), nearest)
    predicted: Labels = labels[nearest]
    return predicted


@Kernel
def find_nearest(train: Array, test: Array, band: int, nearest: Array) -> None:
    """Write the index of the nearest of `train` for each of `test`, both (n, time, channels).

    A distance is the sum of squared differences along the cheapest path; it ends once no path can be the nearest.
    """
    steps, channels = train.shape[1:]
    for asked in range(len(test)):
        best = np.inf
        for known in range(len(train)):
            before = np.full(steps + 1, np.inf)
            before[0] = 0.0
            for row in range(steps):
                now = np.full(steps + 1, np.inf)
                for column in range(max(0, row - band), min(steps, row + band + 1)):
                    cost = 0.0
                    for channel in range(channels):
                        cost += (test[asked, row, channel] - train[known, column, channel]) ** 2
                    now[column + 1] = cost + min(before[column], before[column + 1], now[column])
                before = now
                if np.min(before) >= best:
                    break
            if before[steps] < best:
                best = before[steps]
                nearest[asked] = known


Predict: TypeAlias = Callable[[FloatArray, Labels, FloatArray, int], Labels]
BASELINES: Mapping[str, Predict] = {"kernels": kernels, "warping": warping}
OURS = "ours"


def measure(file: Path, method: str, config: TrainingConfig) -> Result:
    """Train and test one method; raises TrainingError for a file that is none."""
    if method == OURS:
        (found,) = accuracy.train(file.stem, config, [])
        return Result(file.stem, method, config.seed, found.test, found.seconds)
    data = load(config.data, config.network.coding)
    samples = np.concatenate([data.training.samples, data.validation.samples])
    labels = np.concatenate([data.training.labels, data.validation.labels])
    train, test = (
        np.ascontiguousarray(part.reshape(*part.shape[:2], -1).transpose(0, 2, 1), np.float32)
        for part in (samples, data.test.samples)
    )
    began = time.perf_counter()
    mean, deviation = train.mean(axis=(0, 2), keepdims=True), train.std(axis=(0, 2), keepdims=True)
    train, test = ((part - mean) / np.where(deviation > 0, deviation, 1) for part in (train, test))
    right = BASELINES[method](train, labels, test, config.seed) == data.test.labels
    return Result(file.stem, method, config.seed, float(right.mean()), time.perf_counter() - began)


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table: for each file and method the accuracy with each seed, and the mean of the seconds."""
    methods = [*dict.fromkeys(result.method for result in results)]
    rows = []
    for file in dict.fromkeys(result.file for result in results):
        row = [file]
        for method in methods:
            own = [result for result in results if (result.file, result.method) == (file, method)]
            shares = ", ".join(f"{100 * result.accuracy:.1f}" for result in own)
            row += [f"{shares} %", f"{statistics.mean(result.seconds for result in own):.1f}"] if own else ["", ""]
        rows.append(row)
    return markdown(["file", *(heading for method in methods for heading in (method, "seconds"))], rows)


def main() -> None:
    """Read the command line, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz", help="as of fit --file")
    parser.add_argument("--methods", nargs="+", choices=[*BASELINES, OURS], default=[*BASELINES, OURS])
    parser.add_argument("--seeds", type=int, default=1, help="the seeds 0 to this, less 1 (default: 1)")
    parser.add_argument("--coding", default="current", help="current, or spikes for rasters (default: current)")
    parser.add_argument("--architecture", help="of ours (default: that of fit)")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    given = parser.parse_args()
    network = {"coding": given.coding} | ({"architecture": given.architecture} if given.architecture else {})
    results: list[Result] = []
    for file in given.files:
        for method in given.methods:
            for seed in range(given.seeds):
                wanted: dict[str, Any] = {"seed": seed, "data": {"file": file, "split_seed": seed}, "network": network}
                try:
                    result = measure(file, method, TrainingConfig.read(None, wanted))
                except TrainingError as error:
                    print(f"{file}: {error}")
                    break
                results.append(result)
                print(f"{result.file} {method} seed {seed}: {result.accuracy:.2%}, {result.seconds:.1f} s", flush=True)
    print("\n".join(["", machine(["torch", "numba", "scikit-learn"]), "", table(results)]))
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
