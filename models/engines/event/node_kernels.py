"""A whole run as one native call: the function of each kind of node, and the loop that calls them one after the other.

A function gets the table of nodes, the row of its node and the run (`table`), by their addresses, and returns 0, or why
it could not run and is called again (`table.NEEDS_ROWS` and after). It takes what it needs from the run's arena before
it changes anything. Each is compiled once, by itself, and called by its address: Numba would compile again all that a
kernel calls in any other way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from spikeserve.models.engines.base import BY_COUNT, BY_LEAD, BY_SPIKE
from spikeserve.models.engines.event.compiled import addressed, borrowing, inlined, kernel
from spikeserve.models.engines.event.connections import DOUBLES, FLOATS, LINES, NO_FEED, PASS
from spikeserve.models.engines.event.currents import (
    Array,
    aligned_floats,
    connect,
    connect_values,
    room_for_spikes,
    rows_at_once,
    spikes_of,
)
from spikeserve.models.engines.event.event_kernels import (
    count_operations,
    delay_events,
    find_events,
    join_row,
    list_row,
    load_row,
    pool_events,
    pool_row,
    repeat_events,
    scale_events,
    sort_bytes,
    sort_rows,
)
from spikeserve.models.engines.event.native import address_of, call, call_node, records_of
from spikeserve.models.engines.event.table import (
    COUNT,
    ENDED,
    FIRES_TOO_OFTEN,
    FIRST,
    GREATEST,
    LAST,
    MATMUL,
    MEAN,
    MULTIPLY,
    NEEDS_EVENTS,
    NEEDS_ROOM,
    NEEDS_ROWS,
    POOLED,
    STOPPED,
    Windows,
)
from spikeserve.models.engines.event.vectors import LANES, TILE_ROWS, copy
from spikeserve.models.engines.event.views import (
    EVERYTHING,
    carried_of,
    doubles_at,
    events_of,
    feed_of,
    floats_at,
    ints_at,
    is_over,
    longs_at,
    nodes_at,
    runs_at,
    signals_at,
)
from spikeserve.models.engines.readout import MAX_SPIKES
from spikeserve.models.engines.state import NO_SPIKE

LINE_BYTES = 64


@borrowing
def lines(count: int) -> Any:
    """Return so many bytes as whole lines of the cache."""
    return (count + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES


@borrowing
def reserve(run: Any, count: int) -> Any:
    """Take so many bytes of the arena, from a line of the cache on, and return their address; 0 where it lacks them."""
    at = lines(run.arena + run.used)
    end = at + count - run.arena
    if end > run.arena_count:
        run.needed = count + LINE_BYTES
        return np.int64(0)
    run.used = end
    return np.int64(at)


@borrowing
def is_valued(node: Any, signal: Any) -> Any:
    """Return whether a connection's sums take other kernels than those of spikes, which neurons do not run."""
    return np.int64(node.summed == DOUBLES or (node.summed != FLOATS and signal.value != 0))


@borrowing
def room_for_events(run: Any, rows: int, most: int, more: int) -> Any:
    """Reserve `more` bytes, and behind them offsets, places and values of `most` events; see `settle`."""
    return reserve(run, more + 8 * (rows + 1) + 4 * (most + LANES) + 4 * most)


@borrowing
def events_at(at: int, rows: int, most: int) -> Any:
    """Return the places, values and offsets in the room that was reserved for events."""
    index_at = at + 8 * (rows + 1)
    value_at = index_at + 4 * (most + LANES)
    return ints_at(index_at, most + LANES), floats_at(value_at, most), longs_at(at, rows + 1)


@borrowing
def settle(run: Any, signal: Any, at: int, rows: int, most: int, valued: bool, steps: int, size: int) -> None:
    """Make a signal of the events that were found behind `at`, and give back the room that they left."""
    index_at = at + 8 * (rows + 1)
    value_at = index_at + 4 * (most + LANES)
    count = longs_at(at, rows + 1)[rows]
    signal.offset, signal.index, signal.value = at, index_at, 0
    end = index_at + 4 * count
    if valued and count:
        signal.value = lines(end)  # which is no further than `value_at`
        to, values = floats_at(signal.value, count), floats_at(value_at, count)
        for k in range(count):
            to[k] = values[k]
        end = signal.value + 4 * count
    run.used = end - run.arena
    signal.steps, signal.size, signal.rows, signal.trace, signal.feed = steps, size, 0, 0, -1


