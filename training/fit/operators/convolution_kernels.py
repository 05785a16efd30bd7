"""The kernels of convolutions and pools that follow spikes.

Events have the places of PyTorch's order, channel after channel. A convolution adds up a row of outputs, and a row of
errors is read, with channels last and padded to whole vectors, as the event engine does; each is turned around in the
cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import borrowing
from spikeserve.models.engines.event.currents import ONE, Array, aligned_floats
from spikeserve.models.engines.event.vectors import LANES, add_block, add_block_values, copy
from spikeserve.training.fit.operators.products import transpose
from spikeserve.training.fit.operators.threads import Kernel


@borrowing
def reached(senders: Any, place: int) -> Any:
    """Return where an event's blocks begin, in a row and among the weights, and their lines, number and vectors."""
    return (
        np.int64(senders.sender[place, 0]),
        np.int64(senders.sender[place, 1]),
        np.int64(senders.sender[place, 2]),
        np.int64(senders.sender[place, 3]),
        np.int64(senders.sender[place, 4]),
    )


@borrowing
def scatter(row: Array, senders: Any, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send to a row of outputs."""
    weight, output_step, weight_step = senders.weight, senders.output_step, senders.weight_step
    for k in range(k0, k1):
        o, w, lines, blocks, vectors = reached(senders, np.int64(index[k]))
        for _ in range(blocks):
            if value.size:
                add_block_values(row, o, weight, w, lines, vectors, output_step, weight_step, value[k], senders.halves)
            else:
                add_block(row, o, weight, w, lines, vectors, output_step, weight_step, ONE, senders.halves)
            o += senders.column_step
            w += senders.kernel_step


@Kernel
def run_convolution(
    index: Array, value: Array, offset: Array, senders: Any, base: Array, stride: int, channels: int, positions: int,
    currents: Array, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Write `base` and what the events of the rows `first` to `end` send into currents (rows, channels, positions).

    `base` is a row with channels last, `stride` apart from position to position.
    """
    row_of = aligned_floats(base.size + 4 * LANES)
    row_of[:] = 0.0
    size = channels * positions
    for row in range(first, end):
        copy(row_of, 0, base, 0, base.size)
        scatter(row_of, senders, index, value, offset[row], offset[row + 1])
        transpose(currents, row * size, positions, row_of, 0, stride, positions, channels, True, False)


@Kernel
def convolution_gradient(
    errors: Array, index: Array, value: Array, offset: Array, senders: Any, base: Array, stride: int, channels: int,
    positions: int, gradients: Array, first: int, end: int, part: int,
) -> None:  # fmt: skip
    """Add the errors (rows, channels, positions) that the events of the rows `first` to `end` reach to a gradient.

    That is the part's of gradients (parts, weights of the senders), whose order is that of the senders's weight.
    """
    count = senders.weight.size
    gradient = gradients[part * count : (part + 1) * count]
    gradient[:] = 0.0
    row_of = aligned_floats(base.size + 4 * LANES)
    row_of[:] = 0.0
    size = channels * positions
    for row in range(first, end):
        if offset[row] == offset[row + 1]:
            continue
        transpose(row_of, 0, stride, errors, row * size, positions, channels, positions, False, True)
        for k in range(offset[row], offset[row + 1]):
            factor = value[k] if value.size else np.float32(1)
            o, w, lines, blocks, vectors = reached(senders, np.int64(index[k]))
            step, weight_step = senders.output_step, senders.weight_step
            for _ in range(blocks):
                if senders.halves or value.size:
                    add_block_values(gradient, w, row_of, o, lines, vectors, weight_step, step, factor, senders.halves)
                else:
                    add_block(gradient, w, row_of, o, lines, vectors, weight_step, step, ONE, False)
                o += senders.column_step
                w += senders.kernel_step


@Kernel
def pool_spikes(
    index: Array, offset: Array, windows: Array, count: int, vectors: int, divisor: float, bits: Array, sums: Array,
    first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Set the bits (rows, vectors of LANES) of the windows in which anything spikes; -1 is no window.

    Unless `sums` is empty, write the spikes in each window, divided by `divisor`, to it (rows, count).
    """
    for row in range(first, end):
        start = row * count
        bits[row * vectors : (row + 1) * vectors] = 0
        sums[start : start + count] = 0.0
        for k in range(offset[row], offset[row + 1]):
            window = windows[index[k]]
            if window >= 0:
                at = row * vectors + window // LANES
                bits[at] = bits[at] | np.uint16(1 << (window % LANES))
                if sums.size:
                    sums[start + window] += 1.0
        if sums.size and divisor != 1.0:
            for window in range(count):
                sums[start + window] /= divisor


@Kernel
def spread_gradient(
    windows: Array, count: int, divisor: float, pooled: Array, gradient: Array, first: int, end: int, _: int
) -> None:  # fmt: skip
    """Write the gradient of each place's window in pooled rows (rows, count), divided by `divisor`; -1 is no window."""
    shares = np.zeros(count + 1, np.float32)  # the last is of places without a window
    for row in range(first, end):
        for window in range(count):
            shares[window] = pooled[row * count + window] / divisor
        start = row * windows.size
        for place in range(windows.size):
            gradient[start + place] = shares[windows[place]]


@Kernel
def pool_gradient(
    index: Array, offset: Array, windows: Array, starts: Array, pooled: Array, gradient: Array, first: int, end: int,
    _: int,
) -> None:  # fmt: skip
    """Write the gradients of pooled rows (rows, windows) to the first spike of each window, or to its first place."""
    places = starts.copy()
    size, count = windows.size, starts.size
    for row in range(first, end):
        gradient[row * size : (row + 1) * size] = 0.0
        for k in range(offset[row + 1] - 1, offset[row] - 1, -1):
            window = windows[index[k]]
            if window >= 0:
                places[window] = index[k]
        for window in range(count):
            gradient[row * size + places[window]] = pooled[row * count + window]
            places[window] = starts[window]
