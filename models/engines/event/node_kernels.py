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

from spikeserve.models.engines.event.compiled import addressed, borrowing, kernel
from spikeserve.models.engines.event.connections import DOUBLES, GATHER, INTEGERS, NO_FEED, PASS, Windows
from spikeserve.models.engines.event.cores import ADDED, MOVED, STEPPED
from spikeserve.models.engines.event.currents import (
    Array,
    aligned_floats,
    connect,
    connect_values,
    room_for_spikes,
    rows_at_once,
    senders,
)
from spikeserve.models.engines.event.event_kernels import (
    count_operations,
    fill_rows,
    find_events,
    pool_rows,
    pool_rows_of_events,
    scale_events,
)
from spikeserve.models.engines.event.native import address_of, call_node
from spikeserve.models.engines.event.table import (
    ENDED,
    FIRES_TOO_OFTEN,
    IS_PYTHON,
    NEEDS_EVENTS,
    NEEDS_NOTHING,
    NEEDS_ROOM,
    NEEDS_ROWS,
    REASONS,
    SHARES,
)
from spikeserve.models.engines.event.vectors import LANES, TILE_ROWS, copy
from spikeserve.models.engines.event.views import (
    EVERYTHING,
    events_of,
    feed_of,
    float_rows_at,
    floats_at,
    int_rows_at,
    ints_at,
    longs_at,
    nodes_at,
    runs_at,
    signals_at,
)
from spikeserve.models.engines.readout import MAX_SPIKES

list_events, write_rows = find_events.dispatcher, fill_rows.dispatcher
LINE_BYTES = 64


