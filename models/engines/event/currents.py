"""What events send through a weighted connection: the compiled functions that the kernels of `kernels` call.

A sum starts with the bias (or what `base` holds) and adds weights in the order of the events, one at a time. It is
exact and rounds once, see `models.spec.sums`: it is added up in float32 where that holds every partial sum, else in
integers or in float64. (Training uses the functions for float32 too, and lets them round.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.compiled import borrowing, inlined, inner
from spikeserve.models.engines.event.connections import BUSY, DOUBLES, GATHER, INTEGERS, NARROW, PANEL, PASS
from spikeserve.models.engines.event.native import address_of
from spikeserve.models.engines.event.table import Events
from spikeserve.models.engines.event.vectors import (
    BYTE_PANEL,
    LANES,
    TILE_ROWS,
    copy,
    gather_bytes,
    gather_bytes_in_doubles,
    gather_exact_values,
    gather_floats_in_doubles,
    gather_integers_in_doubles,
    gather_spikes,
    gather_to_floats,
    multiply_integer_panel,
    multiply_panel,
    to_floats,
)
from spikeserve.models.engines.event.views import EVERYTHING, ints_at

Array = NDArray[Any]

ONE = np.float32(1)  # where an intrinsic scales nothing; in place of values that it does not read, `base` is passed
LINE = 16  # floats of a cache line
BLOCK = 2**17  # floats of the currents, and of the spikes, that a layer has at once: half of an L2 cache


@inner
def aligned_floats(count: int) -> Array:
    """Return an array that begins with a line of the cache, and holds anything."""
    room = np.empty(count + LINE, np.float32)
    start = -address_of(room) // 4 % LINE
    return room[start : start + count]


@borrowing
def gather_panels(sums: Array, feed: Any, size: int, events: Any, first: int, rows: int, base: Array) -> None:
    """Write base plus what the events of `rows` rows from `first` on send through panels into sums (rows, size).

    Floats may have values where float32 holds every partial sum; others are spikes.
    """
    index, value, weight, grid = events.index, events.value, feed.weight, np.float32(feed.grid)
    panel = BYTE_PANEL if feed.summed == NARROW else PANEL
    for j in range(0, size, panel):
        width, w = min(panel, size - j), feed.fan_in * j
        for r in range(rows):
            k0, k1, s = events.offset[first + r], events.offset[first + r + 1], r * size + j
            if feed.summed == NARROW:
                gather_bytes(sums, s, base, j, weight, w, width, width, index, value, k0, k1, size)
            elif feed.summed == INTEGERS:
                gather_to_floats(sums, s, base, j, weight, w, width, width, index, value, k0, k1, grid)
            elif value.size:
                gather_exact_values(sums, s, base, j, weight, w, width, width, index, value, k0, k1, ONE)
            else:
                gather_spikes(sums, s, base, j, weight, w, width, width, index, value, k0, k1, ONE)


@borrowing
def gather_doubles(sums: Array, feed: Any, size: int, base: Array, index: Array, value: Array) -> None:
    """Write base plus the weights of events times their values into sums, added up in float64."""
    weight, none, count, grid = feed.weight, np.int64(0), index.size, np.float32(feed.grid)
    panel = BYTE_PANEL if feed.summed == NARROW else PANEL
    for j in range(0, size, panel):
        width, w = min(panel, size - j), feed.fan_in * j
        if feed.summed == NARROW:
            gather_bytes_in_doubles(sums, j, base, j, weight, w, width, width, index, value, none, count, size)
        elif feed.summed == INTEGERS:
            gather_integers_in_doubles(sums, j, base, j, weight, w, width, width, index, value, none, count, grid)
        else:
            gather_floats_in_doubles(sums, j, base, j, weight, w, width, width, index, value, none, count, ONE)


@inlined
def multiply(
    sums: Array, spikes: Array, rows: int, base: Array, weight: Array, size: int, units: int, integers: bool,
    grid: np.float32,
) -> None:  # fmt: skip
    """Write base plus spikes (rows, units) times the weights into sums (rows, size), the rows whole tiles.

    For a layer where so many neurons fire that reading every weight once for several steps beats picking some for each.
    The bits of a spike among `integers` are all 1; their sums are written times `grid`.
    """
    for j in range(0, size, PANEL):
        width, w = min(PANEL, size - j), units * j
        for r in range(0, rows, TILE_ROWS):
            s, x = r * size + j, r * units
            if integers:
                multiply_integer_panel(sums, s, size, spikes, x, units, units, base, j, weight, w, width, grid)
            else:
                multiply_panel(sums, s, size, spikes, x, units, units, base, j, weight, w, width, ONE)


@borrowing
def add_sparse(row: Array, feed: Any, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send through sparse weights to a row.

    A row and values of float64 are added up in it. Integers are added to the bits of a row where there are no values.
    Places are unsigned: at each of the others Numba would ask whether it counts from the end.
    """
    weight, receivers, whole_numbers = feed.weight, feed.receivers, feed.summed == INTEGERS
    sums, integers = ints_at(address_of(row), EVERYTHING), ints_at(address_of(feed.weight), EVERYTHING)
    for k in range(k0, k1):
        place = np.uint64(index[k])
        first, end = np.uint64(feed.first_weight[place]), np.uint64(feed.first_weight[place + np.uint64(1)])
        if value.size:
            add_nothing(row, feed, value[k], np.int64(first), np.int64(end))
            for w in range(first, end):
                factor = integers[w] if whole_numbers else weight[w]
                row[np.uint64(receivers[w])] += factor * value[k]
        elif whole_numbers:
            for w in range(first, end):
                sums[np.uint64(receivers[w])] += integers[w]
        else:
            for w in range(first, end):
                row[np.uint64(receivers[w])] += weight[w]