@borrowing
def put_rows(signal: Any, at: int, steps: int, size: int) -> None:
    """Make a signal of rows."""
    signal.steps, signal.size, signal.rows, signal.offset, signal.trace, signal.feed = steps, size, at, 0, 0, -1


@borrowing
def lacks_events(signal: Any) -> bool:
    """Return whether a signal is rows, or a connection that was not run."""
    return not signal.offset or signal.feed >= 0


@borrowing
def is_pending(signal: Any) -> bool:
    """Return whether a signal is a connection that was not run."""
    return signal.feed >= 0 and not signal.rows


@partial(addressed, counted=True)
def make_rows(table: int, _: int, run_at: int) -> int:
    """Give the signal `run.slot` its rows."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signal = signals_at(run.signals, EVERYTHING)[run.slot]
    count, size = run.samples * signal.steps, signal.size
    at = reserve(run, 4 * count * size)
    if not at:
        return NEEDS_ROOM
    rows, events = floats_at(at, count * size), events_of(signal, run.samples)
    if signal.feed >= 0 and nodes[signal.feed].kind == LINES:
        value, none = events.value, np.int64(0)
        if value.size == 0:
            value = np.ones(events.index.size, np.float32)
        run.line_value, run.line_index, run.line_offset = address_of(value), signal.index, signal.offset
        for first in range(0, count, signal.steps):
            code, end = nodes[signal.feed].line_code, first + signal.steps
            run.current = at + 4 * first * size
            call(code, table, signal.feed, run_at, first, end, none, none, none)
        run.line_value = 0 * value.size  # Numba frees an array behind its last use
    elif signal.feed < 0:
        for r in range(count):
            load_row(signal, r, rows[r * size : (r + 1) * size])
    else:
        node = nodes[signal.feed]
        feed, bias = feed_of(node, node.kind), floats_at(node.bias, node.bias_count)
        at_once = rows_at_once(feed, size, count)
        sums = aligned_floats((at_once + TILE_ROWS - 1) * size + LANES)
        none = np.int64(0)
        spikes = room_for_spikes(feed, events, count, at_once)
        valued = is_valued(node, signal)
        for first in range(0, count, at_once):
            block = min(at_once, count - first)
            if valued:
                connect_values(sums, feed, size, events, first, block, bias)
            else:
                connect(sums, feed, size, events, first, block, bias, spikes)
            copy(rows, first * size, sums, none, block * size)
    signal.rows = at
    return 0


@addressed
def make_events(_: int, __: int, run_at: int) -> int:
    """Give the signal `run.slot`, which has rows, its events."""
    run = runs_at(run_at, 1)[0]
    signal = signals_at(run.signals, EVERYTHING)[run.slot]
    rows, size, dense, trace = run.samples * signal.steps, signal.size, signal.rows, signal.trace
    most, none = rows * size, np.int64(0)
    at = room_for_events(run, rows, most, 0)
    if not at:
        return NEEDS_ROOM
    index, value, offset = events_at(at, rows, most)
    ones = find_events(
        floats_at(dense, most), rows, np.int64(1), size, none, size, ints_at(none, none), index, value, offset
    )
    settle(run, signal, at, rows, most, not ones, signal.steps, size)
    signal.rows, signal.trace = dense, trace
    return 0


@addressed
def find_inputs(table: int, row: int, run_at: int) -> int:
    """List what is not 0 in the dense inputs, see `event_kernels.find_events`, or copy the events that came instead."""
    node, run, _, target = records_of(table, row, run_at)
    if run.given_offset and not node.places_count:
        return 0
    steps, size, places = target.steps, node.size, ints_at(node.places, node.places_count)
    rows, first = run.samples * steps, np.int64(0)
    most = rows * node.units
    if run.given_offset:
        first = longs_at(target.offset, rows + 1)[0]
        most = longs_at(target.offset, rows + 1)[rows] - first
    more = sort_bytes(size) if node.sorts else 0
    room = room_for_events(run, rows, most, more)
    if not room:
        return NEEDS_ROOM
    at = room + more
    index, value, offset = events_at(at, rows, most)
    if run.given_offset:
        events, ones = events_of(target, run.samples), not target.value
        for r in range(rows + 1):
            offset[r] = events.offset[r] - first
        for k in range(most):
            index[k] = places[events.index[first + k]]
            if target.value:
                value[k] = events.value[first + k]
    else:
        ones = find_events(
            floats_at(run.values, EVERYTHING), run.samples, steps, run.sample_stride, run.step_stride, node.units,
            places, index, value, offset,
        )  # fmt: skip
    if node.sorts:
        sort_rows(room, size, index, value[: 0 if ones else most], offset)
    settle(run, target, at, rows, most, not ones, steps, size)
    return 0


@addressed
def connect_later(table: int, row: int, run_at: int) -> int:
    """Count a connection's operations; its currents are computed by the node that takes them."""
    node, run, source, target = records_of(table, row, run_at)
    if lacks_events(source):
        return NEEDS_EVENTS
    if not node.line_only or source.value or source.steps != run.steps:
        count_operations(node, run, events_of(source, run.samples), source.steps)
    target.steps, target.size, target.index, target.value = source.steps, node.size, source.index, source.value
    target.offset, target.rows, target.trace, target.feed = source.offset, 0, 0, row
    return 0


