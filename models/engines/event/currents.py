"""What events send through a weighted connection: the compiled functions that the kernels of `kernels` call.

A sum starts with the bias (or what `base` holds) and adds weights in the order of the events, one at a time. So it is
the same in any batch and on any number of threads; which other order another engine takes is its own affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.event.compiled import inner
from models.engines.event.connections import PANEL, SCATTER
from models.engines.event.vectors import (
    LANES,
    TILE_ROWS,
    TILE_VECTORS,
    add_block,
    add_block_half,
    add_block_values,
    add_block_values_half,
    copy,
    gather_1,
    gather_2,
    gather_4,
    gather_values_1,
    gather_values_2,
    gather_values_4,
    multiply_column,
    multiply_tile,
)

Array = NDArray[Any]

LINE = 16  # floats of a cache line
BLOCK = 2**17  # floats of the currents, and of the spikes, that a layer has at once: half of an L2 cache


@inner
def aligned_floats(count: int) -> Array:
    """Return an array that begins with a line of the cache, and holds anything."""
    room = np.empty(count + LINE, np.float32)
    start = -room.ctypes.data // 4 % LINE
    return room[start : start + count]


@inner
def gather(
    sums: Array, s: int, base: Array, b: int, weight: Array, w: int, width: int, unit: int, index: Array, value: Array,
    k0: int, k1: int,
) -> None:  # fmt: skip
    """Write base[b:] plus the weights of the events k0 to k1 into sums[s:], `width` of each.

    Those of an event lie at w + index * unit.
    """
    j = 0
    while j < width:
        left = width - j
        if value.size:
            if left >= 4 * LANES:
                gather_values_4(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
            elif left >= 2 * LANES:
                gather_values_2(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
            else:
                gather_values_1(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
        elif left >= 4 * LANES:
            gather_4(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
        elif left >= 2 * LANES:
            gather_2(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
        else:
            gather_1(sums, s + j, base, b + j, weight, w + j, unit, index, value, k0, k1)
        j += LANES * (4 if left >= 4 * LANES else 2 if left >= 2 * LANES else 1)


@inner
def multiply(sums: Array, spikes: Array, rows: int, base: Array, weight: Array, size: int, units: int) -> None:
    """Write base plus spikes (rows, units) times the weights into sums (rows, size), the rows whole tiles.

    For a layer where so many neurons fire that reading every weight once for several steps beats picking some for each.
    """
    for j in range(0, size, PANEL):
        width = min(PANEL, size - j)
        for r in range(0, rows, TILE_ROWS):
            column = 0
            while column < width:
                s, w = r * size + j + column, units * j + column
                if column + TILE_VECTORS * LANES <= width:
                    multiply_tile(sums, s, size, spikes, r * units, units, units, base, j + column, weight, w, width)
                    column += TILE_VECTORS * LANES
                else:
                    multiply_column(sums, s, size, spikes, r * units, units, units, base, j + column, weight, w, width)
                    column += LANES


@inner
def scatter(row: Array, feed: Any, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send through a convolution to a row of its output; see `connections.Feed`.

    Where there is a `channel_step`, consecutive events of one position are added in one go, so that the
    outputs are read and written once.
    """
    weight, output_step, weight_step, unit = feed.weight, feed.output_step, feed.weight_step, feed.channel_step
    first = k0
    while first < k1:
        place = index[first]
        position, weights_at, group_at = feed.sender[place, 0], feed.sender[place, 1], feed.sender[place, 2]
        end = first + 1
        while unit and end < k1 and feed.sender[index[end], 0] == position:
            end += 1
        for block in range(feed.first_block[position], feed.first_block[position + 1]):
            o, w = np.int64(feed.blocks[block, 0] + group_at), np.int64(feed.blocks[block, 1] + weights_at)
            lines, vectors = np.int64(feed.blocks[block, 2]), np.int64(feed.blocks[block, 3])
            if end - first > 1:
                w -= place * unit
                for _ in range(lines):
                    gather(row, o, row, o, weight, w, vectors * LANES, unit, index, value, first, end)
                    o += output_step
                    w += weight_step
            elif value.size:
                if feed.halves:
                    add_block_values_half(row, o, weight, w, lines, vectors, output_step, weight_step, value[first])
                else:
                    add_block_values(row, o, weight, w, lines, vectors, output_step, weight_step, value[first])
            elif feed.halves:
                add_block_half(row, o, weight, w, lines, vectors, output_step, weight_step, np.float32(1))
            else:
                add_block(row, o, weight, w, lines, vectors, output_step, weight_step, np.float32(1))
        first = end


@inner
def connect(
    sums: Array, feed: Any, size: int, units: int, events: Any, first: int, rows: int, base: Array,
    spikes: Array,
) -> Array:  # fmt: skip
    """Write the currents of `rows` rows of events from `first` on into sums (rows, size), and return `spikes`.

    Rows of which a larger share than the connection's `busy` spikes go by `multiply`, which takes them as floats in
    `spikes`.
    """
    index, value, offset = events.index, events.value, events.offset
    if feed.kind == SCATTER:
        for r in range(rows):
            copy(sums, r * size, base, 0, size)
            scatter(sums[r * size :], feed, index, value, offset[first + r], offset[first + r + 1])
        return spikes
    if not value.size and offset[first + rows] - offset[first] > feed.busy * rows * units:
        tiled = -(-rows // TILE_ROWS) * TILE_ROWS
        if not spikes.size:
            spikes = aligned_floats(tiled * units)
        spikes[: tiled * units] = 0.0
        for r in range(rows):
            for k in range(offset[first + r], offset[first + r + 1]):
                spikes[r * units + index[k]] = 1.0
        multiply(sums, spikes, tiled, base, feed.weight, size, units)
        return spikes
    for j in range(0, size, PANEL):
        for r in range(rows):
            k0, k1 = offset[first + r], offset[first + r + 1]
            width = min(PANEL, size - j)
            gather(sums, r * size + j, base, j, feed.weight, units * j, width, width, index, value, k0, k1)
    return spikes


@inner
def rows_at_once(feed: Any, size: int, units: int, rows: int) -> int:
    """Return how many rows of a connection's currents are made at once: so many that they and its spikes fit BLOCK."""
    if feed.kind == SCATTER:
        return 1
    return min(max(rows, 1), max(TILE_ROWS, BLOCK // max(size, units)))