@inlined
def add_nothing(sums: Array, feed: Any, value: float, first: int, end: int) -> None:
    """Add a value times 0, which is NaN for infinities, to the outputs that have none of the weights."""
    nothing = value * np.float32(0)
    if nothing == 0:
        return
    for j in range(feed.channels):
        if first < end and feed.receivers[first] == j:
            first += 1
        else:
            sums[j] += nothing


@inlined
def sparse_doubles(
    sums: Array, s: int, base: Array, feed: Any, size: int, index: Array, value: Array, k0: int, k1: int
) -> None:
    """Write base (size,) plus what the events k0 to k1 send by sparse weights into sums[s:], added up in float64."""
    integers, start = feed.summed == INTEGERS, ints_at(address_of(base), EVERYTHING)
    totals = np.empty(size + LANES, np.float64)
    for i in range(size):  # Numba's assignment to a slice would compile a second of sentences about its errors
        totals[i] = np.float64(start[i]) if integers else np.float64(base[i])
    add_sparse(totals, feed, index, value.astype(np.float64), k0, k1)
    row, grid = sums[s : s + size], feed.grid
    for i in range(size):
        row[i] = np.float32(totals[i] * grid)


@borrowing
def spikes_of(value: Array, most: float) -> Any:
    """Return how many spikes events with values are, 0 for those that have none; -1 where one is not 1, 2, … `most`."""
    others, total = 0, np.int64(0)
    for k in range(value.size):
        others += not 1.0 <= value[k] <= most or value[k] != np.floor(value[k])
        total += np.int64(value[k])
    return np.int64(-1 if others else total)


@inlined
def as_spikes(place: Array, value: Array, most: float) -> Array:
    """Return the places of events, each as often as its value says; empty where not all are spikes, see `spikes_of`."""
    spikes = np.empty(max(np.int64(0), spikes_of(value, most)), np.int32)
    count = 0
    for k in range(place.size if spikes.size else 0):
        for _ in range(int(value[k])):
            spikes[count] = place[k]
            count += 1
    return spikes


@inlined
def are_whole(value: Array, factor: float) -> bool:
    """Return whether all values times a power of two are whole numbers."""
    others = 0
    for k in range(value.size):
        scaled = value[k] * factor
        others += scaled != np.floor(scaled)
    return others == 0


@borrowing
def sparse_row(
    sums: Array, s: int, base: Array, feed: Any, size: int, index: Array, value: Array, k0: int, k1: int
) -> None:
    """Write base plus what the events k0 to k1 send by sparse weights into sums[s:]."""
    copy(sums, s, base, 0, size)
    add_sparse(sums[s:], feed, index, value, k0, k1)
    if feed.summed == INTEGERS:
        to_floats(sums, s, size, np.float32(feed.grid))


