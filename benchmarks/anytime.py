"""What answers before the last step save and what they cost, on the test samples of the models that ship.

Each rule stands beside whole runs, and beside the fewest fixed steps with at least its accuracy: these are found on the
test samples themselves, as no rule is, so that they are at their best. A sample's class under a rule is compared with
that of its whole run, and McNemar's exact test says whether the two differ in how often they are right. Time is the
engine's: all take turns at each batch of test samples, in several passes, of which the fastest counts.

    python -m benchmarks.anytime digits
    python -m benchmarks.anytime digits braille --file braille7.npz --answers 100000
    python -m benchmarks.anytime tiny

`tiny` are networks with random weights that run in a few microseconds, whose looks cost as much as many of their steps.
`--answers` also runs so many varied digits both ways, and prints how many classes `decided` changes: none may.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import TASKS, unpacked
from benchmarks.cases import build
from benchmarks.machine import machine
from benchmarks.tables import markdown
from benchmarks.workloads import LIF, Workload, linear
from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.coding import Inputs, encode
from spikeserve.models.engines import Engine, RunResult, create
from spikeserve.models.engines.anytime import StopRule, run_anytime
from spikeserve.models.engines.base import joined
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Split, load

BATCHES = (1, 32)
AT_ONCE = 128  # samples in a batch where time is not measured
TINY = (
    Workload("16-10", "", (16,), (linear(16, 10), LIF), time_steps=8, activities=(15,)),
    Workload("64-32-10", "", (64,), (linear(64, 32), LIF, linear(32, 10), LIF), time_steps=25, activities=(15,)),
)
Run = Callable[[Inputs], RunResult]


@dataclass(frozen=True)
class Measurement:
    """A way to run the test samples: its results, and the seconds for each sample by the size of a batch."""

    name: str
    result: RunResult
    steps: NDArray[np.int64]
    seconds: dict[int, float]


class Contest:
    """Whole runs, fixed steps and rules on the test samples of one model."""

    def __init__(self, bundle: Bundle, split: Split, passes: int) -> None:
        self.spec = bundle.network.spec
        self.engine: Engine = create("event", bundle.network)
        self.calibration = bundle.calibration
        self.labels = split.labels
        self.passes = passes
        self.inputs = encode(split.samples, self.spec, self.spec.time_steps)
        self.readouts = list(self._by_step())

    def _by_step(self) -> Iterator[RunResult]:
        """Yield the result after each step."""
        state = None
        for step in range(self.spec.time_steps):
            result, state = self.engine.run(self.inputs.between(step, step + 1), state)
            yield result

    def accuracy(self, result: RunResult) -> float:
        """Return the share that is right."""
        return float((result.class_index == self.labels).mean())

    def fewest(self, accuracy: float) -> int:
        """Return the fewest fixed steps with at least this accuracy."""
        return next(step for step, result in enumerate(self.readouts, 1) if self.accuracy(result) >= accuracy)

    def fixed(self, steps: int) -> Run:
        """Return a run of so many steps."""
        return lambda inputs: self.engine.run(inputs.between(0, steps))[0]

    def by(self, rule: StopRule) -> Run:
        """Return a run under a rule."""
        return lambda inputs: run_anytime(self.engine, inputs, rule, self.calibration)

    def measure(self) -> list[Measurement]:
        """Run everything, and measure the times in turns."""
        runs: dict[str, Run] = {"whole": self.fixed(self.spec.time_steps)}
        for rule in StopRule:
            runs[rule] = self.by(rule)
            fewest = self.fewest(self.accuracy(self._all(runs[rule])))
            runs[f"the fewest fixed steps as right as {rule}"] = self.fixed(fewest)
        seconds = self._seconds(runs)
        measured = []
        for name, run in runs.items():
            result = self._all(run)
            steps = result.steps_used
            if steps is None:
                fixed = self.spec.time_steps if name == "whole" else self.fewest(self.accuracy(result))
                steps = np.full(len(self.labels), fixed)
            measured.append(Measurement(name, result, steps, seconds[name]))
        return measured

    def _batches(self, size: int) -> list[Inputs]:
        return [self.inputs[start : start + size] for start in range(0, len(self.labels), size)]

    def _all(self, run: Run) -> RunResult:
        return joined([run(batch) for batch in self._batches(AT_ONCE)])

    def _seconds(self, runs: dict[str, Run]) -> dict[str, dict[int, float]]:
        """Return the seconds of a sample: those of each batch's fastest pass, over all batches."""
        seconds: dict[str, dict[int, float]] = {name: {} for name in runs}
        for size in BATCHES:
            batches = self._batches(size)
            best = {name: np.full(len(batches), np.inf) for name in runs}
            for _ in range(self.passes):
                for index, batch in enumerate(batches):
                    runs["whole"](batch)  # not timed: the first run of a batch waits for memory as well
                    for name, run in runs.items():
                        began = time.perf_counter()
                        run(batch)
                        best[name][index] = min(best[name][index], time.perf_counter() - began)
            for name in runs:
                seconds[name][size] = float(best[name].sum()) / len(self.labels)
        return seconds


