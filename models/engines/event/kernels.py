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

from models.engines.event.compiled import inner, kernel
from models.engines.event.connections import GATHER, NO_FEED, PANEL, SCATTER
from models.engines.event.stepping import step_any, step_plain
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
    list_bits,
    multiply_column,
    multiply_tile,
    nonzero_bits,
    prefetch,
)
from models.spec.neuron_parameters import ROWS

Array = NDArray[Any]

ROW_COUNT, START = len(ROWS), ROWS.index("start")
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
                    multiply_tile(sums, s, size, spikes, r * units, units, base, j + column, weight, w, width)
                    column += TILE_VECTORS * LANES
                else:
                    multiply_column(sums, s, size, spikes, r * units, units, base, j + column, weight, w, width)
                    column += LANES


@inner
def scatter(row: Array, feed: Any, index: Array, value: Array, k0: int, k1: int) -> None:
    """Add what the events k0 to k1 send through a convolution to a row of its output; see `connections.Feed`.

    Where there is a `channel_step`, events of one position that follow each other are added together, so that the
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


@inner
def feed_back_carried(row: Array, start: Array, s: int, weight: Array, size: int, spikes: Array) -> None:
    """Write start[s:] plus what a recurrent layer's spikes (size,) of an earlier run send back to it into a row."""
    index = np.empty(size + LANES, np.int32)
    count = 0
    for j in range(0, size, LANES):
        count = list_bits(index, count, j, nonzero_bits(spikes, j))
    value = spikes[index[:count]]
    for j in range(0, size, PANEL):
        width = min(PANEL, size - j)
        gather(row, j, start, s + j, weight, size * j, width, width, index, value, 0, count)


@kernel
def run_neurons(
    samples: int, steps: int, feed: Any, events: Any, base: Array, base_steps: int, neurons: Any, begun: int,
    carried: Array, trace: Array, index: Array, value: Array, offset: Array,
) -> int:  # fmt: skip
    """Run a layer of neurons with the connection before it through all steps, and return how many fired.

    With a connection, a step's current is `base` (size,), its bias, and what the events add. Without one it is a row of
    `base` (rows * size): one for each sample (`base_steps` 1) or one for each step. What fired goes into `index` and
    `offset` (samples * steps + 1), how often into `value` unless that is empty, and the membranes after the reset into
    `trace` (samples * steps, size) unless that is empty.

    `carried` holds the state of all layers, see `carried.CarriedLayout`: this one's is read if the samples have
    `begun`, which start from rest otherwise, and written after the last step.
    """
    size, rule = neurons.size, neurons.rule
    connected, recurrent = feed.kind != NO_FEED, neurons.recurrent_weight.size > 0
    units = feed.weight.size // size if feed.kind == GATHER else 0
    at_once = rows_at_once(feed, size, units, samples * steps) if connected else 1
    sums = aligned_floats((at_once + TILE_ROWS - 1) * size + LANES) if connected else base
    spikes = np.empty(0, np.float32)
    row, membrane = aligned_floats(size), aligned_floats(size)
    synapse, fired = aligned_floats(size), aligned_floats(size)
    feedback = row if neurons.joins_charge else np.zeros(size, np.float32)
    stride = neurons.parameters.size // ROW_COUNT
    resting = stride * START
    membranes = samples * neurons.carried_at
    synapses = membranes + samples * size
    last_spikes = synapses + (samples * size if rule.synapse else 0)
    count, before = 0, 0
    offset[0] = 0
    for sample in range(samples):
        at = sample * size  # of the sample's row in each array of the state
        before = count
        if begun:
            copy(membrane, 0, carried, membranes + at, size)
            if rule.synapse:
                copy(synapse, 0, carried, synapses + at, size)
        else:
            for j in range(size):
                membrane[j] = neurons.parameters[resting + (j if stride == size else 0)]
            if not rule.plain:
                synapse[:] = 0.0
        for now in range(sample * steps, (sample + 1) * steps):
            current, c = sums, now * size
            if connected:
                c = now % at_once * size
                if c == 0:
                    rows = min(at_once, samples * steps - now)
                    spikes = connect(sums, feed, size, units, events, now, rows, base, spikes)
            elif base_steps == 1:
                c = at
            if recurrent:
                starts, weight = now == sample * steps, neurons.recurrent_weight
                b = 0 if starts and not begun else size
                start, first = current, c
                if neurons.joins_charge:
                    start, first = neurons.recurrent_bias, b
                if starts and begun:
                    last = carried[last_spikes + at : last_spikes + at + size]
                    feed_back_carried(row, start, first, weight, size, last)
                else:
                    for j in range(0, size, PANEL):
                        width = min(PANEL, size - j)
                        gather(row, j, start, first + j, weight, size * j, width, width, index, value, before, count)
                if not neurons.joins_charge:
                    if neurons.recurrent_bias.size:
                        for j in range(size):
                            row[j] += neurons.recurrent_bias[b + j]
                    current, c = row, 0
            before = count
            for j in range(0, size, LANES):
                p = j if stride == size else 0
                if rule.plain:
                    bits = step_plain(membrane, j, current, c + j, neurons.parameters, p, stride, rule.fire, rule.reset)
                else:
                    bits = step_any(
                        membrane, synapse, j, current, c + j, feedback, neurons.parameters, p, stride, rule.synapse,
                        rule.charge, rule.fire, rule.reset, rule.floor, fired,
                    )  # fmt: skip
                count = list_bits(index, count, j, bits)
            if value.size:
                for k in range(before, count):
                    value[k] = fired[index[k]]
            if trace.size:
                trace[now] = membrane
            offset[now + 1] = count
        copy(carried, membranes + at, membrane, 0, size)
        if rule.synapse:
            copy(carried, synapses + at, synapse, 0, size)
        if recurrent:
            carried[last_spikes + at : last_spikes + at + size] = 0.0
            for k in range(before, count):
                carried[last_spikes + at + index[k]] = value[k] if value.size else 1.0
    return count