@inlined
def connect_values(sums: Array, feed: Any, size: int, events: Any, first: int, rows: int, base: Array) -> None:
    """Do what `connect` does for events with values, or for a sum that has to be added up in float64."""
    bounds, none = np.zeros(2, np.int64), np.int64(0)
    for r in range(rows):
        k0, k1 = events.offset[first + r], events.offset[first + r + 1]
        place = events.index[k0:k1]
        value = events.value[k0:k1] if events.value.size else np.ones(k1 - k0, np.float32)
        spikes = as_spikes(place, value, feed.most)
        if feed.summed != DOUBLES and spikes.size:
            place, value = spikes, value[:0]
        bounds[1] = place.size
        in_doubles = value.size > 0 and not (feed.fine and are_whole(value, feed.fine))
        if feed.kind == GATHER and in_doubles:
            gather_doubles(sums[r * size :], feed, size, base, place, value)
        elif feed.kind == GATHER:
            gather_panels(sums[r * size :], feed, size, Events(place, value, bounds), none, 1, base)
        elif in_doubles:
            sparse_doubles(sums, r * size, base, feed, size, place, value, none, bounds[1])
        else:
            sparse_row(sums, r * size, base, feed, size, place, value, none, bounds[1])


@borrowing
def connect(sums: Array, feed: Any, size: int, events: Any, first: int, rows: int, base: Array, spikes: Array) -> None:
    """Write the currents of `rows` rows of events from `first` on into sums (rows, size), with a vector's room behind.

    The currents are floats, whatever they are added up in; see `connect_values` for `node_kernels.is_valued`.
    Rows that are `busy` go by `multiply`, which takes them in `spikes`, see `room_for_spikes`.
    """
    index, value, offset = events.index, events.value, events.offset
    k0, k1 = offset[first], offset[first + 1]
    if feed.kind == PASS:  # one row at a time, as of sparse weights
        sums[:size] = 0.0
        for k in range(k0, k1):
            sums[index[k]] = value[k] if value.size else np.float32(1.0)
        return
    if feed.kind != GATHER:
        sparse_row(sums, 0, base, feed, size, index, value, k0, k1)
        return
    if not busy(feed, events, first, rows):
        gather_panels(sums, feed, size, events, first, rows, base)
        return
    units, integers, tiled = feed.fan_in, feed.summed == INTEGERS, -(-rows // TILE_ROWS) * TILE_ROWS
    spikes[: tiled * units] = 0.0
    bits = ints_at(address_of(spikes), EVERYTHING)
    for r in range(rows):
        for k in range(offset[first + r], offset[first + r + 1]):
            if integers:
                bits[r * units + index[k]] = -1
            else:
                spikes[r * units + index[k]] = 1.0
    multiply(sums, spikes, tiled, base, feed.weight, size, units, integers, np.float32(feed.grid))


@borrowing
def busy(feed: Any, events: Any, first: int, rows: int) -> bool:
    """Return whether more of a GATHER's inputs spike in `rows` rows from `first` on than the BUSY share."""
    if feed.kind != GATHER or feed.summed == NARROW or events.value.size:
        return False
    return events.offset[first + rows] - events.offset[first] > BUSY * rows * feed.fan_in


@inlined
def room_for_spikes(feed: Any, events: Any, rows: int, at_once: int) -> Array:
    """Make the array that `connect` takes as `spikes` for `at_once` of the rows at a time; it is often empty."""
    for first in range(0, rows, at_once):
        if busy(feed, events, first, min(at_once, rows - first)):
            return aligned_floats(-(-at_once // TILE_ROWS) * TILE_ROWS * feed.fan_in)
    return np.empty(0, np.float32)


@borrowing
def rows_at_once(feed: Any, width: int, rows: int) -> int:
    """Return how many rows of so many currents are made at once: so many that they and their spikes fit BLOCK."""
    if feed.kind != GATHER:
        return max(min(rows, 1), 1)  # no literal, which Numba would compile for once more
    return min(max(rows, 1), max(TILE_ROWS, BLOCK // max(width, feed.fan_in)))
