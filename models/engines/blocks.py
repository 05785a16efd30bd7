"""Events for an engine of dense arrays: it is given some steps at a time, so that no raster of the whole run is made.

A run that is cut anywhere gives the bits of one that is not, which makes this exact; see `models.engines.state`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines.base import RunResult
from spikeserve.models.engines.state import State

BLOCK_BYTES = 2**24  # of the dense inputs that are there at once, unless one step of a batch takes more

DenseRun: TypeAlias = Callable[[DenseInputs, State | None], tuple[RunResult, State]]


def run_blocks(run: DenseRun, inputs: Inputs, state: State | None) -> tuple[RunResult, State]:
    """Run dense inputs at once, and events in blocks of steps, of at most BLOCK_BYTES where a step takes no more."""
    if not isinstance(inputs, EventInputs):
        return run(inputs, state)
    fit = max(1, BLOCK_BYTES // max(1, 4 * inputs.batch * math.prod(inputs.shape)))
    results: list[RunResult] = []
    for first in range(0, inputs.time_steps, fit):
        block = inputs.between(first, min(first + fit, inputs.time_steps)).dense()
        result, state = run(block, state)
        results.append(result)
    assert state is not None  # noqa: S101  (there is at least one step)
    return one_run(results), state


def one_run(results: Sequence[RunResult]) -> RunResult:
    """Return the result of a run whose steps were run in several calls, at least one, each from the state before."""
    *before, last = results
    if not before:
        return last
    operations = [each for result in results if (each := result.synaptic_operations) is not None]
    return RunResult(
        spike_counts=last.spike_counts,
        readout=last.readout,
        synaptic_operations=np.sum(operations, axis=0) if operations else None,
        spikes_per_node={
            name: np.sum([result.spikes_per_node[name] for result in results], axis=0) for name in last.spikes_per_node
        },
        rasters={name: np.concatenate([result.rasters[name] for result in results]) for name in last.rasters},
        membranes={name: np.concatenate([result.membranes[name] for result in results]) for name in last.membranes},
    )
