"""The kernels of layers: each runs one through all steps of some samples, and its work follows what is not zero.

Between nodes spikes travel as events. `index` (int32) holds the positions that are not zero, row after row; a row is
one step of one sample, sample * time_steps + step, and the events of row r are those from offset[r] to offset[r + 1].
`value` (float32) holds what stands there, or is empty where all are 1. Positions are of the layouts that `layouts`
makes: channels last, padded to whole vectors. A dense signal is float32 rows of a layout's size.

`currents` has what the connections before the neurons do, and `event_kernels` the nodes that have neither.
"""

from __future__ import annotations

import numpy as np

from spikeserve.models.engines.event.compiled import addressed
from spikeserve.models.engines.event.connections import LINES, NO_FEED
from spikeserve.models.engines.event.currents import BLOCK, busy, connect, rows_at_once
from spikeserve.models.engines.event.native import call, records_of
from spikeserve.models.engines.event.table import STOPPED
from spikeserve.models.engines.event.vectors import LANES, TILE_ROWS, copy, list_bits, nonzero_bits
from spikeserve.models.engines.event.views import (
    EVERYTHING,
    carried_of,
    events_of,
    feed_of,
    floats_at,
    ints_at,
    is_over,
    longs_at,
    nodes_at,
)


@addressed
def run_neurons(table: int, row: int, run_at: int) -> int:
    """Run a layer of neurons with the connection before it through all steps, and return 0.

    With the connection `run.connection`, which may not be `node_kernels.is_valued`, a step's current is `base` (size,),
    its bias, and what the events add; with events that come without a connection, `connections.PASS`, it is the events.
    Behind `connections.LINES` the layer's own function makes it, see `lines_code`.
    Otherwise it is a row of `base` (rows * size): one for each sample (`base_steps` 1) or one for each step. What fired
    goes into `index` and `offset` (samples * steps + 1), how often into `value` if it is there, and the membranes after
    the reset into `trace` (samples * steps, size) if it is there.

    A sample's carried floats hold the state of all layers, see `carried.CarriedLayout`: this one's is read where
    `begun` (samples,) says how many steps each sample has taken; where that is empty, all start from rest. It is
    written at each step.
    `room` is what `room_for` says, and holds anything: what comes back to a recurrent layer, how often each neuron
    fired, the currents of some rows, and the spikes that `currents.connect` multiplies.
    """
    nodes, (neurons, run, source, _) = nodes_at(table, EVERYTHING), records_of(table, row, run_at)
    steps, size, none, events = run.steps, neurons.size, np.int64(0), events_of(source, run.samples)
    rows, feed = run.samples * steps, feed_of(nodes[run.connection], run.kind)
    connected, recurrent = feed.kind not in (NO_FEED, LINES), neurons.recurrent_weight_count > 0
    code = neurons.line_code if feed.kind == LINES else neurons.code
    at_once = rows_at_once(feed, size, rows) if connected else rows
    sums_at = run.room + 8 * size
    spikes_at, current_at = sums_at + 4 * ((at_once + TILE_ROWS - 1) * size + LANES), sums_at if connected else run.base
    sums, spikes = floats_at(sums_at, EVERYTHING), floats_at(spikes_at, EVERYTHING)
    base, value = floats_at(run.base, EVERYTHING), floats_at(run.value, EVERYTHING)
    begun, index = longs_at(run.begun, EVERYTHING), ints_at(run.index, EVERYTHING)
    offset, rest = longs_at(run.offset, rows + 1), floats_at(neurons.rest, EVERYTHING)
    last = neurons.states * size  # where a recurrent layer's spikes of the last step lie
    offset[0], run.gathers, now = 0, 0, none
    for begin in range(0, rows, at_once):
        stop = min(begin + at_once, rows)
        if connected:
            run.gathers = neurons.gathers and not (events.value.size or busy(feed, events, begin, stop - begin))
            if not run.gathers:
                connect(sums, feed, size, events, begin, stop - begin, base, spikes)
        while now < stop:
            sample = now // steps
            end, place = min((sample + 1) * steps, stop), sample if run.base_steps == 1 else now - begin
            run.current = current_at + 4 * place * size
            run.stride = 0 if run.gathers or run.base_steps == 1 else size
            run.state = carried_of(run, sample) + 4 * neurons.carried_at
            state, before, after, bias = floats_at(run.state, EVERYTHING), offset[max(now - 1, 0)], offset[now], size
            if now == sample * steps:
                before = after
                if not run.begun:
                    copy(state, none, rest, none, last)
                if not run.begun or not begun[sample]:
                    bias = none
                elif recurrent:  # its spikes stand for a while where those of this step will
                    for j in range(0, size, LANES):
                        after = list_bits(index, after, j, nonzero_bits(state, last + j))
                    for k in range(before, after if run.value else before):
                        value[k] = state[last + index[k]]
            call(code, table, row, run_at, now, end, before, after, bias)
            now = end
            if is_over(run, offset[now] * neurons.fan_back):
                return STOPPED
            if recurrent and now == (sample + 1) * steps:
                state[last : last + size] = 0.0
                for k in range(offset[now - 1], offset[now]):
                    state[last + index[k]] = value[k] if run.value else np.float32(1.0)
    return 0


def room_for(width: int, units: int) -> int:
    """Reckon how many floats `run_neurons` needs as its room at most, for neurons that `units` feed by a GATHER or 0.

    The rows that are made at once have at most BLOCK values, or are TILE_ROWS.
    """
    blocks = 2 * BLOCK if units else 0
    return blocks + 2 * (TILE_ROWS + 1) * width + 2 * TILE_ROWS * units + 2 * LANES