@kernel
def run_connection(feed: Any, events: Any, bias: Array, currents: Array) -> None:
    """Write a connection's currents (rows, size) for as many rows of events."""
    rows, size = currents.shape
    units = feed.weight.size // size if feed.kind == GATHER else 0
    at_once = rows_at_once(feed, size, units, rows)
    sums = aligned_floats((at_once + TILE_ROWS - 1) * size + LANES)
    spikes = np.empty(0, np.float32)
    for first in range(0, rows, at_once):
        block = min(at_once, rows - first)
        spikes = connect(sums, feed, size, units, events, first, block, bias, spikes)
        currents[first : first + block] = sums[: block * size].reshape(block, size)


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
            for j in range(whole, width):
                index[count] = j
                count += values[start + j] != 0.0
                others |= np.uint64(values[start + j] != 0.0 and values[start + j] != 1.0)
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


@kernel
def pool_events(
    windows: Any, events: Any, size: int, take_maximum: bool, divisor: float, index: Array, value: Array, offset: Array
) -> bool:
    """Pool events into events of rows of `size`, and return if all are 1.

    By the sum over each window, divided by `divisor`, or by the maximum, where all events must be spikes.
    """
    row = aligned_floats(size)
    row[:] = 0.0
    valued = events.value.size > 0
    count = 0
    others = np.uint64(0)
    offset[0] = 0
    for r in range(offset.size - 1):
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
    return not others and divisor == 1.0


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
def count_units(index: Array, value: Array, offset: Array, steps: int, counts: Array) -> None:
    """Count how often each unit fired, into counts (samples, units)."""
    for sample in range(counts.shape[0]):
        for k in range(offset[sample * steps], offset[(sample + 1) * steps]):
            counts[sample, index[k]] += np.int64(value[k]) if value.size else 1


@kernel
def fill_raster(index: Array, value: Array, offset: Array, elements: Array, raster: Array) -> None:
    """Write spikes into a raster (time_steps, samples, elements) of zeros."""
    steps, samples, _ = raster.shape
    for sample in range(samples):
        for step in range(steps):
            now = sample * steps + step
            for k in range(offset[now], offset[now + 1]):
                raster[step, sample, elements[index[k]]] = np.int32(value[k]) if value.size else 1


@kernel
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
    """Sort each row's events by their places, of which there are `size` and which differ."""
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
            offset[1:] = np.cumsum(offset)[1:]
    # Writing has moved each row's start to the next one's.
    for now in range(offset.size - 1, 0, -1):
        offset[now] = offset[now - 1]
    offset[0] = 0
    sort_rows(line.shape[1], index, value, offset)
