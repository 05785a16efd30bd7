"""What travels between nodes in the event engine: events, dense rows, or a connection that has not been run yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.engines.event import event_kernels, kernels
from models.engines.event.connections import DOUBLES, INTEGERS, Feed
from models.engines.event.layouts import Layout
from models.engines.event.vectors import LANES
from models.spec.network import FloatArray

ONES: FloatArray = np.empty(0, np.float32)  # the values of events that are all spikes


class Events(NamedTuple):
    """What is not zero: `index` (events,), `value` (events,) or empty for ones, `offset` (rows + 1,)."""

    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]


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


@dataclass(slots=True)
class Pending:
    """A connection that has not been run: where a neuron takes it, one kernel runs both and no current is stored."""

    layout: Layout
    source: Sparse
    feed: Feed
    bias: FloatArray

    @property
    def steps(self) -> int:
        """As many as the source has."""
        return self.source.steps

    @property
    def valued(self) -> bool:
        """Whether its sums take other kernels than those of spikes, which neurons do not run beside their own."""
        summed = self.feed.summed
        return summed == DOUBLES or (summed == INTEGERS and self.source.events.value.size > 0)

    def dense(self) -> Dense:
        """Run it."""
        rows = np.empty((self.source.events.offset.size - 1, self.layout.size), np.float32)
        kernels.run_connection.call(self.feed, self.source.events, self.bias, rows, int(self.valued))
        return Dense(self.layout, self.steps, rows)

    def sparse(self) -> Sparse:
        """Run it and keep what is not zero."""
        return self.dense().sparse()


Signal: TypeAlias = Sparse | Dense | Pending


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
    a, b = first.dense(), second.dense()
    steps = max(a.steps, b.steps)
    samples, size = len(a.rows) // a.steps, a.layout.size
    rows = a.rows.reshape(samples, a.steps, size) + b.rows.reshape(samples, b.steps, size)
    return Dense(a.layout, steps, rows.reshape(samples * steps, size))
