"""The kernels: each runs one node through all steps of some samples, and its work follows what is not zero.

Between nodes spikes travel as events. `index` (int32) holds the positions that are not zero, row after row; a row is
one step of one sample, sample * time_steps + step, and the events of row r are those from offset[r] to offset[r + 1].
`value` (float32) holds what stands there, or is empty where all are 1. Positions are of the layouts that `layouts`
makes: channels last, padded to whole vectors. A dense signal is float32 rows of a layout's size.

A sum starts with the bias (or what `base` holds) and adds weights in the order of the events, one at a time. So it is
the same in any batch and on any number of threads; which other order another engine takes is its own affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.event.compiled import kernel
from models.engines.event.connections import GATHER, NO_FEED, SCATTER
from models.engines.event.vectors import (
    LANES,
    TILE_ROWS,
    TILE_VECTORS,
    WIDE,
    add_run,
    add_run_values,
    gather_1,
    gather_4,
    gather_16,
    gather_values_1,
    gather_values_4,
    gather_values_16,
    lowest_bit,
    multiply_column,
    multiply_tile,
    nonzero_bits,
    step_neurons,
    step_neurons_wide,
)

Array = NDArray[Any]

WORD = 64  # neurons whose spikes are looked through at once


@kernel
def gather(
    row: Array, base: Array, b: int, weight: Array, size: int, index: Array, value: Array, k0: int, k1: int
) -> None:
    """Write base[b:] plus the weight rows (units, size) of the events k0 to k1 into a row (size,)."""
    j = 0
    if value.size:
        while j + 16 * LANES <= size:
            gather_values_16(row, base, b, weight, j, size, index, value, k0, k1)
            j += 16 * LANES
        while j + 4 * LANES <= size:
            gather_values_4(row, base, b, weight, j, size, index, value, k0, k1)
            j += 4 * LANES
        while j < size:
            gather_values_1(row, base, b, weight, j, size, index, value, k0, k1)
            j += LANES
    else:
        while j + 16 * LANES <= size:
            gather_16(row, base, b, weight, j, size, index, value, k0, k1)
            j += 16 * LANES
        while j + 4 * LANES <= size:
            gather_4(row, base, b, weight, j, size, index, value, k0, k1)
            j += 4 * LANES
        while j < size:
            gather_1(row, base, b, weight, j, size, index, value, k0, k1)
            j += LANES


@kernel
def multiply(sums: Array, spikes: Array, weight: Array, size: int) -> None:
    """Add spikes (rows, units) times weight (units, size) to sums (rows, size), the rows a multiple of TILE_ROWS.

    For a layer where so many neurons fire that reading every weight once for several steps beats picking some for each.
    """
    rows, units = spikes.shape
    flat_sums, flat_spikes = sums.ravel(), spikes.ravel()
    j = 0
    while j < size:
        wide = j + TILE_VECTORS * WIDE <= size
        for r in range(0, rows, TILE_ROWS):
            if wide:
                multiply_tile(flat_sums, r * size, flat_spikes, r * units, units, weight, j, size)
            else:
                multiply_column(flat_sums, r * size, flat_spikes, r * units, units, weight, j, size)
        j += TILE_VECTORS * WIDE if wide else LANES


@kernel
def scatter(row: Array, feed: Any, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send through a convolution to a row of its output.

    An event at a place lies at the position position[place] and adds its runs, first_run[position] to
    first_run[position + 1]: (place in its channel's weights, place in the row, vectors). Its channel's weights begin at
    weights_at[place], and its channel's group of outputs at group_at[place].
    """
    for k in range(k0, k1):
        place = index[k]
        position, weights_at, group_at = feed.position[place], feed.weights_at[place], feed.group_at[place]
        for run in range(feed.first_run[position], feed.first_run[position + 1]):
            o, w, vectors = feed.runs[run, 1] + group_at, weights_at + feed.runs[run, 0], feed.runs[run, 2]
            if value.size:
                add_run_values(row, o, feed.weight, w, vectors, value[k])
            else:
                add_run(row, o, feed.weight, w, vectors, np.float32(1.0))


@kernel
def feed_row(
    row: Array, base: Array, b: int, feed: Any, size: int, index: Array, value: Array, k0: int, k1: int
) -> None:
    """Write base[b:] plus what the events k0 to k1 send through a connection into a row of its output."""
    if feed.kind == GATHER:
        gather(row, base, b, feed.weight, size, index, value, k0, k1)
        return
    row[:size] = base[b : b + size]
    if feed.kind == SCATTER:
        scatter(row, feed, index, value, k0, k1)


