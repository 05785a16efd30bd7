"""The kernels that find, move, pool, scale and count events, which are described in `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import borrowing, inner, kernel
from spikeserve.models.engines.event.currents import Array, aligned_floats
from spikeserve.models.engines.event.vectors import LANES, copy, first_nonzero_bits, list_bits, nonzero_bits, prefetch


@kernel
def find_events(
    values: Array, samples: int, steps: int, sample_stride: int, step_stride: int, width: int, places: Array,
    index: Array, value: Array, offset: Array,
) -> bool:  # fmt: skip
    """List what is not 0 in flat `values`, whose row for a sample and step is `width` long, and return if all are 1.

    Element j of a row becomes places[j], or stays j where `places` is empty. `value` is written only where not all are
    1. `index` has a vector of room behind what there may be.
    """
    count = 0
    others = np.uint64(0)
    offset[0] = 0
    for sample in range(samples):
        for step in range(steps):
            start = sample * sample_stride + step * step_stride
            whole = width - width % LANES
            for j in range(0, whole, LANES):
                prefetch(values, start + j + step_stride)  # the next step's row lies far away in a large batch
                bits = nonzero_bits(values, start + j)
                others |= bits >> np.uint64(LANES)
                count = list_bits(index, count, j, bits)
            if whole < width:
                bits = first_nonzero_bits(values, start + whole, width - whole)
                others |= bits >> np.uint64(LANES)
                count = list_bits(index, count, whole, bits)
            offset[sample * steps + step + 1] = count
    if others:
        for sample in range(samples):
            for step in range(steps):
                now, start = sample * steps + step, sample * sample_stride + step * step_stride
                for k in range(offset[now], offset[now + 1]):
                    value[k] = values[start + index[k]]
    if places.size:
        for k in range(count):
            index[k] = places[index[k]]
    return not others


@kernel
def fill_rows(events: Any, rows: Array) -> None:
    """Write events as dense rows, which must be 0 before."""
    for r in range(rows.shape[0]):
        for k in range(events.offset[r], events.offset[r + 1]):
            rows[r, events.index[k]] = events.value[k] if events.value.size else 1.0


@inner
def pool_rows_of_events(
    windows: Any, events: Any, size: int, take_maximum: bool, divisor: float, lo: int, hi: int, index: Array,
    value: Array, offset: Array,
) -> bool:  # fmt: skip
    """Pool events into events of rows of `size`, and return if the sums or maxima are all 1.

    By the sum over each window, divided by `divisor`, or by the maximum, where all events must be spikes. Only the rows
    from `lo` to `hi` are pooled, so that several threads may share a pool; the others get no event.
    """
    row = aligned_floats(size)
    row[:] = 0.0
    return pool_into(row, windows, events, take_maximum, divisor, lo, hi, index, value, offset)


@borrowing
def pool_into(
    row: Array, windows: Any, events: Any, take_maximum: bool, divisor: float, lo: int, hi: int, index: Array,
    value: Array, offset: Array,
) -> bool:  # fmt: skip
    """Pool as `pool_rows_of_events` does; `row` holds zeros, in which each row's sums or maxima are made."""
    size = row.size
    valued = events.value.size > 0
    count = 0
    others = np.uint64(0)
    offset[: lo + 1] = 0
    for r in range(lo, hi):
        for k in range(events.offset[r], events.offset[r + 1]):
            given = events.value[k] if valued else np.float32(1.0)
            for w in range(windows.overlaps):
                place = windows.outputs[events.index[k], w]
                if place < 0:
                    break
                row[place] = given if take_maximum else row[place] + given
        first = count
        for j in range(0, size, LANES):
            bits = nonzero_bits(row, j)
            others |= bits >> np.uint64(LANES)
            count = list_bits(index, count, j, bits)
        for k in range(first, count):
            if not take_maximum:
                value[k] = row[index[k]]
            row[index[k]] = 0.0
        if divisor != 1.0:
            for k in range(first, count):
                value[k] /= np.float32(divisor)
        offset[r + 1] = count
    offset[hi + 1 :] = count
    return not others


@borrowing
def pool_rows(windows: Any, take_maximum: bool, divisor: float, rows: Array, pooled: Array) -> None:
    """Pool dense rows (rows, size) into (rows, pooled size), by the maximum or by the sum divided by `divisor`.

    The sum is added up in float64 and rounded once before it is divided.
    """
    channels = windows.channels
    for r in range(rows.shape[0]):
        for q in range(windows.first_input.size - 1):
            first = windows.first_input[q]
            for channel in range(channels):
                best = np.float64(rows[r, windows.inputs[first] * channels + channel])
                for w in range(first + 1, windows.first_input[q + 1]):
                    other = np.float64(rows[r, windows.inputs[w] * channels + channel])
                    if take_maximum:
                        best = max(best, other)
                    else:
                        best += other
                found = np.float32(best)
                pooled[r, q * channels + channel] = found if take_maximum else found / np.float32(divisor)


