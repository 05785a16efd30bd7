"""What travels between the nodes that Python runs: events, or dense rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event import event_kernels
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.table import Events
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec.network import FloatArray

ONES: FloatArray = np.empty(0, np.float32)  # the values of events that are all spikes
BLOCK_FLOATS = 2**22  # of the dense rows that events become at once, where a node needs them dense


def room_for_index(events: int) -> NDArray[np.int32]:
    """Return an array for the positions of so many events, with the vector's room that `kernels` wants behind them."""
    return np.empty(events + LANES, np.int32)


NONE = Events(np.empty(0, np.int32), ONES, np.zeros(1, np.int64))


@dataclass(slots=True)
class Sparse:
    """Events of `steps` rows for each sample; one row where every step is the same."""

    layout: Layout
    steps: int
    events: Events

    def dense(self) -> Dense:
        """Return the same as rows."""
        rows = np.zeros((self.events.offset.size - 1, self.layout.size), np.float32)
        event_kernels.fill_rows.call(self.events, rows)
        return Dense(self.layout, self.steps, rows)

    def sparse(self) -> Sparse:
        """Return itself."""
        return self

    @property
    def row(self) -> NDArray[np.int64]:
        """The row of each event."""
        offset = self.events.offset
        return np.repeat(np.arange(offset.size - 1), np.diff(offset))

    @property
    def is_large(self) -> bool:
        """Whether its dense rows are more than a node may have at once."""
        return (self.events.offset.size - 1) * self.layout.size > BLOCK_FLOATS

    def in_blocks(self, run: Callable[[int, int, Dense], Signal]) -> Sparse:
        """Return what `run` makes of the dense rows of some steps of one sample after another, as events.

        It is given the sample, the first of the steps and their rows, of at most BLOCK_FLOATS unless one has more.
        """
        fit, rows = max(1, BLOCK_FLOATS // self.layout.size), self.events.offset.size - 1
        found: list[Sparse] = []
        for sample in range(rows // self.steps):
            for step in range(0, self.steps, fit):
                first = sample * self.steps + step
                block = self.rows(first, min(first + fit, (sample + 1) * self.steps))
                part = run(sample, step, block.dense()).sparse()
                index, value, offset = part.events  # of arrays with room for every value of the block, which end here
                found.append(Sparse(part.layout, part.steps, Events(index.copy(), value.copy(), offset)))
        return one_after_another(found, self.steps)

    def rows(self, first: int, end: int) -> Sparse:
        """Return the rows from `first` up to `end`, all of one sample."""
        index, value, offset = self.events
        events = slice(offset[first], offset[end])
        part = Events(index[events], value[events], offset[first : end + 1] - offset[first])
        return Sparse(self.layout, end - first, part)


def one_after_another(parts: Sequence[Sparse], steps: int) -> Sparse:
    """Return the rows of several signals of one layout, at least one, as one signal of so many steps."""
    value = ONES
    if any(part.events.value.size for part in parts):
        value = np.concatenate([values_at(part.events) for part in parts])
    before = np.cumsum([0, *(part.events.index.size for part in parts)])
    starts = [part.events.offset[:-1] + start for part, start in zip(parts, before, strict=False)]
    index = np.concatenate([part.events.index for part in parts])
    return Sparse(parts[0].layout, steps, Events(index, value, np.append(np.concatenate(starts), before[-1])))


def values_at(events: Events) -> FloatArray:
    """Return the value of each event, (events,)."""
    return events.value if events.value.size else np.ones(events.index.size, np.float32)


@dataclass(slots=True)
class Dense:
    """Rows (samples * steps, layout size); one for each sample where every step is the same."""

    layout: Layout
    steps: int
    rows: FloatArray

    def dense(self) -> Dense:
        """Return itself."""
        return self

    def sparse(self) -> Sparse:
        """Return the same as events."""
        count, size = self.rows.shape
        index, value = room_for_index(self.rows.size), np.empty(self.rows.size, np.float32)
        offset = np.empty(count + 1, np.int64)
        everywhere = np.empty(0, np.int32)
        ones = event_kernels.find_events.call(
            self.rows.ravel(), count, 1, size, 0, size, everywhere, index, value, offset
        )
        found = offset[-1]
        return Sparse(self.layout, self.steps, Events(index[:found], ONES if ones else value[:found], offset))


Signal: TypeAlias = Sparse | Dense


FEW = 0.25  # share of values other than 0 up to which they travel as events


def of_values(layout: Layout, values: FloatArray) -> Signal:
    """Return values (samples, steps, *shape) as a signal: as events where few of them are not 0."""
    samples, steps = values.shape[:2]
    rows = layout.to_rows(values.reshape(samples * steps, layout.places.size))
    dense = Dense(layout, steps, rows)
    return dense.sparse() if np.count_nonzero(rows) <= FEW * values.size else dense


def values_of(signal: Signal) -> FloatArray:
    """Return the values of a signal, (samples, steps, *shape), with one step where every step is the same."""
    dense = signal.dense()
    return dense.rows[:, dense.layout.places].reshape(-1, dense.steps, *dense.layout.shape)


def add(first: Signal, second: Signal) -> Signal:
    """Sum two signals of one layout; a constant one counts at every step of the other."""
    if isinstance(first, Sparse) and isinstance(second, Sparse) and first.steps == second.steps and first.is_large:
        return _sum_of_events(first, second)
    a, b = first.dense(), second.dense()
    steps = max(a.steps, b.steps)
    samples, size = len(a.rows) // a.steps, a.layout.size
    rows = a.rows.reshape(samples, a.steps, size) + b.rows.reshape(samples, b.steps, size)
    return Dense(a.layout, steps, rows.reshape(samples * steps, size))


def _sum_of_events(first: Sparse, second: Sparse) -> Sparse:
    """Sum events of the same rows and layout, without the rows that they stand for."""
    size, rows = first.layout.size, first.events.offset.size - 1
    places = [each.row * size + each.events.index for each in (first, second)]
    place, where = np.unique(np.concatenate(places), return_inverse=True)
    value = np.zeros(place.size, np.float32)
    value[where[: places[0].size]] = values_at(first.events)
    value[where[places[0].size :]] += values_at(second.events)  # each place is there once
    place, value = place[value != 0], value[value != 0]
    offset = np.searchsorted(place, np.arange(rows + 1) * size)
    return Sparse(first.layout, first.steps, Events((place % size).astype(np.int32), value, offset))
