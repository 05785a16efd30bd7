"""The kernels: each runs one node through all steps of some samples, and its work follows what is not zero.

Between nodes spikes travel as events. `index` (int32) holds the positions that are not zero, row after row, ascending
within a row; a row is one step of one sample, row = sample * time_steps + step, and the events of row r are those from
offset[r] to offset[r + 1]. `value` (float32) holds what stands there, or is empty where all are 1. Positions are of the
layouts that `layouts` makes: channels last, padded to whole vectors. A dense signal is float32 rows of a layout's size.

A sum starts with the bias (or what `rows` holds) and adds weights in the order of the events, one at a time. So it is the
same in any batch and on any number of threads; which other order another engine takes is its own affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.engines.event.connections import GATHER, NO_FEED, SCATTER
from models.engines.event.vectors import (
    LANES,
    add_run,
    charge_fire_reset,
    gather_1,
    gather_4,
    gather_16,
    gather_values_1,
    gather_values_4,
    gather_values_16,
    lowest_bit,
    nonzero_bits,
)

Array = NDArray[Any]

kernel = njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")


@kernel
def gather(row: Array, weight: Array, size: int, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add the weight rows (units, size) of the events k0 to k1 to a row (size,); size is a multiple of eight."""
    j = 0
    if value.size:
        while j + 16 * LANES <= size:
            gather_values_16(row, j, weight, j, size, index, value, k0, k1)
            j += 16 * LANES
        while j + 4 * LANES <= size:
            gather_values_4(row, j, weight, j, size, index, value, k0, k1)
            j += 4 * LANES
        while j < size:
            gather_values_1(row, j, weight, j, size, index, value, k0, k1)
            j += LANES
    else:
        while j + 16 * LANES <= size:
            gather_16(row, j, weight, j, size, index, value, k0, k1)
            j += 16 * LANES
        while j + 4 * LANES <= size:
            gather_4(row, j, weight, j, size, index, value, k0, k1)
            j += 4 * LANES
        while j < size:
            gather_1(row, j, weight, j, size, index, value, k0, k1)
            j += LANES


@kernel
def scatter(
    row: Array,
    weight: Array,
    channels: int,
    channel_weights: int,
    first_run: Array,
    runs: Array,
    channel_shift: Array,
    index: Array,
    value: Array,
    k0: int,
    k1: int,
) -> None:
    """Add what the events k0 to k1 send through a convolution to a row of its output.

    An event at position p, channel c adds the runs first_run[p] to first_run[p + 1]: (place in the channel's weights,
    place in the row, vectors). `weight` holds `channel_weights` floats for each channel; `channel_shift` is where the
    channel's group of outputs begins.
    """
    for k in range(k0, k1):
        position, channel = divmod(np.int64(index[k]), channels)
        factor = value[k] if value.size else np.float32(1.0)
        base, shift = channel * channel_weights, channel_shift[channel]
        for run in range(first_run[position], first_run[position + 1]):
            add_run(row, runs[run, 1] + shift, weight, base + runs[run, 0], runs[run, 2], factor)


@kernel
def feed_row(row: Array, feed: Any, size: int, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send through a connection to a row of its output."""
    if feed.kind == GATHER:
        gather(row, feed.weight, size, index, value, k0, k1)
    elif feed.kind == SCATTER:
        scatter(
            row, feed.weight, feed.channels, feed.channel_weights, feed.first_run, feed.runs, feed.channel_shift,
            index, value, k0, k1,
        )  # fmt: skip


@kernel
def run_neurons(
    samples: int, steps: int, feed: Any, events: Any, base: Array, base_steps: int, neurons: Any, trace: Array,
    index: Array, offset: Array,
) -> int:  # fmt: skip
    """Run a layer of neurons with the connection before it through all steps, and return how many spikes there were.

    A step's current begins as the row of `base` (rows, size) that is its own: one for all (`base_steps` 0), one for each
    sample (1) or one for each step. Its spikes go into `index` and `offset` (samples * steps + 1), and the membranes
    after the reset into `trace` (samples * steps, size), unless that is empty.
    """
    size = neurons.decay.size
    row = np.zeros(size + LANES, np.float32)
    membrane = np.empty(size, np.float32)
    ones = np.empty(0, np.float32)
    count = 0
    offset[0] = 0
    for sample in range(samples):
        membrane[:] = 0.0
        before = count
        for step in range(steps):
            now = sample * steps + step
            row[:size] = base[0 if base_steps == 0 else sample if base_steps == 1 else now]
            if feed.kind != NO_FEED:
                feed_row(row, feed, size, events.index, events.value, events.offset[now], events.offset[now + 1])
            if neurons.recurrent_weight.size:
                gather(row, neurons.recurrent_weight, size, index, ones, before, count)
                for j in range(size):
                    row[j] += neurons.recurrent_bias[j]
            before = count
            for j in range(0, size, LANES):
                bits = charge_fire_reset(
                    j, membrane, row, neurons.decay, neurons.gain, neurons.drive, neurons.fires_at, neurons.change,
                    neurons.to_value,
                )  # fmt: skip
                while bits:
                    index[count] = j + lowest_bit(bits)
                    count += 1
                    bits &= bits - 1
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
        row[:size] = bias
        feed_row(row, feed, size, events.index, events.value, events.offset[r], events.offset[r + 1])
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
                if j + LANES <= width:
                    bits = nonzero_bits(values, start + j)
                else:
                    bits = 0
                    for lane in range(width - j):
                        bits |= np.int64(values[start + j + lane] != 0) << lane
                while bits:
                    at = j + lowest_bit(bits)
                    bits &= bits - 1
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
    seen = np.full(size, -1, np.int64)
    slot = np.empty(size, np.int64)
    count = 0
    offset[0] = 0
    for r in range(offset.size - 1):
        first = count
        for k in range(events.offset[r], events.offset[r + 1]):
            position, channel = divmod(np.int64(events.index[k]), windows.channels)
            given = events.value[k] if events.value.size else np.float32(1.0)
            for w in range(windows.first_output[position], windows.first_output[position + 1]):
                place = windows.outputs[w] * windows.channels + channel
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
    seen = np.full(size, -1, np.int64)
    count = 0
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            position, channel = divmod(np.int64(events.index[k]), windows.channels)
            for w in range(windows.first_output[position], windows.first_output[position + 1]):
                place = windows.outputs[w] * windows.channels + channel
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
