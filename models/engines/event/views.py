"""Arrays and records by their addresses, for the native functions of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import borrowing
from spikeserve.models.engines.event.native import array_at
from spikeserve.models.engines.event.table import NODE, RUN, SIGNAL, Events, Feed

EVERYTHING = 2**40  # as the size of an array of which no function asks how long it is
nodes_at, signals_at, runs_at = array_at(NODE), array_at(SIGNAL), array_at(RUN)
floats_at, ints_at, longs_at = map(array_at, (np.float32, np.int32, np.int64))
words_at, doubles_at = map(array_at, (np.uint64, np.float64))


@borrowing
def carried_of(run: Any, sample: int) -> Any:
    """Return where a sample's state lies."""
    return longs_at(run.states, EVERYTHING)[sample] if run.states else run.carried + 4 * sample * run.floats


@borrowing
def is_over(run: Any, more: Any) -> bool:
    """Return whether a group has more operations than the run may, these included, and then ask it to stop."""
    stop, results, total = longs_at(run.stop, 2), longs_at(run.results, EVERYTHING), np.int64(more)
    if not stop[1]:
        return False
    for sample in range(run.samples):
        total += results[sample * run.width]
    if total > stop[1]:
        stop[0] = 1
    return total > stop[1]


@borrowing
def events_of(signal: Any, samples: int) -> Any:
    """Return a signal's events, or none where it has rows alone."""
    rows = samples * signal.steps
    offset = longs_at(signal.offset, rows + 1)
    count = offset[rows] if signal.offset else np.int64(0)
    return Events(ints_at(signal.index, count), floats_at(signal.value, count if signal.value else 0), offset)


@borrowing
def feed_of(node: Any, kind: int) -> Any:
    """Return a connection's tables; those of a node that is none are empty."""
    return Feed(
        kind, floats_at(node.weight, node.weight_count),
        ints_at(node.first_weight, node.first_weight_count), ints_at(node.receivers, node.receivers_count),
        node.channels, node.fan_out, node.summed, node.grid, node.most, node.fine, node.fan_in,
    )  # fmt: skip