def mcnemar(whole: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Return how many samples only the first answers right, how many only the second, and the exact two-sided p."""
    lost, won = int((whole & ~other).sum()), int((~whole & other).sum())
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1)) / 2**changed
    return lost, won, min(1.0, 2 * tail)


def table(contest: Contest, measured: Sequence[Measurement]) -> str:
    """Return a Markdown table of all runs beside the first, which is whole."""
    whole, total = measured[0], contest.spec.time_steps
    right, rows = whole.result.class_index == contest.labels, []
    for each in measured:
        lost, won, p = mcnemar(right, each.result.class_index == contest.labels)
        other = int((each.result.class_index != whole.result.class_index).sum())
        rows.append(
            [
                each.name,
                f"{contest.accuracy(each.result):.2%}",
                f"{other} of {len(contest.labels)}",
                f"{lost}, {won}",
                f"{p:.2g}",
                f"{each.steps.mean():.2f} ({total / each.steps.mean():.2f}×)",
                f"{np.percentile(each.steps, 95):.0f}",
                f"{np.asarray(each.result.synaptic_operations).mean():.0f}",
                *(
                    f"{1e6 * each.seconds[size]:.1f} ({whole.seconds[size] / each.seconds[size]:.2f}×)"
                    for size in BATCHES
                ),
            ]
        )
    headings = ["run", "right", "other class", "lost, won", "p", "steps, mean", "p95", "operations"]
    return markdown([*headings, *(f"µs, batch {size}" for size in BATCHES)], rows)


def table_of_tiny(passes: int) -> str:
    """Return a Markdown table of tiny networks: whole runs, and under `decided`."""
    rows = []
    for workload in TINY:
        case = build(workload, workload.activities[0], max(BATCHES))
        engine = EventEngine(case.network)
        runs: tuple[Run, ...] = engine.answer, partial(run_anytime, engine, rule=StopRule.DECIDED)
        rows.append([f"{workload.name}, {workload.time_steps} steps"])
        for size in BATCHES:
            inputs, best = case.inputs[:size], [math.inf, math.inf]
            for _ in range(100 * passes):
                for way, run in enumerate(runs):
                    began = time.perf_counter()
                    result = run(inputs)
                    best[way] = min(best[way], time.perf_counter() - began)
            steps = np.asarray(result.steps_used).mean()
            rows[-1] += [f"{1e6 * best[0]:.1f}", f"{1e6 * best[1]:.1f} ({best[0] / best[1]:.2f}×), {steps:.1f} steps"]
    return markdown(["network", *(f"µs, batch {size}{way}" for size in BATCHES for way in ("", ", decided"))], rows)


def varied_digits(count: int, split: Split) -> NDArray[np.float32]:
    """Return so many digits, each one of a split with pixels moved by up to a few grey levels and some switched off."""
    rng = np.random.default_rng(0)
    samples = split.samples[rng.integers(0, len(split), count)].astype(np.float32)
    samples += rng.integers(-4, 5, samples.shape)
    samples *= rng.random(samples.shape) > rng.random((count, *(1 for _ in samples.shape[1:]))) / 2
    return np.clip(samples, 0, 16)


def count_changed(contest: Contest, samples: NDArray[np.float32]) -> tuple[int, float]:
    """Return how many samples `decided` gives another class than a whole run, and the mean of their steps."""
    changed, steps = 0, 0
    for start in range(0, len(samples), AT_ONCE):
        inputs = encode(samples[start : start + AT_ONCE], contest.spec)
        early = run_anytime(contest.engine, inputs, StopRule.DECIDED)
        whole, _ = contest.engine.run(inputs)
        changed += int((early.class_index != whole.class_index).sum())
        steps += int(np.asarray(early.steps_used).sum())
    return changed, steps / len(samples)


def main() -> None:
    """Read the command line, run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="+", choices=("digits", "braille", "tiny"), metavar="model", help="digits, braille, tiny"
    )
    parser.add_argument("--file", type=Path, help="braille: the .npz with x and y")
    parser.add_argument("--repository", type=Path, default=PRETRAINED, help="where the models are")
    parser.add_argument("--passes", type=int, default=20, help="how often each is timed (default: 20)")
    parser.add_argument("--answers", type=int, default=0, help="varied digits to run by 'decided' and whole")
    given = parser.parse_args()
    print(machine(["numba"]))
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            if name == "tiny":
                print(f"\n{table_of_tiny(given.passes)}", flush=True)
                continue
            wanted: dict[str, Any] = dict(TASKS[name])
            if name == "braille":
                if given.file is None:
                    parser.error("braille needs --file, the .npz with x and y")
                wanted["data"] = {**wanted["data"], "file": unpacked(given.file, Path(folder))}
            config = TrainingConfig.read(None, wanted)
            data = load(config.data, config.network.coding)
            contest = Contest(ModelRepository(given.repository).read(name), data.test, given.passes)
            print(f"\n{name}, {len(data.test)} test samples\n")
            print(table(contest, contest.measure()), flush=True)
            if name == "digits" and given.answers:
                changed, steps = count_changed(contest, varied_digits(given.answers, data.test))
                print(
                    f"\ndecided, {given.answers} varied digits: {changed} of another class than in a whole run, "
                    f"{steps:.2f} of {contest.spec.time_steps} steps on average"
                )


if __name__ == "__main__":
    main()