@kernel
def run_neurons(
    samples: int, steps: int, feed: Any, events: Any, base: Array, base_steps: int, neurons: Any, busy: float,
    trace: Array, index: Array, offset: Array,
) -> int:  # fmt: skip
    """Run a layer of neurons with the connection before it through all steps, and return how many spikes there were.

    A step's current begins as its own row of `base` (rows * size): one for all (`base_steps` 0), one for each sample
    (1) or one for each step. A sample of whose inputs a larger share than `busy` spikes goes by `multiply`. The spikes
    go into `index` and `offset` (samples * steps + 1), and the membranes after the reset into `trace`
    (samples * steps, size), unless that is empty.
    """
    size = neurons.decay.size
    row = np.zeros(size + LANES, np.float32)
    membrane = np.empty(size, np.float32)
    ones = np.empty(0, np.float32)
    units = feed.weight.size // size if feed.kind == GATHER else 0
    most = np.int64(units * steps * busy) if units and not events.value.size else np.iinfo(np.int64).max
    padded_steps = -(-steps // TILE_ROWS) * TILE_ROWS
    sums = np.empty((0, 0), np.float32)
    spikes = np.empty((0, 0), np.float32)
    count = 0
    offset[0] = 0
    for sample in range(samples):
        membrane[:] = 0.0
        before = count
        first = sample * steps
        dense = feed.kind == GATHER and events.offset[first + steps] - events.offset[first] > most
        if dense:
            if sums.size == 0:
                sums = np.empty((padded_steps, size), np.float32)
                spikes = np.empty((padded_steps, units), np.float32)
            sums[:] = base[:size]
            spikes[:] = 0.0
            for step in range(steps):
                for k in range(events.offset[first + step], events.offset[first + step + 1]):
                    spikes[step, events.index[k]] = 1.0
            multiply(sums, spikes, feed.weight, size)
        for step in range(steps):
            now = first + step
            if dense:
                row[:size] = sums[step]
            else:
                b = 0 if base_steps == 0 else size * (sample if base_steps == 1 else now)
                k0, k1 = np.int64(0), np.int64(0)
                if feed.kind != NO_FEED:
                    k0, k1 = events.offset[now], events.offset[now + 1]
                feed_row(row, base, b, feed, size, events.index, events.value, k0, k1)
            if neurons.recurrent_weight.size:
                gather(row, row, 0, neurons.recurrent_weight, size, index, ones, before, count)
                for j in range(size):
                    row[j] += neurons.recurrent_bias[j]
            before = count
            for block in range(0, size, WORD):
                word = np.uint64(0)
                j, end = block, min(block + WORD, size)
                while j < end:
                    wide = j + WIDE <= end
                    if wide:
                        bits = step_neurons_wide(
                            j, membrane, row, neurons.decay, neurons.gain, neurons.drive, neurons.fires_at,
                            neurons.change, neurons.to_value,
                        )  # fmt: skip
                    else:
                        bits = step_neurons(
                            j, membrane, row, neurons.decay, neurons.gain, neurons.drive, neurons.fires_at,
                            neurons.change, neurons.to_value,
                        )  # fmt: skip
                    word |= bits << np.uint64(j - block)
                    j += WIDE if wide else LANES
                while word:
                    index[count] = block + np.int64(lowest_bit(word))
                    count += 1
                    word &= word - np.uint64(1)
            if trace.size:
                trace[now] = membrane
            offset[now + 1] = count
    return count


@kernel
def run_connection(feed: Any, events: Any, bias: Array, rows: Array) -> None:
    """Write a connection's currents (rows, size) for as many rows of events."""
    size = bias.size
    row = np.zeros(size + LANES, np.float32)
    for r in range(rows.shape[0]):
        feed_row(row, bias, 0, feed, size, events.index, events.value, events.offset[r], events.offset[r + 1])
        rows[r] = row[:size]


@kernel
def find_events(
    values: Array, samples: int, steps: int, sample_stride: int, step_stride: int, width: int, places: Array,
    index: Array, value: Array, offset: Array,
) -> bool:  # fmt: skip
    """List what is not 0 in flat `values`, whose row for a sample and step is `width` long, and return if all are 1.

    Element j of a row becomes places[j], or stays j where `places` is empty.
    """
    count = 0
    all_ones = True
    offset[0] = 0
    for sample in range(samples):
        for step in range(steps):
            start = sample * sample_stride + step * step_stride
            j = 0
            while j < width:
                bits = np.uint64(0)
                if j + LANES <= width:
                    bits = nonzero_bits(values, start + j)
                else:
                    for lane in range(width - j):
                        bits |= np.uint64(values[start + j + lane] != 0) << np.uint64(lane)
                while bits:
                    at = j + np.int64(lowest_bit(bits))
                    bits &= bits - np.uint64(1)
                    index[count] = places[at] if places.size else at
                    value[count] = values[start + at]
                    all_ones &= values[start + at] == 1.0
                    count += 1
                j += LANES
            offset[sample * steps + step + 1] = count
    return all_ones


@kernel
def fill_rows(events: Any, rows: Array) -> None:
    """Write events as dense rows, which must be 0 before."""
    for r in range(rows.shape[0]):
        for k in range(events.offset[r], events.offset[r + 1]):
            rows[r, events.index[k]] = events.value[k] if events.value.size else 1.0


@kernel
def sum_windows(windows: Any, events: Any, size: int, divisor: float, index: Array, value: Array, offset: Array) -> int:
    """Pool events by the sum over each window, divided by `divisor`, into events of rows of `size`; return how many."""
    seen = np.full(size, -1, np.int32)
    slot = np.empty(size, np.int64)
    count = 0
    offset[0] = 0
    for r in range(offset.size - 1):
        first = count
        for k in range(events.offset[r], events.offset[r + 1]):
            given = events.value[k] if events.value.size else np.float32(1.0)
            for w in range(windows.overlaps):
                place = windows.outputs[events.index[k], w]
                if place < 0:
                    break
                if seen[place] != r:
                    seen[place] = r
                    slot[place] = count
                    index[count] = place
                    value[count] = given
                    count += 1
                else:
                    value[slot[place]] += given
        last = count
        count = first
        for k in range(first, last):  # what cancelled out is no event
            if value[k] != 0.0:
                index[count] = index[k]
                value[count] = value[k] / np.float32(divisor)
                count += 1
        offset[r + 1] = count
    return count


@kernel
def join_windows(windows: Any, events: Any, size: int, index: Array, offset: Array) -> int:
    """Pool spikes by the maximum over each window: a spike wherever there is one; return how many."""
    seen = np.full(size, -1, np.int32)
    count = 0
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            for w in range(windows.overlaps):
                place = windows.outputs[events.index[k], w]
                if place < 0:
                    break
                if seen[place] != r:
                    seen[place] = r
                    index[count] = place
                    count += 1
        offset[r + 1] = count
    return count


@kernel
def pool_rows(windows: Any, take_maximum: bool, divisor: float, rows: Array, pooled: Array) -> None:
    """Pool dense rows (rows, size) into (rows, pooled size), by the maximum or by the sum divided by `divisor`."""
    channels = windows.channels
    for r in range(rows.shape[0]):
        for q in range(windows.first_input.size - 1):
            first = windows.first_input[q]
            for channel in range(channels):
                best = rows[r, windows.inputs[first] * channels + channel]
                for w in range(first + 1, windows.first_input[q + 1]):
                    other = rows[r, windows.inputs[w] * channels + channel]
                    if take_maximum:
                        best = max(best, other)
                    else:
                        best += other
                pooled[r, q * channels + channel] = best if take_maximum else best / np.float32(divisor)


@kernel
def count_operations(index: Array, offset: Array, steps: int, cost: Array, totals: Array) -> None:
    """Add what each sample's events cost, cost[index], to totals (samples,)."""
    for sample in range(totals.size):
        total = 0
        for k in range(offset[sample * steps], offset[(sample + 1) * steps]):
            total += cost[index[k]]
        totals[sample] += total


@kernel
def count_units(index: Array, offset: Array, steps: int, counts: Array) -> None:
    """Count how often each unit fired, into counts (samples, units)."""
    for sample in range(counts.shape[0]):
        for k in range(offset[sample * steps], offset[(sample + 1) * steps]):
            counts[sample, index[k]] += 1


@kernel
def fill_raster(index: Array, offset: Array, elements: Array, raster: Array) -> None:
    """Write spikes into a raster (time_steps, samples, elements) of zeros."""
    steps, samples, _ = raster.shape
    for sample in range(samples):
        for step in range(steps):
            now = sample * steps + step
            for k in range(offset[now], offset[now + 1]):
                raster[step, sample, elements[index[k]]] = 1
