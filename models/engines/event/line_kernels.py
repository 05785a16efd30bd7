"""The kernel of convolutions that run line by line, see `lines`."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import addressed, borrowing
from spikeserve.models.engines.event.currents import Array
from spikeserve.models.engines.event.native import call, records_of
from spikeserve.models.engines.event.vectors import LANES, copy, list_bits
from spikeserve.models.engines.event.views import EVERYTHING, carried_of, floats_at, ints_at, longs_at, shorts_at

WORD = np.uint64(64)  # bits


@addressed
def run_lines(table: int, row: int, run_at: int) -> int:
    """Run a layer of neurons with the convolution before it through all steps, and return 0.

    The events are `run.line_index` and `run.line_offset`; the rest is as `kernels.run_neurons` says. They leave as the
    spikes of the pool behind the layer if `run.pooled`: those of the layer are counted here then. The operations of
    the events are counted here if `run.line_counts`.
    """
    neurons, run, _, _ = records_of(table, row, run_at)
    samples, steps, size, states = run.samples, run.steps, neurons.size, neurons.states
    events, offsets = ints_at(run.line_index, EVERYTHING), longs_at(run.line_offset, EVERYTHING)
    index, offset = ints_at(run.index, EVERYTHING), longs_at(run.offset, EVERYTHING)
    room = floats_at(run.room, EVERYTHING)
    sizes, weight = longs_at(neurons.line_sizes, EVERYTHING), floats_at(neurons.line_weight, EVERYTHING)
    base, rest = floats_at(neurons.line_base, EVERYTHING), floats_at(neurons.rest, EVERYTHING)
    parameters, inside = floats_at(neurons.parameters, EVERYTHING), shorts_at(neurons.inside, EVERYTHING)
    trace = floats_at(run.trace, samples * steps * size if run.trace else 0)
    results, grid, none = longs_at(run.results, EVERYTHING), np.float32(neurons.line_grid), np.int64(0)
    cost = longs_at(neurons.line_cost, EVERYTHING)
    operations = longs_at(run.results, EVERYTHING if run.line_counts else none)
    count: Any = np.int64(0)
    offset[0] = 0
    for sample in range(samples):
        carried, now = floats_at(carried_of(run, sample), EVERYTHING), sample * steps
        if not run.begun:
            for k in range(states):
                copy(carried, neurons.carried_at + k * size, rest, k * size, size)
        count = call(
            neurons.line_code, steps, sizes, none, events, none, offsets, now, weight, none, base, none, grid, carried,
            neurons.carried_at, size, parameters, none, inside, none, index, none, offset, now, count, trace,
            now * size, room, none, run.pooled, results, sample * run.width + neurons.column, cost, none, operations,
            sample * run.width,
        )  # fmt: skip
    return 0


@borrowing
def spikes_to_copy(events: Any, most: float) -> Any:
    """Tell how many spikes `copy_spikes` has to write: none where events are spikes in the order of their places.

    -1: they are none, since a value is no whole number up to `most`, or events with values lie in another order.
    """
    index, value, offset = events.index, events.value, events.offset
    descending, others, total = 0, 0, np.int64(0)
    for r in range(offset.size - 1):
        for k in range(offset[r] + 1, offset[r + 1]):
            descending += index[k - 1] > index[k]
    for k in range(value.size):
        others += not 1.0 <= value[k] <= most or value[k] != np.floor(value[k])
        total += np.int64(value[k])
    if value.size == 0:
        return np.int64(index.size if descending else 0)
    return np.int64(-1 if descending or others else total)


@borrowing
def copy_spikes(events: Any, present: Array, index: Array, offset: Array) -> None:
    """Write the places of spikes in the order of their places; those of events with values as often as these say.

    `present` has a bit for each place.
    """
    count: Any = np.int64(0)
    present[:] = np.uint64(0)
    offset[0] = 0
    for r in range(offset.size - 1):
        for k in range(events.offset[r], events.offset[r + 1]):
            place = np.uint64(events.index[k])
            if events.value.size:
                for _ in range(np.int64(events.value[k])):
                    index[count] = events.index[k]
                    count += 1
            else:
                present[place // WORD] |= np.uint64(1) << place % WORD
        for word in range(present.size):
            bits = present[word]
            if bits:
                for part in range(0, 64, LANES):
                    some = bits >> np.uint64(part) & np.uint64(0xFFFF)
                    if some:
                        count = list_bits(index, count, word * 64 + part, some)
                present[word] = np.uint64(0)
        offset[r + 1] = count
