"""Epochs to equal accuracy: a step that is fast and learns less would be none.

Every contestant trains a small network on scikit-learn's digits, from the same weights on the same batches in the same
order, and is asked after each epoch for the classes of samples that were held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import build
from benchmarks.contestants.base import Skipped, Targets, TrainingJob
from benchmarks.training.choose import start
from benchmarks.workloads import LIF, Workload, linear
from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec.network import FloatArray

DIGITS = Workload(
    name="digits",
    title="64-128-10",
    input=(64,),
    nodes=(linear(64, 128), LIF, linear(128, 10), LIF),
    time_steps=20,
    activities=(15,),
    reset="subtract",
)
GOAL = 0.9
EPOCHS, SEEDS = 12, 3
BATCH, LEARNING_RATE = 64, 0.002
HELD_OUT = 360
BRIGHTEST = 0.5  # the chance of a spike at a step where a pixel is at its largest value


@dataclass(frozen=True)
class Learned:
    """A contestant's accuracy (seeds, epochs) on what was held out."""

    contestant: str
    accuracy: NDArray[np.float64]

    @property
    def epochs_to_goal(self) -> list[int | None]:
        """After how many epochs the accuracy first was at the goal, by seed; None where it never was."""
        return [int(reached.argmax()) + 1 if reached.any() else None for reached in self.accuracy >= GOAL]

    @property
    def mean_accuracy(self) -> float:
        """The mean over seeds of the accuracy after the last epoch."""
        return float(self.accuracy[:, -1].mean())


def digits() -> tuple[FloatArray, Targets]:
    """Return the digits as spikes (time_steps, 1797, 64), each pixel a Bernoulli process, and their classes."""
    from sklearn.datasets import load_digits  # here, since it takes seconds that a look at the table need not wait

    data = load_digits()
    chances = BRIGHTEST * data.data / 16
    rng = np.random.default_rng(0)
    spikes = rng.random((DIGITS.time_steps, *chances.shape)) < chances
    return spikes.astype(np.float32), data.target.astype(np.int64)


def learn(contestant: str, threads: int, epochs: int = EPOCHS, seeds: int = SEEDS) -> Learned:
    """Train a contestant with each seed; raises Skipped where it cannot run here."""
    return Learned(
        contestant, np.array([list(_accuracies(contestant, threads, epochs, seed)) for seed in range(seeds)])
    )


def _accuracies(contestant: str, threads: int, epochs: int, seed: int) -> Iterator[float]:
    spikes, targets = digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(targets))
    held_out, kept = order[:HELD_OUT], order[HELD_OUT:]
    network = build(replace(DIGITS, seed=seed), DIGITS.activities[0], 1).network
    inputs = DenseInputs(np.ascontiguousarray(spikes[:, kept]), DIGITS.time_steps)
    training = start(contestant, TrainingJob(network, inputs, threads, targets[kept], LEARNING_RATE))
    test = training.load(np.ascontiguousarray(spikes[:, held_out]), targets[held_out])
    for _ in range(epochs):
        shuffled = rng.permutation(kept)
        for first in range(0, len(shuffled) - BATCH + 1, BATCH):  # whole batches: JAX compiles for each size
            chosen = shuffled[first : first + BATCH]
            training.step(training.load(np.ascontiguousarray(spikes[:, chosen]), targets[chosen]))
        yield float((training.counts(test).argmax(axis=1) == targets[held_out]).mean())


def learn_all(contestants: Sequence[str], threads: int) -> list[Learned]:
    """Train every contestant that can run here."""
    learned = []
    for contestant in contestants:
        try:
            learned.append(learn(contestant, threads))
        except Skipped:  # said already where its steps were measured
            continue
    return learned