@addressed
def fire(table: int, row: int, run_at: int) -> int:
    """Run a layer of neurons, and with it the connection before it where that has an input for every step."""
    nodes, (node, run, source, target) = nodes_at(table, EVERYTHING), records_of(table, row, run_at)
    samples, steps, size = run.samples, run.steps, node.size
    rows, base_steps, kind, connection, base = samples * steps, np.int64(0), np.int64(NO_FEED), row, np.int64(0)
    copied, is_waiting = np.int64(-1), source.steps == steps and is_pending(source)
    if node.line_code and is_waiting:
        copied = spikes_of(events_of(source, samples).value, node.line_most)
    by_lines = copied >= 0
    if by_lines:
        kind = np.int64(LINES)
        run.line_index, run.line_offset = source.index, source.offset
        run.line_counts = np.int64(nodes[source.feed].line_only and not source.value)
        run.pooled = np.int64(node.line_pooled and not run.keeps_spikes)
    elif is_waiting and nodes[source.feed].kind != LINES and not is_valued(nodes[source.feed], source):
        connection = source.feed
        kind, base = nodes[connection].kind, nodes[connection].bias
    elif source.steps == steps and source.feed < 0 and not source.rows:
        kind = np.int64(PASS)
    else:
        if not source.rows:
            return NEEDS_ROWS
        base_steps, base = source.steps, source.rows
    run.connection, run.kind, run.base, run.base_steps = connection, kind, base, base_steps
    traced = node.traced or run.keeps_traces
    trace_bytes = lines(4 * rows * size) if traced else 0
    offset_bytes = lines(8 * (rows + 1))
    copy_bytes = offset_bytes + lines(4 * (copied + LANES)) if copied > 0 else 0
    trace_at = room_for_events(run, rows, rows * size, trace_bytes + copy_bytes)
    if not trace_at:
        return NEEDS_ROOM
    if copied > 0:
        run.line_offset = trace_at + trace_bytes
        run.line_index = run.line_offset + offset_bytes
        index = ints_at(run.line_index, copied + LANES)
        repeat_events(events_of(source, samples), index, longs_at(run.line_offset, rows + 1))
    if node.fan_back and run.begun:
        results, last = longs_at(run.results, EVERYTHING), node.carried_at + node.states * size
        for sample in range(samples):
            carried = floats_at(carried_of(run, sample), EVERYTHING)
            for j in range(size):
                results[sample * run.width] += node.fan_back * (carried[last + j] != 0.0)
    at = trace_at + trace_bytes + copy_bytes
    run.trace, run.offset, run.index = trace_at if traced else 0, at, at + 8 * (rows + 1)
    run.value = run.index + 4 * (rows * size + LANES) if node.several else 0
    reason = call_node(node.runner, table, row, run_at)
    if reason:
        return reason
    settle(run, target, at, rows, rows * size, node.several != 0, steps, size)
    target.trace = run.trace
    if by_lines and run.pooled:
        target.feed = POOLED
    if not node.spiking:
        target.offset, target.rows = 0, trace_at
    return 0


