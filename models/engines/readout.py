"""The readout, shared by all engines: from the last layer's output to counts, readout and the state of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.state import NO_SPIKE, READOUT, SPIKE_COUNTS, State, Steps, steps_since_rest
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.readouts import Reduction

Counts = NDArray[np.int64]

# The most spikes that a neuron may fire in one step (fire "multiple"): up to here float32 holds every count exactly,
# and their sums fit int64.
MAX_SPIKES = 2**24


class ReadoutAnswer(NamedTuple):
    """Of all steps since rest: the output spikes, what the answer is read from, and the state's arrays for both."""

    spike_counts: Counts
    readout: FloatArray
    carried: dict[str, NDArray[Any]]


def read_out(
    readout: Readout, counts: Counts | None, values: NDArray[Any] | None, time_steps: int, state: State | None
) -> ReadoutAnswer:
    """Return the answer, each array (batch, classes), after the steps of this call.

    `counts` (batch, *shape) is how often each neuron of the readout node fired in these steps, None where it cannot.
    `values` is what the answer is read from, spikes, another output or a membrane: (time_steps, batch, *shape), or (1,
    batch, *shape) where every step is the same; None for a spike count. Sums and means are summed in float64, step by
    step from rest, so that no bit depends on the engine or on how the run was split into calls.
    """
    if counts is not None and counts.ndim > 2:
        counts = counts.reshape(len(counts), math.prod(counts.shape[1:]))
    if readout is Readout.SPIKE_COUNT:
        assert counts is not None  # noqa: S101  (a spec that is read by its spikes has a readout node that fires)
        counts = _so_far(counts, state, READOUT)
        return ReadoutAnswer(counts, counts.astype(np.float32), {READOUT: counts})
    assert values is not None  # noqa: S101
    steps = values if values.ndim == 3 else values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
    if len(steps) != time_steps:
        steps = np.broadcast_to(steps, (time_steps, *steps.shape[1:]))
    taken = steps_since_rest(state, steps.shape[1])[:, np.newaxis]
    before = None if state is None else state.arrays[READOUT]
    if readout is Readout.FIRST_SPIKE:
        first = _first_spike(steps, before, taken)
        read, carried = np.where(first == NO_SPIKE, 0, taken + time_steps - first), first
    else:
        read, carried = REDUCTIONS[readout.reduction](steps, before, taken)
    kept = {READOUT: carried}
    if counts is None:
        return ReadoutAnswer(np.zeros(steps.shape[1:], np.int64), read.astype(np.float32), kept)
    counts = _so_far(counts, state, SPIKE_COUNTS)
    return ReadoutAnswer(counts, read.astype(np.float32), kept | {SPIKE_COUNTS: counts})


def _so_far(counts: Counts, state: State | None, name: str) -> Counts:
    total: Counts = counts if state is None else state.arrays[name] + counts
    return total


def _first_spike(spikes: NDArray[Any], before: NDArray[Any] | None, taken: Steps) -> Counts:
    """Return the step of each neuron's first spike since rest, from 0, and -1 for none."""
    fired = spikes > 0
    first = np.where(fired.any(axis=0), taken + fired.argmax(axis=0), NO_SPIKE)
    return first if before is None else np.where(before == NO_SPIKE, first, before)


# Each takes the values of this call's steps (time_steps, batch, classes), the state's array or None, and how many steps
# there were before (batch, 1); it returns what is read, and the state's array.
Reduced = tuple[NDArray[Any], NDArray[Any]]


def _last(steps: NDArray[Any], _: NDArray[Any] | None, __: Steps) -> Reduced:
    now = steps[-1].astype(np.float32)  # a copy: a view would keep all steps in memory
    return now, now


def _greatest(steps: NDArray[Any], before: NDArray[Any] | None, _: Steps) -> Reduced:
    greatest = steps.max(axis=0).astype(np.float32)
    greatest = greatest if before is None else np.maximum(before, greatest)
    return greatest, greatest


def _sum(steps: NDArray[Any], before: NDArray[Any] | None, _: Steps) -> Reduced:
    summed = steps if before is None else np.concatenate([before[np.newaxis], steps])
    total = np.add.accumulate(summed, axis=0, dtype=np.float64)[-1].copy()
    return total, total


def _mean(steps: NDArray[Any], before: NDArray[Any] | None, taken: Steps) -> Reduced:
    total, _ = _sum(steps, before, taken)
    return total / (taken + len(steps)), total


REDUCTIONS: Mapping[Reduction, Callable[[NDArray[Any], NDArray[Any] | None, Steps], Reduced]] = {
    Reduction.SUM: _sum,
    Reduction.MEAN: _mean,
    Reduction.MAX: _greatest,
    Reduction.LAST: _last,
}


def check_spikes(node: str, most: float) -> None:
    """Raise InvalidInput if a neuron of `node` fired more often in one step than can be counted.

    `most` is the largest number of spikes of any of its neurons at any step; it may be infinite.
    """
    if not most <= MAX_SPIKES:
        raise InvalidInput(
            f"node '{node}': a neuron fires {most:.15g} times in one step, expected at most {MAX_SPIKES}; "
            "its threshold is too low for these inputs"
        )
