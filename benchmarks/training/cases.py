"""A batch to train on made concrete: a network whose layers fire as wanted, spikes and targets.

`benchmarks.cases` keeps only samples whose counts do not hang on how a sum was rounded. Here no single spike may,
neither by our rule nor by that of the other libraries: a spike at another step changes the gradients by more than
rounding does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import CHUNK, MARGIN, Case
from benchmarks.cases import build as build_inputs
from benchmarks.contestants.base import Targets
from benchmarks.training.base import OURS, Rule
from benchmarks.training.reference import rasters
from benchmarks.workloads import THRESHOLD, Activity, Workload
from spikeserve.models.spec.network import Network

# Ours, and that of every library whose rule is another; where it also fires a step late, the same spikes are moved.
RULES = (OURS, Rule(late_reset=True))
DRAWN = 2  # times as many samples as are wanted


@dataclass(frozen=True)
class TrainingCase:
    """Inputs with their targets (batch,)."""

    case: Case
    targets: Targets

    def first(self, samples: int) -> TrainingCase:
        """Return the same with the first few samples."""
        return TrainingCase(self.case.first(samples), self.targets[:samples])


def build(workload: Workload, activity: Activity, batch: int) -> TrainingCase:
    """Return a batch with random targets; raises ValueError if too few of the samples drawn are steady."""
    case = build_inputs(workload, activity, DRAWN * batch + CHUNK)
    steady = np.flatnonzero(_steady(workload, activity, case))
    if len(steady) < batch:
        raise ValueError(f"workload '{workload.name}': {len(steady)} samples are steady, expected at least {batch}")
    targets = np.random.default_rng(workload.seed).integers(0, len(case.network.spec.labels), batch)
    return TrainingCase(case.only(steady[:batch]), targets)


def _steady(workload: Workload, activity: Activity, case: Case) -> NDArray[np.bool_]:
    """Return for each sample whether a slightly lower and a slightly higher threshold give the same rasters."""
    low, high = (
        Network(workload.spec(activity, threshold), case.network.tensors)
        for threshold in (THRESHOLD * (1 - MARGIN), THRESHOLD * (1 + MARGIN))
    )
    steady = np.ones(case.inputs.batch, dtype=np.bool_)
    for start in range(0, case.inputs.batch, CHUNK):
        part = slice(start, start + CHUNK)
        steps = np.ascontiguousarray(case.inputs.steps[:, part])
        for rule in RULES:
            for one, other in zip(rasters(low, steps, rule), rasters(high, steps, rule), strict=True):
                steady[part] &= (one == other).flatten(2).all(2).all(0).numpy()
    return steady