@addressed
def count_spikes(table: int, row: int, run_at: int) -> int:
    """Count a layer's spikes: of each sample, of each neuron that is read, and the operations of those that return."""
    node, run, _, signal = records_of(table, row, run_at)
    if signal.feed == POOLED:  # which were counted as they fired
        return 0
    samples, steps, width = run.samples, run.steps, run.width
    events, results = events_of(signal, samples), longs_at(run.results, EVERYTHING)
    counts = longs_at(run.counts, EVERYTHING)
    for k in range(events.value.size):
        if not events.value[k] <= MAX_SPIKES and not run.largest >= events.value[k]:
            run.largest = events.value[k]
    if run.largest:
        return FIRES_TOO_OFTEN
    elements, offset = ints_at(node.elements, node.elements_count), events.offset
    for sample in range(samples):
        first, end = offset[sample * steps], offset[(sample + 1) * steps]
        if events.value.size:
            total = np.int64(0)
            for k in range(first, end):
                total += np.int64(events.value[k])
            results[sample * width + node.column] += total
        else:
            results[sample * width + node.column] += end - first
        if node.read:
            at = sample * run.classes
            for k in range(first, end):
                counts[at + elements[events.index[k]]] += np.int64(events.value[k]) if events.value.size else 1
        if node.fan_back:  # the last step's spikes come back only in a run that goes on from here
            results[sample * width] += node.fan_back * (offset[(sample + 1) * steps - 1] - first)
    return 0


@addressed
def pool(table: int, row: int, run_at: int) -> int:
    """Pool events into events, or rows into rows."""
    node, run, source, target = records_of(table, row, run_at)
    rows, steps, size = run.samples * source.steps, source.steps, node.size
    if source.feed == POOLED:
        put_rows(target, 0, steps, size)
        target.index, target.value, target.offset = source.index, source.value, source.offset
        return 0
    windows = Windows(
        node.overlaps, ints_at(node.outputs, node.outputs_count), node.channels, node.depth,
        ints_at(node.first_input, node.first_input_count), ints_at(node.inputs, node.inputs_count),
        floats_at(node.divisors, node.divisors_count),
    )  # fmt: skip
    if is_pending(source):
        return NEEDS_ROWS
    if source.rows:
        at = reserve(run, 4 * rows * size)
        if not at:
            return NEEDS_ROOM
        floats_at(at, rows * size)[:] = 0.0
        for r in range(rows):
            dense = floats_at(source.rows + 4 * r * source.size, source.size)
            pool_row(windows, node.largest, dense, floats_at(at + 4 * r * size, size))
        put_rows(target, at, steps, size)
        return 0
    events = events_of(source, run.samples)
    most = min(events.index.size * node.overlaps, rows * node.units)
    row_at = room_for_events(run, rows, most, lines(4 * size) + lines(4 * source.size))
    if not row_at:
        return NEEDS_ROOM
    dense_at, pooled = row_at + lines(4 * size), floats_at(row_at, size)
    at = dense_at + lines(4 * source.size)
    pooled[:] = 0.0
    index, value, offset = events_at(at, rows, most)
    ones = False
    if node.dense and events.value.size:
        pool_each_row(node, windows, source, dense_at, pooled, index, value, offset)
    else:
        ones = pool_events(pooled, windows, events, node.largest, index, value, offset)
    divided = windows.divisors.size > 1 or windows.divisors[0] != 1.0  # if not, all are spikes
    settle(run, target, at, rows, most, not ones or divided, steps, size)
    return 0


@inlined
def pool_each_row(
    node: Any, windows: Any, source: Any, dense_at: int, pooled: Array, index: Array, value: Array, offset: Array
) -> None:
    """Pool events by one dense row after the other, which lies at `dense_at`."""
    dense, count = floats_at(dense_at, source.size), np.int64(0)
    offset[0] = count
    for r in range(offset.size - 1):
        load_row(source, r, dense)
        pool_row(windows, node.largest, dense, pooled)
        count, _ = list_row(pooled, index, value, count)
        offset[r + 1] = count


