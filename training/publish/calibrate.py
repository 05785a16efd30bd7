"""Calibration of `confident`: which lead lets samples end early, and after how many steps a run is looked at.

The validation samples choose; the test samples are not looked at. Every run is traced once: the class and the lead
after each of at most GRAINS parts of it. Of all ways to look at a run, `first` and `then`, and of all thresholds, the
search takes the one that is expected to take the least time among those that lose at most a target share: of samples
that a whole run answers right and an early end wrong. Samples that turn from wrong to right do not make up for them.

A hundred validation samples say little of a share such as 0.002: a threshold that loses none of them may lose one of
fifty others. So no more than the target may be lost of the training samples either. These are easier than others, but
there are many, and what they lose, others do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import encode
from spikeserve.models.engines import Engine, RunResult
from spikeserve.models.engines.anytime import Calibration, StopRule, check_rule, checks, lead, run_until
from spikeserve.models.spec import Spec
from spikeserve.training.data.datasets import Split
from spikeserve.training.errors import InvalidData
from spikeserve.training.report.evaluate import BATCH

GRAINS = 32  # parts of a run after each of which samples may end
THRESHOLDS = 200  # that are tried for each way to look at a run
SLICE = 1 / 8  # of a whole run's time is about what a slice costs beside its steps, in batches of 32
MOST_SAMPLES = 5000  # of a split, so that the search takes seconds
TARGET = 0.002  # the share of samples that may be lost: 0.2 points of accuracy


@dataclass(frozen=True)
class Trace:
    """What samples (n,) do as their steps go by, after each number of `steps` (k,) up to the whole run.

    `classes` (k, n) is the class so far, and `leads` (k, n) how far it is before the second; see `anytime.lead`. `lost`
    (k, n) is where it is wrong, but right at the end. `accuracy` is that of whole runs.
    """

    steps: NDArray[np.int64]
    classes: NDArray[np.int64]
    leads: NDArray[np.float64]
    lost: NDArray[np.bool_]
    accuracy: float

    @classmethod
    def of(cls, engine: Engine, split: Split) -> Trace:
        """Run a split in slices. Raises InvalidInput for a network that gives no classes."""
        time_steps = engine.spec.time_steps
        check_rule(StopRule.DECIDED, engine.spec, None, time_steps)
        grain = -(-time_steps // GRAINS)
        steps = (*range(grain, time_steps, grain), time_steps)
        watches = []
        for start in range(0, len(split), BATCH):
            inputs = encode(split.samples[start : start + BATCH], engine.spec, time_steps)
            watches.append(_Watch(engine.spec, steps))
            watches[-1].ended(run_until(engine, inputs, watches[-1]), time_steps)
        classes = np.concatenate([np.stack(watch.classes) for watch in watches], axis=1)
        leads = np.concatenate([np.stack(watch.leads) for watch in watches], axis=1)
        right = classes == split.labels
        return cls(np.array(steps), classes, leads, right[-1] & ~right, float(right[-1].mean()))

    @property
    def remaining(self) -> NDArray[np.int64]:
        """The steps that remain, (k, 1)."""
        return (self.steps[-1] - self.steps)[:, np.newaxis]

    def ends(self, threshold: float, looks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where each sample ends (n,), of the places where it is looked at, ascending; the last is the end."""
        enough = self.leads[looks] >= threshold * self.remaining[looks]
        enough[-1] = True
        return looks[enough.argmax(axis=0)]

    def share(self, flags: NDArray[np.bool_], ends: NDArray[np.intp]) -> float:
        """Return the share of samples whose flag (k, n) is set where they end."""
        return float(flags[ends, np.arange(flags.shape[1])].mean())