@kernel
def merge_events(begins: Array, index: Array, value: Array, offset: Array, to: Any) -> None:
    """Write what tiles have found, see `tiles.find_in_tiles`, as events `to`, row after row and tile after tile."""
    count = 0
    to.offset[0] = 0
    for r in range(to.offset.size - 1):
        for tile in range(begins.size):
            first, found = begins[tile] + offset[tile, r], offset[tile, r + 1] - offset[tile, r]
            copy(to.index, count, index, first, found)
            if to.value.size:
                copy(to.value, count, value, first, found)
            count += found
        to.offset[r + 1] = count


@borrowing
def count_operations(index: Array, offset: Array, steps: int, cost: Array, totals: Array) -> None:
    """Add what each sample's events cost to totals (samples,): cost[index], or all cost[0] where it has no more."""
    for sample in range(totals.size):
        first, end = offset[sample * steps], offset[(sample + 1) * steps]
        total = 0
        if cost.size == 1:
            total = (end - first) * cost[0]
        else:
            for k in range(first, end):
                total += cost[index[k]]
        totals[sample] += total


@kernel
def fill_raster(index: Array, value: Array, offset: Array, elements: Array, raster: Array) -> None:
    """Write spikes into a raster (time_steps, samples, elements) of zeros."""
    steps, samples, _ = raster.shape
    for sample in range(samples):
        for step in range(steps):
            now = sample * steps + step
            for k in range(offset[now], offset[now + 1]):
                raster[step, sample, elements[index[k]]] = np.int32(value[k]) if value.size else 1


@borrowing
def scale_events(events: Any, scale: Array, index: Array, value: Array, offset: Array) -> None:
    """Multiply events by the factor of their place, or by scale[0] where it has no more; what becomes 0 is no event."""
    count = 0
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            place = events.index[k]
            factor = scale[place] if scale.size > 1 else scale[0]
            scaled = factor * events.value[k] if events.value.size else factor
            index[count], value[count] = place, scaled
            count += scaled != 0.0
        offset[r + 1] = count


@inner
def sort_rows(size: int, index: Array, value: Array, offset: Array) -> None:
    """Sort the events of each row by place. A row has `size` places, and at most one event at each."""
    present, given = aligned_floats(size), aligned_floats(size)
    present[:] = 0.0
    ascending = np.empty(size + LANES, np.int32)
    for r in range(offset.size - 1):
        first, end = offset[r], offset[r + 1]
        k = first + 1
        while k < end and index[k - 1] < index[k]:
            k += 1
        if k >= end:
            continue
        for k in range(first, end):
            present[index[k]] = 1.0
            if value.size:
                given[index[k]] = value[k]
        count = 0
        for j in range(0, size, LANES):
            count = list_bits(ascending, count, j, nonzero_bits(present, j))
        for k in range(count):
            index[first + k] = ascending[k]
            if value.size:
                value[first + k] = given[ascending[k]]
            present[ascending[k]] = 0.0


@kernel
def delay_events(
    past: Any, longest: int, events: Any, source_steps: int, steps: int, delay: Array, line: Array, index: Array,
    value: Array, offset: Array,
) -> None:  # fmt: skip
    """Move events by the steps of their place, or by delay[0] where it has no more; what leaves the run is no event.

    Before the first step lie the `longest` rows of each sample in `past`, where there are any; one source step stands
    for all. The last `longest` rows of both go into `line` (samples * longest, size), of zeros. Each row's events are
    in the order of their places: a later run that goes on from `line` adds them up in the same order.
    """
    samples = (offset.size - 1) // steps
    oldest = -longest if past.offset.size > 1 else 0
    offset[:] = 0
    for writing in range(2):  # first how many fall on each step, and then which
        for sample in range(samples):
            for step in range(oldest, steps):
                source = past if step < 0 else events
                r = sample * source_steps + (step if source_steps > 1 else 0)
                if step < 0:
                    r = sample * longest + longest + step
                keep, kept = writing and step >= steps - longest, sample * longest + longest + step - steps
                for k in range(source.offset[r], source.offset[r + 1]):
                    place = source.index[k]
                    given = source.value[k] if source.value.size else np.float32(1.0)
                    if keep:
                        line[kept, place] = given
                    to = step + (delay[place] if delay.size > 1 else delay[0])
                    if to < 0 or to >= steps:
                        continue
                    now = sample * steps + to
                    if not writing:
                        offset[now + 1] += 1
                    else:
                        index[offset[now]] = place
                        if value.size:
                            value[offset[now]] = given
                        offset[now] += 1
        if not writing:
            for now in range(offset.size - 1):
                offset[now + 1] += offset[now]
    # Writing has moved each row's start to the next one's.
    for now in range(offset.size - 1, 0, -1):
        offset[now] = offset[now - 1]
    offset[0] = 0
    sort_rows(line.shape[1], index, value, offset)
