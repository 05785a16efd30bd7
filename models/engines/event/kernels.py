"""The kernels of layers: each runs one through all steps of some samples, and its work follows what is not zero.

Between nodes spikes travel as events. `index` (int32) holds the positions that are not zero, row after row; a row is
one step of one sample, sample * time_steps + step, and the events of row r are those from offset[r] to offset[r + 1].
`value` (float32) holds what stands there, or is empty where all are 1. Positions are of the layouts that `layouts`
makes: channels last, padded to whole vectors. A dense signal is float32 rows of a layout's size.

`currents` has what the connections before the neurons do, and `event_kernels` the nodes that have neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import addressed, borrowing, inner
from spikeserve.models.engines.event.connections import DOUBLES, INTEGERS, NARROW, NO_FEED, PANEL
from spikeserve.models.engines.event.currents import BLOCK, Array, connect, gather, gather_doubles, rows_at_once
from spikeserve.models.engines.event.native import call, records_of
from spikeserve.models.engines.event.table import Events
from spikeserve.models.engines.event.vectors import (
    BYTE_PANEL,
    LANES,
    TILE_ROWS,
    copy,
    gather_to_floats,
    list_bits,
    nonzero_bits,
)
from spikeserve.models.engines.event.views import (
    EVERYTHING,
    carried_of,
    events_of,
    feed_of,
    floats_at,
    ints_at,
    longs_at,
    nodes_at,
    shorts_at,
)


@borrowing
def feed_back(
    row: Array, start: Array, s: int, weight: Array, size: int, summed: int, grid: float, adder: int, index: Array,
    value: Array, k0: int, k1: int,
) -> None:  # fmt: skip
    """Write start[s:] plus what the spikes k0 to k1 of a recurrent layer send back to it into a row (size,)."""
    integers = summed == INTEGERS
    if summed == NARROW:
        for j in range(0, size, BYTE_PANEL):
            call(
                adder, row, j, start, s + j, start, 2 * size + j, weight, size * j // 4, min(BYTE_PANEL, size - j),
                index, 0, value, 0, k0, k1, np.float32(grid),
            )  # fmt: skip
        return
    if summed == DOUBLES or (integers and value.size):
        feed_back_doubles(row, start, s, weight, size, integers, grid, index, value, k0, k1)
        return
    for j in range(0, size, PANEL):
        width, at = min(PANEL, size - j), size * j
        if integers:
            gather_to_floats(row, j, start, s + j, weight, at, width, width, index, value, k0, k1, np.float32(grid))
        else:
            gather(row, j, start, s + j, weight, at, width, width, index, value, k0, k1)


@inner
def feed_back_doubles(
    row: Array, start: Array, s: int, weight: Array, size: int, integers: bool, grid: float, index: Array,
    value: Array, k0: int, k1: int,
) -> None:  # fmt: skip
    """Add the feedback of spikes to a row as `feed_back` does, in float64."""
    factors = value[k0:k1] if value.size else np.ones(k1 - k0, np.float32)
    none = np.int64(0)
    gather_doubles(row, none, start, s, weight, integers, size, size, index[k0:k1], factors, none, k1 - k0, grid)


@inner
def feed_back_carried(
    row: Array, start: Array, s: int, weight: Array, size: int, summed: int, grid: float, adder: int, spikes: Array
) -> None:
    """Write start[s:] plus what a recurrent layer's spikes (size,) of an earlier run send back to it into a row."""
    index, none = np.empty(size + LANES, np.int32), np.int64(0)  # no literal, for which Numba compiles all once more
    count = none
    for j in range(0, size, LANES):
        count = list_bits(index, count, j, nonzero_bits(spikes, j))
    feed_back(row, start, s, weight, size, summed, grid, adder, index, spikes[index[:count]], none, count)


