"""The readout, shared by all engines: from the last layer's output to counts, readout and the state of both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.state import READOUT, State
from models.errors import InvalidInput
from models.spec import Readout
from models.spec.network import FloatArray

Counts = NDArray[np.int64]

# The most spikes that a neuron may fire in one step (fire "multiple"): up to here float32 holds every count exactly,
# and their sums fit int64.
MAX_SPIKES = 2**24


class ReadoutAnswer(NamedTuple):
    """Of all steps since rest: the output spikes, what the class is read from, and the state's array for both."""

    spike_counts: Counts
    readout: FloatArray
    carried: NDArray[Any]


def read_out(rule: Readout, last: NDArray[Any], state: State | None) -> ReadoutAnswer:
    """Return the answer, each array (batch, classes), after the steps of this call.

    `last` is the output of this call's steps: for a spike count, how often each output neuron fired, int64 (batch,
    classes); otherwise the last layer's membrane (time_steps, batch, classes). The mean is summed in float64, step by
    step from rest, so that no bit depends on the engine or on how the run was split into calls.
    """
    before = None if state is None else state.arrays[READOUT]
    if rule is Readout.SPIKE_COUNT:
        counts: Counts = last if before is None else before + last
        return ReadoutAnswer(counts, counts.astype(np.float32), counts)
    silent = np.zeros(last.shape[1:], np.int64)
    if rule is Readout.LAST_MEMBRANE:
        now = last[-1].copy()  # a view would keep all steps in memory
        return ReadoutAnswer(silent, now, now)
    if rule is Readout.MAX_MEMBRANE:
        greatest = last.max(axis=0)
        greatest = greatest if before is None else np.maximum(before, greatest)
        return ReadoutAnswer(silent, greatest, greatest)
    steps = len(last) + (0 if state is None else state.steps)
    summed = last if before is None else np.concatenate([before[np.newaxis], last])
    total = np.add.accumulate(summed, axis=0, dtype=np.float64)[-1].copy()
    return ReadoutAnswer(silent, (total / steps).astype(np.float32), total)


def check_spikes(node: str, most: float) -> None:
    """Raise InvalidInput if a neuron of `node` fired more often in one step than can be counted.

    `most` is the largest number of spikes of any of its neurons at any step; it may be infinite.
    """
    if not most <= MAX_SPIKES:
        raise InvalidInput(
            f"node '{node}': a neuron fires {most:.15g} times in one step, expected at most {MAX_SPIKES}; "
            "its threshold is too low for these inputs"
        )
