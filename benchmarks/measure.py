"""How long each contestant takes on a case: the counts first, and then turn by turn, all of them in one go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.workers import Absent, Ready, Worker


@dataclass(frozen=True)
class Effort:
    """How often each contestant has its turn; `seconds` ends a case early, though not before `least` rounds.

    `compile_once` spares whoever compiles slowly all numbers of threads but the largest.
    """

    rounds: int
    least: int
    seconds: float
    compile_once: bool = False


FULL, QUICK = Effort(rounds=12, least=4, seconds=30), Effort(rounds=4, least=3, seconds=2, compile_once=True)
SLOW_TO_COMPILE = ("torch_compile",)


@dataclass(frozen=True)
class Figure:
    """One contestant on one case, at the number of threads that suits it best; times in milliseconds.

    `by_threads` is the median at each number of threads; `differing` the share of counts that are not as they should.
    """

    case: Case
    contestant: str
    threads: int
    median_ms: float
    quartiles_ms: tuple[float, float]
    by_threads: dict[int, float]
    runs: int
    differing: float

    @property
    def spikes_equal(self) -> bool:
        """Whether every count is as it should be."""
        return self.differing == 0.0

    def row(self) -> dict[str, Any]:
        """Return the figure as it stands in the JSON file; activities are percentages."""
        case = self.case
        return {
            "workload": case.workload.name,
            "activity": case.input_activity,
            "batch": case.inputs.batch,
            "contestant": self.contestant,
            "threads": self.threads,
            "median_ms": self.median_ms,
            "spikes_equal": self.spikes_equal,
            "differing_counts": self.differing,
            "quartiles_ms": list(self.quartiles_ms),
            "runs": self.runs,
            "median_ms_by_threads": {str(threads): median for threads, median in self.by_threads.items()},
            "layer_activity": {name: round(100 * share, 2) for name, share in case.activity.items()},
            "synaptic_operations": case.synaptic_operations,
        }


@dataclass(frozen=True)
class Measurement:
    """What came of a case: a figure for each contestant that ran, and why the others did not."""

    figures: list[Figure]
    absent: dict[str, str]


def measure(case: Case, workers: Sequence[Worker], contestants: Sequence[str], effort: Effort) -> Measurement:
    """Compare the counts of all contestants at all numbers of threads, then time those that run in turns."""
    for worker in workers:
        worker.load(case.network, case.inputs)
    ready, absent = prepare(workers, contestants, effort)
    seconds = take_turns(ready, effort)
    figures = []
    for contestant in contestants:
        by_worker = {worker: seconds[name, worker] for name, worker in ready if name == contestant}
        if by_worker:
            counts = [ready[contestant, worker].result for worker in by_worker]
            figures.append(_figure(case, contestant, by_worker, np.mean([c != case.spike_counts for c in counts])))
    return Measurement(figures, absent)


def prepare(
    workers: Sequence[Worker], contestants: Sequence[str], effort: Effort
) -> tuple[dict[tuple[str, Worker], Ready], dict[str, str]]:
    """Prepare the contestants on what the workers have loaded; return those that ran, and why the others did not."""
    ready: dict[tuple[str, Worker], Ready] = {}
    absent: dict[str, str] = {}
    for contestant in contestants:
        asked = workers[-1:] if effort.compile_once and contestant in SLOW_TO_COMPILE else workers
        for worker in asked:
            worker.prepare(contestant)
        for worker in asked:
            answer = worker.prepared()
            if isinstance(answer, Absent):
                absent[contestant] = answer.reason
            else:
                ready[contestant, worker] = answer
    return ready, absent


def take_turns(ready: Iterable[tuple[str, Worker]], effort: Effort) -> dict[tuple[str, Worker], list[float]]:
    """Time each contestant in turn, round after round; return the seconds that each run took."""
    seconds: dict[tuple[str, Worker], list[float]] = {key: [] for key in ready}
    began = time.monotonic()
    for turn in range(effort.rounds):
        if turn >= effort.least and time.monotonic() - began > effort.seconds:
            break
        for contestant, worker in seconds:
            seconds[contestant, worker] += worker.turn(contestant)
    return seconds


def _figure(case: Case, contestant: str, seconds: dict[Worker, list[float]], differing: np.floating[Any]) -> Figure:
    medians = {worker: float(np.median(taken)) * 1e3 for worker, taken in seconds.items()}
    best = min(medians, key=lambda worker: medians[worker])
    low, high = np.percentile(seconds[best], [25, 75]) * 1e3
    return Figure(
        case=case,
        contestant=contestant,
        threads=best.threads,
        median_ms=medians[best],
        quartiles_ms=(float(low), float(high)),
        by_threads={worker.threads: median for worker, median in medians.items()},
        runs=len(seconds[best]),
        differing=float(differing),
    )