@addressed
def scale(table: int, row: int, run_at: int) -> int:
    """Multiply each element by its factor, or that of the step."""
    node, run, source, target = records_of(table, row, run_at)
    if lacks_events(source):
        return NEEDS_EVENTS
    steps = run.steps if node.by_step else source.steps
    events, rows = events_of(source, run.samples), run.samples * steps
    most = events.index.size * (steps // source.steps) + 1  # what becomes 0 is written before it is left out
    at = room_for_events(run, rows, most, 0)
    if not at:
        return NEEDS_ROOM
    index, value, offset = events_at(at, rows, most)
    scale_events(node, run, source, events, index, value, offset)
    settle(run, target, at, rows, most, most > 0, steps, node.size)
    return 0


@addressed
def shift(table: int, row: int, run_at: int) -> int:
    """Multiply each element by its factor, and add its offset; a step may have its own."""
    node, run, source, target = records_of(table, row, run_at)
    if is_pending(source):
        return NEEDS_ROWS
    steps, size = run.steps if node.by_step else source.steps, node.size
    at = reserve(run, 4 * run.samples * steps * size)
    if not at:
        return NEEDS_ROOM
    factors, offsets = floats_at(node.scale, node.scale_count), floats_at(node.shift, node.shift_count)
    for r in range(run.samples * steps):
        sample, step = r // steps, r % steps
        taken = step + (longs_at(run.begun, EVERYTHING)[sample] if run.begun else 0)
        to = floats_at(at + 4 * r * size, size)
        load_row(source, sample * source.steps + (step if source.steps > 1 else 0), to)
        first = taken * size if factors.size > size else 0
        for j in range(size):
            to[j] *= factors[first + j]
        first = taken * size if offsets.size > size else 0
        for j in range(size):
            to[j] += offsets[first + j]
    put_rows(target, at, steps, size)
    return 0


@addressed
def move(table: int, row: int, run_at: int) -> int:
    """Move each value to its place in another shape or another order of the axes."""
    node, run, source, target = records_of(table, row, run_at)
    moves, steps, size = ints_at(node.moves, node.moves_count), source.steps, node.size
    rows = run.samples * steps
    if lacks_events(source):
        return NEEDS_EVENTS
    events = events_of(source, run.samples)
    most, valued, more = events.index.size, events.value.size, sort_bytes(size) if node.sorts else 0
    room = room_for_events(run, rows, most, more)
    if not room:
        return NEEDS_ROOM
    index, value, offset = events_at(room + more, rows, most)
    for r in range(rows + 1):
        offset[r] = events.offset[r]
    for k in range(most):
        index[k] = moves[events.index[k]]
    for k in range(valued):
        value[k] = events.value[k]
    if node.sorts:
        sort_rows(room, size, index, value[:valued], offset)
    settle(run, target, room + more, rows, most, valued > 0, steps, size)
    return 0


@addressed
def join(table: int, row: int, run_at: int) -> int:
    """Add, multiply or concatenate signals, or multiply two as matrices, row by row.

    The result is rows where one of those that are added or put side by side is, or all factors are; else events.
    """
    node, run, _, target = records_of(table, row, run_at)
    signals, others = signals_at(run.signals, EVERYTHING), longs_at(node.others, node.others_count)
    steps, widest, events, with_rows = np.int64(1), node.size, np.int64(0), np.int64(0)
    for k in range(others.size):
        if is_pending(signals[others[k]]):
            run.slot = others[k]
            return NEEDS_ROWS
        steps = max(steps, signals[others[k]].steps)
        widest = max(widest, signals[others[k]].size)
    rows, size, operation = run.samples * steps, node.size, node.operation
    for k in range(others.size):
        signal = signals[others[k]]
        with_rows += signal.rows != 0
        if not signal.rows and operation != MATMUL:
            events += longs_at(signal.offset, EVERYTHING)[run.samples * signal.steps] * (steps // signal.steps)
        else:
            events += rows * size
    products = operation in (MULTIPLY, MATMUL)
    dense = with_rows == others.size if products else with_rows > 0
    most = 0 if dense else min(events, rows * size)
    doubles = node.columns * (1 + node.heads * node.inner)
    more = 3 * lines(4 * widest) + lines(8 * doubles)
    scratch = room_for_events(run, rows, most, more + (lines(4 * rows * size) if dense else 0))
    if not scratch:
        return NEEDS_ROOM
    at = scratch + more  # of the rows, or else of the events
    first, second = floats_at(scratch, widest), floats_at(scratch + lines(4 * widest), widest)
    to, sums = floats_at(scratch + 2 * lines(4 * widest), size), doubles_at(scratch + 3 * lines(4 * widest), doubles)
    index, value, offset = events_at(at, rows, most)
    count, valued = np.int64(0), np.uint64(0)
    to[:] = 0.0
    if not dense:
        offset[0] = 0
    for r in range(rows):
        if dense:
            to = floats_at(at + 4 * r * size, size)
        join_row(node, signals, others, r // steps, r % steps, to, first, second, sums)
        if not dense:
            count, differs = list_row(to, index, value, count)
            offset[r + 1] = count
            valued |= differs
    if dense:
        put_rows(target, at, steps, size)
    else:
        settle(run, target, at, rows, most, valued != 0, steps, size)
    return 0


@partial(addressed, counted=True)
def delay(table: int, row: int, run_at: int) -> int:
    """Delay each element by its steps, or by those of each tap; its last inputs are the state."""
    node, run, source, target = records_of(table, row, run_at)
    if lacks_events(source):
        return NEEDS_EVENTS
    steps, size, longest = run.steps, source.size, node.longest
    rows, events = run.samples * steps, events_of(source, run.samples)
    most = events.index.size * (steps if source.steps == 1 else 1)
    largest = np.int64(0)
    for sample in range(run.samples):
        past, before = floats_at(carried_of(run, sample) + 4 * node.carried_at, longest * size), np.int64(0)
        if not run.begun:
            past[:] = 0.0
        for k in range(past.size):
            before += past[k] != 0.0
        most, largest = most + before, max(largest, before)
    most = min(most * (node.moves_count // size), rows * node.size)
    more = sort_bytes(node.size)
    room = room_for_events(run, rows, most, more)
    if not room:
        return NEEDS_ROOM
    at = room + more
    index, value, offset = events_at(at, rows, most)
    ones = delay_events(node, run, source, events, steps, largest, index, value, offset)
    sort_rows(room, node.size, index, value, offset)
    settle(run, target, at, rows, most, not ones, steps, node.size)
    return 0


@addressed
def read_out(table: int, row: int, run_at: int) -> int:
    """Read the answer of each sample after these steps: of the counts, or of the last output or its membranes.

    Sums are summed in float64, step by step from rest, so that no bit depends on how a run is split into calls.
    """
    node, run, source, _ = records_of(table, row, run_at)
    readout, counts = floats_at(run.readout, EVERYTHING), longs_at(run.counts, EVERYTHING)
    if node.operation == COUNT:
        for k in range(run.samples * run.classes):
            readout[k] = np.float32(counts[k])
        return 0
    rows_at = source.trace if node.of_trace else source.rows
    if not rows_at:
        return NEEDS_ROWS
    rows, reads, places = (
        floats_at(rows_at, EVERYTHING),
        doubles_at(run.reads, EVERYTHING),
        ints_at(node.places, EVERYTHING),
    )
    each_step = source.size if source.steps > 1 else 0
    rest = -np.inf if node.operation == GREATEST else float(NO_SPIKE) if node.operation == FIRST else -0.0
    for sample in range(run.samples):
        taken = longs_at(run.begun, EVERYTHING)[sample] if run.begun else np.int64(0)
        for j in range(run.classes):
            at, first = sample * run.classes + j, sample * source.steps * source.size + places[j]
            total = reads[at] if run.begun else rest
            for step in range(run.steps):
                now = np.float64(rows[first + step * each_step])
                if node.operation == FIRST:
                    if total == NO_SPIKE and now > 0.0:
                        total = np.float64(taken + step)
                elif node.operation == GREATEST:
                    if now > total or now != now:
                        total = now
                elif node.operation == LAST:
                    total = now
                else:
                    total += now
            reads[at] = total
            if node.operation == MEAN:
                total /= taken + run.steps
            elif node.operation == FIRST:
                total = 0.0 if total == NO_SPIKE else taken + run.steps - total
            readout[at] = np.float32(total)
    return 0


@inlined
def run_node(nodes: Array, row: int, run: Any, run_at: int) -> Any:
    """Run a node, and before it what makes the rows or events that it asks for; return why it did not run, or 0."""
    table, reason = address_of(nodes), np.int64(0)
    while True:
        run.slot = nodes[row].source
        reason = call_node(nodes[row].function, table, row, run_at)
        if reason != NEEDS_ROWS and reason != NEEDS_EVENTS:
            return reason
        maker = nodes.size - (1 if signals_at(run.signals, EVERYTHING)[run.slot].rows else 2)
        reason = call_node(nodes[maker].function, table, maker, run_at)
        if reason:
            return reason


@inlined
def go_on_from(run: Any, first: int) -> None:
    """Let a sample whose state lies where the one before's does go on from what that has counted and read."""
    states, width = longs_at(run.given_states, EVERYTHING), run.classes
    if states[first] == states[first - 1]:
        counts, reads = longs_at(run.counts - 8 * width, 2 * width), doubles_at(run.reads - 8 * width, 2 * width)
        for j in range(width):
            counts[width + j], reads[width + j] = counts[j], reads[j]


@inlined
def begin_look(nodes: Array, run: Any) -> None:
    """Let a group's samples go on up to the next look, or begin."""
    arriving, first, step = signals_at(run.signals, EVERYTHING)[0], run.first, run.done
    if not run.done:
        run.used = 0
        run.samples = min(run.group, run.end - first)
        run.results, run.counts = run.given_results + 8 * run.width * first, run.given_counts + 8 * run.classes * first
        run.reads, run.readout = run.given_reads + 8 * run.classes * first, run.given_readout + 4 * run.classes * first
        run.carried = run.given_carried + (0 if run.batch else 4 * run.floats * first)
        run.states = run.given_states + 8 * first if run.given_states else 0
        run.begun = run.given_begun + 8 * first if run.given_begun else 0
        if run.given_states and first:
            go_on_from(run, first)
    else:
        run.begun = run.taken + 8 * first
    upto = longs_at(run.looks, EVERYTHING)[run.look] if run.looks_count else run.given_steps
    run.steps = upto - run.done
    if run.given_offset:
        arriving.offset, arriving.index = run.given_offset + 8 * (first * run.given_steps + step), run.given_index
        arriving.value = run.given_values
    run.values = run.given_values + 4 * (first * run.sample_stride + step * run.step_stride)
    arriving.steps = run.steps if run.step_stride or run.given_offset else 1
    arriving.size, arriving.rows, arriving.trace, arriving.feed = nodes[0].size, 0, 0, -1


@inlined
def is_sure(run: Any, sample: int, is_mean: bool, remaining: int) -> bool:
    """Return whether a sample of a group ends before the steps that remain, by the rule `run.ends`.

    BY_COUNT: another class could at most get even by `worth` spikes a step, and would need the lower index to win.
    BY_LEAD: the first class leads by `worth` for each step in what is read, of a mean by its sum. BY_SPIKE: any fired.
    """
    counts = longs_at(run.counts + 8 * run.classes * sample, run.classes)
    readout = floats_at(run.readout + 4 * run.classes * sample, run.classes)
    first, lead = 0, run.worth * remaining
    scale = run.done if is_mean and run.ends == BY_LEAD else 1
    for j in range(run.classes):
        if run.ends == BY_COUNT:
            first = j if counts[j] > counts[first] else first
        else:
            first = j if readout[j] > readout[first] else first
    if run.ends == BY_SPIKE:
        return readout[first] > 0.0
    for j in range(run.classes):
        if run.ends == BY_COUNT:
            ahead = np.float64(counts[first] - counts[j])
        else:
            ahead = (np.float64(readout[first]) - np.float64(readout[j])) * scale
        if j != first and (not ahead >= lead or (run.ends == BY_COUNT and ahead == lead and j < first)):
            return False
    return True


@inlined
def end_samples(run: Any, is_mean: bool) -> bool:
    """Let the samples of a group end that are sure at this look, or all at the last; return whether all have ended.

    What has become of a sample is copied to where the rest of the group's steps do not change it; see `table.RUN`.
    """
    width, classes, left, all_ended = run.width, run.classes, run.given_steps - run.done, True
    taken, results = longs_at(run.taken, EVERYTHING), longs_at(run.given_results, EVERYTHING)
    counts, readout = longs_at(run.given_counts, EVERYTHING), floats_at(run.given_readout, EVERYTHING)
    for sample in range(run.samples):
        at = run.first + sample
        to, taken[at] = run.batch + at, run.done
        if taken[to]:
            continue
        if left and not is_sure(run, sample, is_mean, left):
            all_ended = False
            continue
        taken[to] = run.done
        for j in range(width):
            results[to * width + j] = results[at * width + j]
        for j in range(classes):
            counts[to * classes + j], readout[to * classes + j] = counts[at * classes + j], readout[at * classes + j]
    return all_ended


@borrowing
def spend(run: Any) -> None:
    """Take a group's operations from those that the run may have."""
    stop, results = longs_at(run.stop, 2), longs_at(run.results, EVERYTHING)
    if stop[1]:
        for sample in range(run.samples):
            stop[1] = max(1, stop[1] - results[sample * run.width])


@borrowing
def proceed(nodes: Array, run: Any, run_at: int) -> Any:
    """Run a run on from where it is; return ENDED, or why it came back, and is to be called again."""
    last_row = nodes.size - 2
    while run.first < run.end:
        while True:
            if not run.row:
                begin_look(nodes, run)
            while run.row < last_row:
                if longs_at(run.stop, 1)[0]:
                    return np.int64(STOPPED)
                known = run.done and nodes[run.row].constant and not (run.step_stride or run.given_offset)
                if not known:
                    reason = run_node(nodes, run.row, run, run_at)
                    if reason:
                        return reason
                    if is_over(run, 0):
                        return np.int64(STOPPED)
                run.row += 1
            run.done += run.steps
            run.row = 0
            run.look += 1
            if not run.batch or end_samples(run, nodes[last_row - 1].operation == MEAN):
                break
        spend(run)
        run.first += run.samples
        run.look, run.done = 0, 0
    return np.int64(ENDED)


@kernel
def go_on(nodes: Array, runs: Array) -> int:
    """Go on with a run that came back; see `proceed`."""
    return proceed(nodes, runs[0], address_of(runs))


@kernel
def begin(
    nodes: Array, signals: Array, runs: Array, first: int, end: int, group: int, steps: int, looks: Array, ends: int,
    worth: float, stop: Array, begun: Array, results: Array, counts: Array, reads: Array, readout: Array,
    carried: Array, states: Array, taken: Array, values: Array, index: Array, offset: Array, sample_stride: int,
    step_stride: int, arena: Array, room: Array, keeps_traces: bool, keeps_spikes: bool,
) -> int:  # fmt: skip
    """Begin a run with an empty arena, and `proceed`; see `table.RUN`.

    The inputs are dense `values`, a row of which lies `sample_stride` and `step_stride` after that of the sample and
    the step before it, 0 if all steps are the same; or events, where there are `offset`.
    """
    run = runs[0]
    run.signals, run.first, run.end, run.group = address_of(signals), first, end, group
    run.looks, run.looks_count, run.look, run.done, run.row = address_of(looks), looks.size, 0, 0, 0
    run.given_steps, run.ends, run.worth, run.stop = steps, ends, worth, address_of(stop)
    run.given_begun = address_of(begun) if begun.size else 0
    run.given_results, run.width, run.classes = address_of(results), results.shape[1], counts.shape[1]
    run.given_counts, run.given_reads, run.given_readout = address_of(counts), address_of(reads), address_of(readout)
    run.given_states = address_of(states) if states.size else 0
    run.given_carried, run.floats = address_of(carried), carried.shape[1]
    run.taken, run.batch = address_of(taken), taken.size // 2
    run.given_values = address_of(values) if values.size else 0
    run.given_offset, run.given_index = address_of(offset) if offset.size else 0, address_of(index)
    run.sample_stride, run.step_stride = sample_stride, step_stride
    run.keeps_traces, run.keeps_spikes = keeps_traces, keeps_spikes
    run.arena, run.arena_count, run.room = address_of(arena), arena.size, address_of(room)
    run.largest = 0.0
    return proceed(nodes, run, address_of(runs))
