"""The kernels that find, move, pool, scale and count events, which are described in `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import borrowing, inlined
from spikeserve.models.engines.event.currents import Array
from spikeserve.models.engines.event.table import CONCATENATE, MATMUL, MULTIPLY, Events
from spikeserve.models.engines.event.vectors import LANES, copy, first_nonzero_bits, list_bits, nonzero_bits, prefetch
from spikeserve.models.engines.event.views import EVERYTHING, carried_of, floats_at, ints_at, longs_at, words_at


@borrowing
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


@borrowing
def load_row(signal: Any, r: int, row: Array) -> None:
    """Write a row of a signal, which has rows or events, into `row`."""
    size = signal.size
    if signal.rows:
        copy(row, 0, floats_at(signal.rows, EVERYTHING), r * size, size)
        return
    row[:size] = 0.0
    index, value = ints_at(signal.index, EVERYTHING), floats_at(signal.value, EVERYTHING)
    offset = longs_at(signal.offset, EVERYTHING)
    for k in range(offset[r], offset[r + 1]):
        row[index[k]] = value[k] if signal.value else np.float32(1.0)


@borrowing
def list_row(row: Array, index: Array, value: Array, count: int) -> Any:
    """List what is not 0 in `row`, which becomes 0, from index[count:] on; return the count, and if any is not 1."""
    first, others = count, np.uint64(0)
    for j in range(0, row.size, LANES):
        bits = nonzero_bits(row, j)
        others |= bits >> np.uint64(LANES)
        count = list_bits(index, count, j, bits)
    for k in range(first, count):
        value[k] = row[index[k]]
        row[index[k]] = 0.0
    return count, others


@inlined
def join_row(
    node: Any,
    signals: Array,
    others: Array,
    sample: int,
    step: int,
    to: Array,
    dense: Array,
    second: Array,
    sums: Array,
) -> None:
    """Write a row of what a node makes of the signals `others`; the last three are room."""
    moves, begin = ints_at(node.moves, EVERYTHING), 0
    if node.operation == CONCATENATE or node.operation == MATMUL:
        to[:] = 0.0
    for k in range(others.size):
        signal = signals[others[k]]
        row, size = sample * signal.steps + (step if signal.steps > 1 else 0), signal.size
        if node.operation == MATMUL:
            load_row(signal, row, dense if k == 0 else second)
        elif node.operation == CONCATENATE:
            load_row(signal, row, dense)
            for j in range(size):
                if moves[begin + j] >= 0:
                    to[moves[begin + j]] = dense[j]
            begin += size
        elif k == 0:
            load_row(signal, row, to)
        else:
            load_row(signal, row, dense)
            for j in range(size):
                to[j] = to[j] * dense[j] if node.operation == MULTIPLY else to[j] + dense[j]
    if node.operation == MATMUL:
        multiply_matrices(node, to, dense, second, sums)


@inlined
def multiply_matrices(node: Any, to: Array, left: Array, right: Array, sums: Array) -> None:
    """Multiply (heads, rows, inner) by (heads, inner, columns), at the places that `moves` has of them and of `to`.

    Products are summed in float64, one after the other, and rounded once.
    """
    places, columns, inner = ints_at(node.moves, EVERYTHING), node.columns, node.inner
    second = node.heads * node.rows * inner
    result = second + node.heads * inner * columns
    for k in range(result - second):
        sums[columns + k] = right[places[second + k]]
    for row in range(node.heads * node.rows):
        sums[:columns] = 0.0
        for k in range(inner):
            factor, at = np.float64(left[places[row * inner + k]]), columns + (row // node.rows * inner + k) * columns
            if factor != 0.0:
                for j in range(columns):
                    sums[j] += factor * sums[at + j]
        for j in range(columns):
            to[places[result + row * columns + j]] = np.float32(sums[j])


@borrowing
def pool_events(
    row: Array, windows: Any, events: Any, take_maximum: bool, index: Array, value: Array, offset: Array
) -> bool:
    """Pool events into events, and return if the sums or maxima are all 1; `row` holds zeros, and they are made in it.

    By the sum over each window, divided by its divisor, or by the maximum, where all events must be spikes.
    """
    valued, divisors = events.value.size > 0, windows.divisors
    count, others = np.int64(0), np.uint64(0)
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            number = events.value[k] if valued else np.float32(1.0)
            for w in range(windows.overlaps):
                place = windows.outputs[events.index[k] * windows.overlaps + w]
                if place < 0:
                    break
                row[place] = number if take_maximum else row[place] + number
        first = count
        count, differs = list_row(row, index, value, count)
        others |= differs
        if divisors.size > 1 or divisors[0] != 1.0:
            for k in range(first, count):
                value[k] /= divisors[index[k] if divisors.size > 1 else 0]
        offset[r + 1] = count
    return not others


@borrowing
def pool_row(windows: Any, take_maximum: bool, row: Array, pooled: Array) -> None:
    """Pool a dense row, by the maximum or by the sum divided by its divisor.

    The sum is added up in float64 and rounded once before it is divided.
    """
    channels, depth, divisors = windows.channels, windows.depth, windows.divisors
    for q in range(windows.first_input.size - 1):
        first = windows.first_input[q]
        for channel in range(min(channels, depth)):
            best = np.float64(row[windows.inputs[first] * channels + channel])
            for w in range(first + 1, windows.first_input[q + 1]):
                other = np.float64(row[windows.inputs[w] * channels + channel])
                best = max(best, other) if take_maximum else best + other
            at = q * depth + channel
            largest = np.float32(best)
            pooled[at] = largest if take_maximum else largest / divisors[at if divisors.size > 1 else 0]


@borrowing
def repeat_events(events: Any, index: Array, offset: Array) -> None:
    """Write each event as often as its value says."""
    count: Any = np.int64(0)
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            for _ in range(np.int64(events.value[k])):
                index[count] = events.index[k]
                count += 1
        offset[r + 1] = count


@inlined
def count_operations(node: Any, run: Any, events: Any, steps: int) -> None:
    """Add what events cost to their samples' operations: each as the cost at its place says, or all alike."""
    cost, totals, offset = longs_at(node.cost, node.cost_count), longs_at(run.results, EVERYTHING), events.offset
    for sample in range(run.samples):
        first, end = offset[sample * steps], offset[(sample + 1) * steps]
        total = 0
        if cost.size == 1:
            total = (end - first) * cost[0]
        else:
            for k in range(first, end):
                total += cost[events.index[k]]
        totals[sample * run.width] += total