@dataclass(frozen=True)
class _Watch:
    """A rule that ends no sample, and keeps what it is shown."""

    spec: Spec
    checks: tuple[int, ...]
    classes: list[NDArray[np.int64]] = field(default_factory=list)
    leads: list[NDArray[np.float64]] = field(default_factory=list)

    def ended(self, result: RunResult, taken: int) -> NDArray[np.bool_]:
        self.classes.append(result.class_index)
        self.leads.append(lead(result.readout, taken, self.spec))
        return np.zeros(len(result.readout), np.bool_)


Choice: TypeAlias = tuple[float, float, NDArray[np.intp]]  # a cost in steps, a threshold, and where it is looked at


def calibrate(engine: Engine, validation: Split, training: Split, target: float = TARGET) -> Calibration:
    """Return the calibration of a network on a validation split and what it was trained on.

    Where the validation split is empty, that on the other alone. Of each split the first MOST_SAMPLES count. Raises
    InvalidInput for a network that gives no classes, and for samples that it cannot run, and InvalidData for samples of
    different lengths, since a calibration is for runs of one.
    """
    if training.lengths is not None or validation.lengths is not None:
        raise InvalidData("lengths: a calibration for 'confident' is of runs of one length, expected 'decided'")
    traces = [Trace.of(engine, split[:MOST_SAMPLES]) for split in (validation, training) if len(split)]
    measured = traces[0]
    _, threshold, looks = min(_choices(traces, target), key=lambda choice: choice[0])
    ends, steps = measured.ends(threshold, looks), measured.steps[looks].tolist()
    return Calibration(
        threshold=threshold,
        first=steps[0],
        then=steps[1] - steps[0] if len(looks) > 1 else steps[0],
        time_steps=engine.spec.time_steps,
        samples=measured.lost.shape[1],
        training_samples=sum(trace.lost.shape[1] for trace in traces[1:]),
        accuracy=measured.accuracy,
        target=target,
        lost=measured.share(measured.lost, ends),
        changed=measured.share(measured.classes != measured.classes[-1], ends),
        mean_steps=float(measured.steps[ends].mean()),
    )


def _choices(traces: Sequence[Trace], target: float) -> Iterator[Choice]:
    """Yield the whole run, and the lowest allowed threshold of each way to look at it; see `_lowest`."""
    last, whole = len(traces[0].steps) - 1, int(traces[0].steps[-1])
    yield whole + whole * SLICE, 0.0, np.array([last])
    scores = np.concatenate([(trace.leads[:-1] / trace.remaining[:-1]).ravel() for trace in traces])
    scores = scores[np.isfinite(scores) & (scores > 0)]
    if not scores.size:
        return
    highest_first = np.quantile(scores, np.linspace(1, 0, THRESHOLDS))
    candidates = list(dict.fromkeys(_rounded_down(score) for score in highest_first.tolist()))
    for first in range(last):
        for power in range((last - first).bit_length()):
            if choice := _lowest(traces, target, np.array(checks(first, 2**power, last)), candidates):
                yield choice


def _lowest(
    traces: Sequence[Trace], target: float, looks: NDArray[np.intp], candidates: Sequence[float]
) -> Choice | None:
    """Return the lowest threshold with which, and with all higher ones, no trace loses more than `target`, if any.

    `looks` are the places in a trace where a run is looked at, `candidates` the thresholds from high to low. The cost
    is that of the first trace.
    """
    steps, lowest = traces[0].steps, None
    for threshold in candidates:
        ends = [trace.ends(threshold, looks) for trace in traces]
        if any(trace.share(trace.lost, each) > target for trace, each in zip(traces, ends, strict=True)):
            break
        slices = 1 + np.searchsorted(looks, ends[0])
        cost = steps[ends[0]].mean() + steps[-1] * SLICE * slices.mean()
        lowest = float(cost), threshold, looks
    return lowest


def _rounded_down(score: float) -> float:
    """Return a score rounded down to four digits, so that the sample that it comes from still reaches it."""
    scale = 10.0 ** (3 - math.floor(math.log10(score)))
    return math.floor(score * scale) / scale