@addressed
def run_neurons(table: int, row: int, run_at: int) -> int:
    """Run a layer of neurons with the connection before it through all steps, and return 0.

    With the connection `run.connection`, which may not be `node_kernels.is_valued`, a step's current is `base` (size,),
    its bias, and what the events add; with events that come without a connection, `connections.PASS`, it is the events.
    Otherwise it is a row of `base` (rows * size): one for each sample (`base_steps` 1) or one for each step. What fired
    goes into `index` and `offset` (samples * steps + 1), how often into `value` if it is there, and the membranes after
    the reset into `trace` (samples * steps, size) if it is there.

    A sample's carried floats hold the state of all layers, see `carried.CarriedLayout`: this one's is read where
    `begun` (samples,) says how many steps each sample has taken; where that is empty, all start from rest. It is
    written at each step.
    `room` is what `room_for` says, and holds anything: the currents of some rows, the spikes that `currents.connect`
    multiplies, what comes back to a recurrent layer, and how often each neuron fired.
    """
    neurons, run, source, _ = records_of(table, row, run_at)
    samples, steps, base_steps = run.samples, run.steps, run.base_steps
    total, none = samples * steps * neurons.size, np.int64(0)
    feed = feed_of(nodes_at(table, EVERYTHING)[run.connection], run.kind)
    events = Events(ints_at(none, none), floats_at(none, none), longs_at(none, none))
    if feed.kind != NO_FEED:
        events = events_of(source, samples)
    base, room = floats_at(run.base, EVERYTHING), floats_at(run.room, EVERYTHING)
    begun, trace = longs_at(run.begun, samples if run.begun else 0), floats_at(run.trace, total if run.trace else 0)
    index, value = ints_at(run.index, EVERYTHING), floats_at(run.value, total if run.value else 0)
    offset, states, code = longs_at(run.offset, samples * steps + 1), neurons.states, neurons.code
    parameters, rest = floats_at(neurons.parameters, neurons.parameters_count), floats_at(neurons.rest, EVERYTHING)
    inside, weight = shorts_at(neurons.inside, EVERYTHING), floats_at(neurons.recurrent_weight, EVERYTHING)
    bias, summed, grid = floats_at(neurons.recurrent_bias, EVERYTHING), neurons.recurrent_summed, neurons.recurrent_grid
    adder = neurons.recurrent_adder
    size, rows = neurons.size, samples * steps
    connected, recurrent = feed.kind != NO_FEED, neurons.recurrent_weight_count > 0
    at_once = rows_at_once(feed, size, rows) if connected else 1
    feedback, several = room[:size], room[size : 2 * size]
    end = 2 * size + (at_once + TILE_ROWS - 1) * size + LANES
    sums, spikes = (room[2 * size : end], room[end:]) if connected else (base, room[end:])
    state = neurons.carried_at  # in a sample's carried floats, with `size` from state to state
    last_spikes = state + states * size  # of a recurrent layer
    count: Any = np.int64(0)
    before = count
    offset[0] = 0
    for sample in range(samples):
        carried = floats_at(carried_of(run, sample), EVERYTHING)
        before = count
        if begun.size == 0:
            for k in range(states):
                copy(carried, state + k * size, rest, k * size, size)
        for now in range(sample * steps, (sample + 1) * steps):
            current, c = sums, now * size
            if connected:
                c = now % at_once * size
                if c == 0:
                    rows = min(at_once, samples * steps - now)
                    connect(sums, feed, size, events, now, rows, base, spikes)
            elif base_steps == 1:
                c = sample * size
            if recurrent:
                starts = now == sample * steps
                b = 0 if starts and (begun.size == 0 or begun[sample] == 0) else size
                if starts and begun.size:
                    last = carried[last_spikes : last_spikes + size]
                    feed_back_carried(feedback, bias, b, weight, size, summed, grid, adder, last)
                else:
                    feed_back(feedback, bias, b, weight, size, summed, grid, adder, index, value, before, count)
            before = count
            count = call(
                code, size, current, c, feedback, 0, carried, state, size, parameters, 0, size, inside, 0,
                index, 0, count, several, 0, trace, now * size,
            )  # fmt: skip
            if value.size:
                for k in range(before, count):
                    value[k] = several[index[k]]
            offset[now + 1] = count
        if recurrent:
            carried[last_spikes : last_spikes + size] = 0.0
            for k in range(before, count):
                carried[last_spikes + index[k]] = value[k] if value.size else 1.0
    return 0


def room_for(width: int, units: int) -> int:
    """Reckon how many floats `run_neurons` needs as its room at most, for neurons that `units` feed by a GATHER or 0.

    The rows that are made at once have at most BLOCK values, or are TILE_ROWS.
    """
    blocks = 2 * BLOCK if units else 0
    return blocks + 2 * (TILE_ROWS + 1) * width + 2 * TILE_ROWS * units + 2 * LANES