@borrowing
def reserve(run: Any, count: int) -> Any:
    """Take so many bytes of the arena, from a line of the cache on, and return their address; 0 where it lacks them."""
    at = (run.arena + run.used + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES
    end = at + count - run.arena
    if end > run.arena_count:
        run.needed = count + LINE_BYTES
        return np.int64(0)
    run.used = end
    return np.int64(at)


@borrowing
def is_valued(node: Any, signal: Any) -> Any:
    """Return whether a connection's sums take other kernels than those of spikes, which neurons do not run."""
    return np.int64(node.summed == DOUBLES or (node.summed == INTEGERS and signal.value != 0))


@borrowing
def room_for_events(run: Any, rows: int, most: int, more: int) -> Any:
    """Reserve `more` bytes, and behind them offsets, places and values of `most` events; see `settle`."""
    return reserve(run, more + 8 * (rows + 1) + 4 * (most + LANES) + 4 * most)


@borrowing
def settle(run: Any, signal: Any, at: int, rows: int, most: int, valued: bool, steps: int, size: int) -> None:
    """Make a signal of the events that were found behind `at`, and give back the room that they left."""
    index_at = at + 8 * (rows + 1)
    value_at = index_at + 4 * (most + LANES)
    count = longs_at(at, rows + 1)[rows]
    signal.offset, signal.index, signal.value = at, index_at, 0
    end = index_at + 4 * count
    if valued and count:
        signal.value = (end + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES  # which is no further than `value_at`
        to, given = floats_at(signal.value, count), floats_at(value_at, count)
        for k in range(count):
            to[k] = given[k]
        end = signal.value + 4 * count
    run.used = end - run.arena
    signal.steps, signal.size, signal.rows, signal.trace, signal.feed = steps, size, 0, 0, -1


@borrowing
def lacks_events(signal: Any) -> bool:
    """Return whether a signal is rows, or a connection that was not run."""
    return not signal.offset or signal.feed >= 0


@borrowing
def lacks_rows(signal: Any) -> bool:
    """Return whether a signal is events, or a connection that was not run."""
    return not signal.rows


@partial(addressed, counted=True)
def make_rows(table: int, _: int, run_at: int) -> int:
    """Give the signal `run.slot` its rows."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signal = signals_at(run.signals, EVERYTHING)[run.slot]
    count = run.samples * signal.steps
    at = reserve(run, 4 * count * signal.size)
    if not at:
        return NEEDS_ROOM
    rows, size, events = floats_at(at, count * signal.size), signal.size, events_of(signal, run.samples)
    if signal.feed < 0:
        rows[:] = 0.0
        write_rows(events, float_rows_at(at, count, size))
    else:
        node = nodes[signal.feed]
        feed, bias = feed_of(node, node.kind), floats_at(node.bias, node.bias_count)
        units = feed.weight.size // size if feed.kind == GATHER else 0
        at_once = rows_at_once(feed, size, units, count)
        sums = aligned_floats((at_once + TILE_ROWS - 1) * size + LANES)
        none = np.int64(0)
        within = senders(feed, none, size, size, events)
        spikes = room_for_spikes(feed, units, events, count, at_once)
        valued = is_valued(node, signal)
        for first in range(0, count, at_once):
            block = min(at_once, count - first)
            if valued:
                connect_values(sums, feed, size, units, events, first, block, bias)
            else:
                connect(sums, feed, none, size, size, units, events, first, block, bias, spikes, within)
            copy(rows, first * size, sums, none, block * size)
    signal.rows = at
    return 0


@addressed
def make_events(_: int, __: int, run_at: int) -> int:
    """Give the signal `run.slot`, which has rows, its events."""
    run = runs_at(run_at, 1)[0]
    signal = signals_at(run.signals, EVERYTHING)[run.slot]
    rows, size, values, trace = run.samples * signal.steps, signal.size, signal.rows, signal.trace
    at = room_for_events(run, rows, rows * size, 0)
    if not at:
        return NEEDS_ROOM
    index_at = at + 8 * (rows + 1)
    index, value = ints_at(index_at, rows * size + LANES), floats_at(index_at + 4 * (rows * size + LANES), rows * size)
    none = np.int64(0)
    ones = list_events(
        floats_at(values, rows * size), rows, np.int64(1), size, none, size, ints_at(none, none), index, value,
        longs_at(at, rows + 1),
    )  # fmt: skip
    settle(run, signal, at, rows, rows * size, not ones, signal.steps, size)
    signal.rows, signal.trace = values, trace
    return 0


@addressed
def find_inputs(table: int, row: int, run_at: int) -> int:
    """List what is not 0 in the dense inputs; see `event_kernels.find_events`."""
    node, run = nodes_at(table, EVERYTHING)[row], runs_at(run_at, 1)[0]
    signal = signals_at(run.signals, EVERYTHING)[node.target]
    steps = signal.steps
    rows = run.samples * steps
    most = rows * node.units
    at = room_for_events(run, rows, most, 0)
    if not at:
        return NEEDS_ROOM
    index_at = at + 8 * (rows + 1)
    index, value = ints_at(index_at, most + LANES), floats_at(index_at + 4 * (most + LANES), most)
    places = ints_at(node.places, node.places_count)
    ones = list_events(
        floats_at(run.values, EVERYTHING), run.samples, steps, run.sample_stride, run.step_stride, node.units, places,
        index, value, longs_at(at, rows + 1),
    )  # fmt: skip
    settle(run, signal, at, rows, most, not ones, steps, node.size)
    return 0


@addressed
def connect_later(table: int, row: int, run_at: int) -> int:
    """Count a connection's operations; its currents are computed by the node that takes them."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signals, node = signals_at(run.signals, EVERYTHING), nodes[row]
    source, target = signals[node.source], signals[node.target]
    if lacks_events(source):
        return NEEDS_EVENTS
    events, operations = events_of(source, run.samples), longs_at(run.results, run.samples)
    cost = longs_at(node.cost, node.cost_count)
    count_operations(events.index, events.offset, source.steps, cost, operations)
    target.steps, target.size, target.index, target.value = source.steps, node.size, source.index, source.value
    target.offset, target.rows, target.trace, target.feed = source.offset, 0, 0, row
    return 0


@addressed
def fire(table: int, row: int, run_at: int) -> int:
    """Run a layer of neurons, and with it the connection before it where that has an input for every step."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signals, node = signals_at(run.signals, EVERYTHING), nodes[row]
    source, target = signals[node.source], signals[node.target]
    samples, steps, size = run.samples, run.steps, node.size
    rows, base_steps, kind, connection, base = samples * steps, np.int64(0), np.int64(NO_FEED), row, np.int64(0)
    if source.steps == steps and source.feed >= 0 and not (source.rows or is_valued(nodes[source.feed], source)):
        connection = source.feed
        kind, base = nodes[connection].kind, nodes[connection].bias
    elif source.steps == steps and source.feed < 0 and not source.rows:
        kind = np.int64(PASS)
    else:
        if lacks_rows(source):
            return NEEDS_ROWS
        base_steps, base = source.steps, source.rows
    run.connection, run.kind, run.base, run.base_steps = connection, kind, base, base_steps
    run.work = STEPPED * rows * size
    if kind != NO_FEED:
        fan_out = nodes[connection].fan_out if kind != PASS else 0.0
        run.work += ADDED * longs_at(source.offset, rows + 1)[rows] * fan_out
    if run.hi:  # a part, for one of several threads
        return call_node(node.runner, table, row, run_at)
    if run.work >= run.enough and not (node.fan_back or run.alone == row):
        run.unit = nodes[connection].step
        return SHARES
    traced = node.traced or run.keeps_traces
    trace_bytes = (4 * rows * size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES if traced else 0
    trace_at = room_for_events(run, rows, rows * size, trace_bytes)
    if not trace_at:
        return NEEDS_ROOM
    if node.fan_back and run.begun:
        operations, last = longs_at(run.results, samples), node.carried_at + node.states * size
        for sample in range(samples):
            carried = floats_at(longs_at(run.carried, samples)[sample], EVERYTHING)
            for j in range(size):
                operations[sample] += node.fan_back * (carried[last + j] != 0.0)
    at = trace_at + trace_bytes
    run.trace, run.offset, run.index = trace_at if traced else 0, at, at + 8 * (rows + 1)
    run.value = run.index + 4 * (rows * size + LANES) if node.several else 0
    run.hi = size
    reason = call_node(node.runner, table, row, run_at)
    run.hi = 0
    if reason:
        return reason
    settle(run, target, at, rows, rows * size, node.several != 0, steps, size)
    target.trace = run.trace
    if not node.spiking:
        target.offset, target.rows = 0, trace_at
    return 0


@addressed
def count_spikes(table: int, row: int, run_at: int) -> int:
    """Count a layer's spikes: of each sample, of each neuron that is read, and the operations of those that return."""
    node, run = nodes_at(table, EVERYTHING)[row], runs_at(run_at, 1)[0]
    signal, samples, steps = signals_at(run.signals, EVERYTHING)[node.target], run.samples, run.steps
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
            results[node.row * samples + sample] += total
        else:
            results[node.row * samples + sample] += end - first
        if node.read:
            at = sample * node.units
            for k in range(first, end):
                counts[at + elements[events.index[k]]] += np.int64(events.value[k]) if events.value.size else 1
        if node.fan_back:  # the last step's spikes come back only in a run that goes on from here
            results[sample] += node.fan_back * (offset[(sample + 1) * steps - 1] - first)
    return 0


@addressed
def pool(table: int, row: int, run_at: int) -> int:
    """Pool events into events, or rows into rows."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signals, node = signals_at(run.signals, EVERYTHING), nodes[row]
    source, target = signals[node.source], signals[node.target]
    rows, steps, size = run.samples * source.steps, source.steps, node.size
    windows = Windows(
        node.overlaps, int_rows_at(node.outputs, node.outputs_count, node.overlaps), node.area_channels,
        ints_at(node.first_input, node.first_input_count), ints_at(node.inputs, node.inputs_count), node.area,
    )  # fmt: skip
    if source.rows or source.feed >= 0:
        if lacks_rows(source):
            return NEEDS_ROWS
        at = reserve(run, 4 * rows * size)
        if not at:
            return NEEDS_ROOM
        floats_at(at, rows * size)[:] = 0.0
        pooled = float_rows_at(at, rows, size)
        pool_rows(windows, node.largest, node.divisor, float_rows_at(source.rows, rows, source.size), pooled)
        target.steps, target.size, target.rows, target.offset, target.trace, target.feed = steps, size, at, 0, 0, -1
        return 0
    events = events_of(source, run.samples)
    run.work = MOVED * events.index.size
    by_rows = node.dense and events.value.size
    if run.work >= run.enough and not (by_rows or run.hi or run.alone == row):
        run.unit = 1
        return SHARES
    if run.hi:
        index, value = ints_at(run.index, EVERYTHING), floats_at(run.value, EVERYTHING)
        ones = pool_rows_of_events(
            windows, events, size, node.largest, node.divisor, run.lo, run.hi, index, value,
            longs_at(run.offset, rows + 1),
        )  # fmt: skip
        return 0 if ones else SHARES
    most = min(events.index.size * node.overlaps, rows * node.units)
    given = (4 * source.size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES
    more = given + (4 * size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES if by_rows else 0
    given_at = room_for_events(run, rows, most, more)
    if not given_at:
        return NEEDS_ROOM
    at = given_at + more
    index_at = at + 8 * (rows + 1)
    index, value = ints_at(index_at, most + LANES), floats_at(index_at + 4 * (most + LANES), most)
    offset = longs_at(at, rows + 1)
    if by_rows:
        pool_each_row(node, windows, events, source.size, given_at, given_at + given, index, value, offset)
        ones = False
    else:
        ones = pool_rows_of_events(
            windows, events, size, node.largest, node.divisor, np.int64(0), rows, index, value, offset
        )
    settle(run, target, at, rows, most, not ones or node.divisor != 1.0, steps, size)  # if not, all are spikes
    return 0


@borrowing
def pool_each_row(
    node: Any, windows: Any, events: Any, size: int, given_at: int, pooled_at: int, index: Array, value: Array,
    offset: Array,
) -> None:  # fmt: skip
    """Pool events by one dense row after the other."""
    given, pooled = floats_at(given_at, size), floats_at(pooled_at, node.size)
    one = np.int64(1)
    given[:] = 0.0
    pooled[:] = 0.0
    offset[0] = count = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            given[events.index[k]] = events.value[k]
        pool_rows(
            windows, node.largest, node.divisor, float_rows_at(given_at, one, size),
            float_rows_at(pooled_at, one, node.size),
        )  # fmt: skip
        for k in range(events.offset[r], events.offset[r + 1]):
            given[events.index[k]] = 0.0
        for j in range(node.size):
            if pooled[j] != 0.0:
                index[count], value[count] = j, pooled[j]
                count += 1
        offset[r + 1] = count


@addressed
def scale(table: int, row: int, run_at: int) -> int:
    """Multiply each element by its factor."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signals, node = signals_at(run.signals, EVERYTHING), nodes[row]
    source, target = signals[node.source], signals[node.target]
    if lacks_events(source):
        return NEEDS_EVENTS
    events, rows = events_of(source, run.samples), run.samples * source.steps
    most = events.index.size + 1  # an element that becomes 0 is written before it is left out
    at = room_for_events(run, rows, most, 0)
    if not at:
        return NEEDS_ROOM
    index_at = at + 8 * (rows + 1)
    index, value = ints_at(index_at, most + LANES), floats_at(index_at + 4 * (most + LANES), most)
    scale_events(events, floats_at(node.scale, node.scale_count), index, value, longs_at(at, rows + 1))
    settle(run, target, at, rows, most, True, source.steps, node.size)
    return 0


@addressed
def move(table: int, row: int, run_at: int) -> int:
    """Move each value to its place in another shape or another order of the axes."""
    nodes, run = nodes_at(table, EVERYTHING), runs_at(run_at, 1)[0]
    signals, node = signals_at(run.signals, EVERYTHING), nodes[row]
    source, target = signals[node.source], signals[node.target]
    moves, places = ints_at(node.moves, node.moves_count), ints_at(node.places, node.places_count)
    rows, steps, size = run.samples * source.steps, source.steps, node.size
    if source.rows or source.feed >= 0:
        if lacks_rows(source):
            return NEEDS_ROWS
        at = reserve(run, 4 * rows * size)
        if not at:
            return NEEDS_ROOM
        moved, given = floats_at(at, rows * size), floats_at(source.rows, rows * source.size)
        moved[:] = 0.0
        for r in range(rows):
            for k in range(places.size):
                moved[r * size + moves[places[k]]] = given[r * source.size + places[k]]
        target.rows, target.offset = at, 0
    else:
        events = events_of(source, run.samples)
        at = reserve(run, 4 * events.index.size + 4)
        if not at:
            return NEEDS_ROOM
        index = ints_at(at, events.index.size)
        for k in range(index.size):
            index[k] = moves[events.index[k]]
        target.index, target.value, target.offset, target.rows = at, source.value, source.offset, 0
    target.steps, target.size, target.trace, target.feed = steps, size, 0, -1
    return 0


@borrowing
def run_node(nodes: Array, row: int, run: Any, run_at: int) -> Any:
    """Run a node, and before it what makes the rows or events that it asks for; return why it did not run, or 0."""
    table, reason = address_of(nodes), np.int64(0)
    source = signals_at(run.signals, EVERYTHING)[nodes[row].source]
    rows_maker, events_maker = nodes.size - 2, nodes.size - 1
    while True:
        reason = call_node(nodes[row].function, table, row, run_at)
        if reason != NEEDS_ROWS and reason != NEEDS_EVENTS:
            return reason
        run.slot = nodes[row].source
        maker = rows_maker if lacks_rows(source) else events_maker
        reason = call_node(nodes[maker].function, table, maker, run_at)
        if reason:
            return reason


@borrowing
def run_nodes(nodes: Array, run: Any, run_at: int, first: int, end: int) -> Any:
    """Run the nodes from `first` to `end`; return ENDED, or the row where it stopped times REASONS plus the reason."""
    for row in range(first, end):
        if run.known and nodes[row].constant:
            continue
        reason = np.int64(IS_PYTHON if not nodes[row].function else NEEDS_NOTHING)
        if not reason:
            reason = run_node(nodes, row, run, run_at)
        if reason:
            return row * REASONS + reason
    return np.int64(ENDED)


@kernel
def go_on(nodes: Array, runs: Array, first: int, end: int) -> int:
    """Run nodes of a run that was begun; see `run_nodes`."""
    return run_nodes(nodes, runs[0], address_of(runs), first, end)


@kernel
def run_part(
    nodes: Array, runs: Array, row: int, lo: int, hi: int, index: Array, value: Array, offset: Array, trace: Array,
    room: Array,
) -> int:  # fmt: skip
    """Run a part of a node for one of several threads, which gets a copy of the run; see `tiles.find_in_tiles`."""
    run = runs[0]
    run.lo, run.hi, run.index, run.offset, run.room = lo, hi, address_of(index), address_of(offset), address_of(room)
    run.value = address_of(value) if value.size else 0
    run.trace = address_of(trace) if trace.size else 0
    return run_nodes(nodes, run, address_of(runs), row, row + 1)


@borrowing
def set_up(
    run: Any, signals: Array, samples: int, steps: int, carried: Array, results: Array, counts: Array, arena: Array,
    room: Array, enough: float,
) -> None:  # fmt: skip
    """Begin a run with an empty arena."""
    run.signals, run.samples, run.steps, run.carried = address_of(signals), samples, steps, address_of(carried)
    run.results, run.counts = address_of(results), address_of(counts)
    run.arena, run.arena_count, run.used = address_of(arena), arena.size, 0
    run.room, run.room_count, run.keeps_traces, run.known = address_of(room), room.size, 0, 0
    run.enough, run.largest, run.lo, run.hi = enough, 0.0, 0, 0
    run.alone = -1


@borrowing
def is_sure(counts: Array, at: int, units: int, worth: float, ties: bool) -> bool:
    """Return whether the first class of counts[at:] leads by `worth`; where that `ties`, it needs the lower index."""
    first = 0
    for j in range(units):
        if counts[at + j] > counts[at + first]:
            first = j
    for j in range(units):
        ahead = counts[at + first] - counts[at + j] - worth
        if j != first and (ahead < 0.0 or (ties and ahead == 0.0 and j < first)):
            return False
    return True


@kernel
def run_early(
    nodes: Array, signals: Array, runs: Array, first: int, end: int, checks: Array, worth: float, ties: bool,
    taken: Array, carried: Array, values: Array, sample_stride: int, step_stride: int, results: Array, counts: Array,
    arena: Array, room: Array,
) -> int:  # fmt: skip
    """Run the samples from `first` to `end`, one after the other, each until it `is_sure`; see `run_nodes`.

    A sample is looked at after so many steps as `checks` says; a step that remains is worth `worth` spikes. `taken`
    (samples,) are the steps that each took. `results` has a row for each sample, as `counts` has, and `carried` (1,) is
    where the state of one lies. Where `step_stride` is 0, the inputs are the same at every step.
    """
    run, given = runs[0], signals[0]
    width, units, last = results.size // taken.size, counts.size // taken.size, checks[checks.size - 1]
    for sample in range(first, end):
        set_up(run, signals, np.int64(1), last, carried, results, counts, arena, room, np.inf)
        run.results += 8 * sample * width
        run.counts += 8 * sample * units
        run.begun = 0
        for look in range(checks.size):
            before, upto = taken[sample], checks[look]
            run.steps = upto - before
            run.values = address_of(values) + 4 * (sample * sample_stride + before * step_stride)
            run.sample_stride, run.step_stride = sample_stride, step_stride
            run.known = before > 0 and step_stride == 0
            given.steps = run.steps if step_stride else 1
            given.size, given.rows, given.trace, given.feed = nodes[0].size, 0, 0, -1
            ended = run_nodes(nodes, run, address_of(runs), np.int64(0), nodes.size - 2)
            if ended != ENDED:
                return ended
            taken[sample] = upto
            run.begun = address_of(taken) + 8 * sample
            if is_sure(counts, sample * units, units, worth * (last - upto), ties):
                break
    return ENDED


@kernel
def begin(
    nodes: Array, signals: Array, runs: Array, end: int, samples: int, steps: int, begun: Array, carried: Array,
    values: Array, index: Array, offset: Array, sample_stride: int, step_stride: int, input_steps: int,
    results: Array, counts: Array, arena: Array, room: Array, keeps_traces: bool, known: bool, enough: float,
) -> int:  # fmt: skip
    """Begin a run and run its nodes up to `end`; see `run_nodes`.

    The inputs are dense `values`, a row of which lies `sample_stride` and `step_stride` after that of the sample and
    the step before it; or events, where there are `offset`.
    """
    run, given = runs[0], signals[0]
    set_up(run, signals, samples, steps, carried, results, counts, arena, room, enough)
    run.begun = address_of(begun) if begun.size else 0
    run.values, run.sample_stride, run.step_stride = address_of(values), sample_stride, step_stride
    run.keeps_traces, run.known = keeps_traces, known
    given.steps, given.size, given.rows, given.trace, given.feed = input_steps, nodes[0].size, 0, 0, -1
    first = np.int64(0)
    if offset.size:
        given.offset, given.index, given.value = address_of(offset), address_of(index), 0
        if values.size:
            given.value = address_of(values)
        first = np.int64(1)
    return run_nodes(nodes, run, address_of(runs), first, end)