@inlined
def scale_events(node: Any, run: Any, source: Any, events: Any, index: Array, value: Array, offset: Array) -> None:
    """Multiply events by the factor of their place, or of the step and it, or of all; what becomes 0 is no event."""
    count, factors = 0, floats_at(node.scale, node.scale_count)
    steps = (offset.size - 1) // run.samples
    offset[0] = 0
    for r in range(offset.size - 1):
        sample, step = r // steps, r % steps
        source_row, first = sample * source.steps + (step if source.steps > 1 else 0), 0
        if factors.size > node.size:
            first = node.size * (step + (longs_at(run.begun, EVERYTHING)[sample] if run.begun else 0))
        for k in range(events.offset[source_row], events.offset[source_row + 1]):
            place = events.index[k]
            factor = factors[first + place] if factors.size > 1 else factors[0]
            scaled = factor * events.value[k] if events.value.size else factor
            index[count], value[count] = place, scaled
            count += scaled != 0.0
        offset[r + 1] = count


WORD = np.uint64(64)  # bits


@borrowing
def sort_bytes(size: int) -> Any:
    """Return how many bytes `sort_rows` needs for rows of `size` places, as whole lines of the cache."""
    return (size // 8 + 8 * size + 4 * LANES + 191) // 64 * 64


@borrowing
def sort_rows(room_at: int, size: int, index: Array, value: Array, offset: Array) -> None:
    """Sort the events of each row by place. A row has `size` places, and at most one event at each."""
    present = words_at(room_at, size // 64 + 1)
    by_place = floats_at(room_at + 8 * present.size, size)
    ascending = ints_at(room_at + 8 * present.size + 4 * size, size + LANES)
    present[:] = np.uint64(0)
    for r in range(offset.size - 1):
        first, end = offset[r], offset[r + 1]
        k = first + 1
        while k < end and index[k - 1] < index[k]:
            k += 1
        if k >= end:
            continue
        for k in range(first, end):
            place = np.uint64(index[k])
            present[place // WORD] |= np.uint64(1) << place % WORD
            if value.size:
                by_place[index[k]] = value[k]
        count: Any = np.int64(0)
        for word in range(present.size):
            bits = present[word]
            if bits:
                for part in range(0, 64, LANES):
                    some = bits >> np.uint64(part) & np.uint64(0xFFFF)
                    if some:
                        count = list_bits(ascending, count, word * 64 + part, some)
                present[word] = np.uint64(0)
        for k in range(count):
            index[first + k] = ascending[k]
            if value.size:
                value[first + k] = by_place[ascending[k]]


@borrowing
def spread(
    node: Any, size: int, events: Any, first: int, stride: int, begin: int, end: int, steps: int, now: int,
    writing: bool, index: Array, value: Array, offset: Array,
) -> bool:  # fmt: skip
    """Move the events of the steps from `begin` to `end` of a sample to its rows from `now` on; return if all are 1.

    They are the rows of `events` from `first` on, each `stride` behind the one before. The last step goes first: so
    taps of flat places leave a row in the order of its places. If not `writing`, each row's events are only counted.
    """
    delay, moves = longs_at(node.delay, node.delay_count), ints_at(node.moves, node.moves_count)
    taps, ones = node.moves_count // size, True
    alike = delay.size == taps
    for step in range(end - 1, begin - 1, -1):
        r = first + (step - begin) * stride
        for k in range(events.offset[r], events.offset[r + 1]):
            place, number = events.index[k], events.value[k] if events.value.size else np.float32(1.0)
            for tap in range(taps):
                to = step + delay[tap if alike else place]
                if to >= steps:
                    break
                if to < 0:
                    continue
                if writing:
                    at = offset[now + to]
                    index[at], value[at] = moves[tap * size + place], number
                    ones = ones and number == 1.0
                offset[now + to + (0 if writing else 1)] += 1
    return ones


@inlined
def delay_events(
    node: Any, run: Any, source: Any, events: Any, steps: int, most: int, index: Array, value: Array, offset: Array
) -> bool:
    """Move events by the steps of each tap, or of their place, and return if all are 1; one source step stands for all.

    A sample's `longest` rows before the first step, `most` of which are not 0, lie in its state, and become the last of
    both. Each row's events are in the order of their places: a later run that goes on from there adds them up in the
    same order. What leaves the run is no event.
    """
    longest, size, source_steps, none = node.longest, source.size, source.steps, np.int64(0)
    samples, stride, nowhere = (offset.size - 1) // steps, np.int64(source_steps > 1), ints_at(none, none)
    past = Events(np.empty(most + LANES, np.int32), np.empty(most, np.float32), np.zeros(longest + 1, np.int64))
    ones = True
    offset[:] = 0
    for writing in range(2):  # first how many fall on each step, and then which
        for sample in range(samples):
            now, first, whole = sample * steps, sample * source_steps, writing == 1
            ones &= spread(node, size, events, first, stride, none, steps, steps, now, whole, index, value, offset)
            if run.begun:
                lines, one = floats_at(carried_of(run, sample) + 4 * node.carried_at, longest * size), np.int64(1)
                if find_events(lines, one, longest, none, size, size, nowhere, past.index, past.value, past.offset):
                    past.value[:] = 1.0
                ones &= spread(node, size, past, none, one, -longest, none, steps, now, whole, index, value, offset)
        if not writing:
            for now in range(offset.size - 1):
                offset[now + 1] += offset[now]
    # Writing has moved each row's start to the next one's.
    for now in range(offset.size - 1, 0, -1):
        offset[now] = offset[now - 1]
    offset[0] = 0
    for sample in range(samples):
        lines = floats_at(carried_of(run, sample) + 4 * node.carried_at, EVERYTHING)
        for step in range(steps - longest, steps):
            at = (longest + step - steps) * size
            if step < 0:
                copy(lines, at, lines, at + steps * size, size)
                continue
            lines[at : at + size] = 0.0
            r = sample * source_steps + (step if source_steps > 1 else 0)
            for k in range(events.offset[r], events.offset[r + 1]):
                lines[at + events.index[k]] = events.value[k] if events.value.size else np.float32(1.0)
    return ones
