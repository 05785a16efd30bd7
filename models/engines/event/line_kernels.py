"""The kernels of convolutions that are added up line by line, see `lines`."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.engines.event.compiled import addressed, borrowing, inlined
from spikeserve.models.engines.event.currents import Array
from spikeserve.models.engines.event.native import call, records_of
from spikeserve.models.engines.event.vectors import copy
from spikeserve.models.engines.event.views import EVERYTHING, carried_of, floats_at, ints_at, longs_at, shorts_at


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
    index, offset, lines = (
        ints_at(run.index, EVERYTHING),
        longs_at(run.offset, EVERYTHING),
        longs_at(neurons.line_table, EVERYTHING),
    )
    weight, base = floats_at(neurons.line_weight, EVERYTHING), floats_at(neurons.line_base, EVERYTHING)
    room, rest, grid = (
        floats_at(run.room, EVERYTHING),
        floats_at(neurons.rest, EVERYTHING),
        np.float32(neurons.line_grid),
    )
    parameters, inside = floats_at(neurons.parameters, EVERYTHING), shorts_at(neurons.inside, EVERYTHING)
    trace, none = floats_at(run.trace, samples * steps * size if run.trace else 0), np.int64(0)
    cost, results = longs_at(neurons.line_cost, EVERYTHING), longs_at(run.results, EVERYTHING)
    grid = np.float32(neurons.line_grid)
    operations = longs_at(run.results, EVERYTHING if run.line_counts else none)
    count: Any = np.int64(0)
    offset[0] = 0
    for sample in range(samples):
        carried, now, result = floats_at(carried_of(run, sample), EVERYTHING), sample * steps, sample * run.width
        if not run.begun:
            for k in range(states):
                copy(carried, neurons.carried_at + k * size, rest, k * size, size)
        count = call(
            neurons.line_code, steps, lines, none, events, none, offsets, now, room[:0], none, weight, none, base, none,
            grid, room, none, carried, neurons.carried_at, size, parameters, none, inside, none, index, none, offset,
            now, count, trace, now * size, run.pooled, results, result + neurons.column, cost, none, operations, result,
        )  # fmt: skip
    return 0


@inlined
def add_lines(node: Any, signal: Any, events: Any, samples: int, room: Array, rows: Array) -> None:
    """Write the currents that events send through a convolution into rows (samples * steps * size,)."""
    steps, size, none = signal.steps, signal.size, np.int64(0)
    table, weight = longs_at(node.line_table, EVERYTHING), floats_at(node.weight, EVERYTHING)
    base, value = floats_at(node.bias, EVERYTHING), events.value
    if value.size == 0:
        value = np.ones(events.index.size, np.float32)
    for sample in range(samples):
        call(
            node.adder, steps, table, none, events.index, none, events.offset, sample * steps, value, none,
            weight, none, base, none, np.float32(1), room, none, rows, sample * steps * size, size,
        )  # fmt: skip


@borrowing
def spikes_of(value: Array, most: float) -> Any:
    """Return how many spikes events with values are, 0 for those that have none; -1 where one is not 1, 2, … `most`."""
    others, total = 0, np.int64(0)
    for k in range(value.size):
        others += not 1.0 <= value[k] <= most or value[k] != np.floor(value[k])
        total += np.int64(value[k])
    return np.int64(-1 if others else total)


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
