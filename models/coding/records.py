"""Event records: a sensor's events as bytes, and the spikes that they are at the steps of a sample or a stream.

A record is 8 bytes, little-endian: `t` (32 bits) is microseconds, `x` (16 bits) the column, `y` (15 bits) the row, and
the highest bit of y the polarity, 1 for on. Of a sensor of units, `x` is the unit and the row is 0. The spec's
`input.events` (`models.spec.events`) says which step and input an event belongs to.

The clock of 32 bits starts again every 71.6 minutes. Each time is taken for the one nearest to the time before it, so a
recording or a stream may last for any time, as long as it has an event every half an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeserve.models.coding.events import EventCoder
from spikeserve.models.coding.inputs import Inputs
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, EventRule, Origin, Polarity, Spec

RECORD = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2")])
ON = 2**15  # the bit of y that is the polarity
CLOCK = 2**32  # microseconds after which the clock of a record starts again
BLOCK = 2**17  # cells, of whole steps, that are worked on at once, so that they stay in the processor's cache
SPARSE = 8  # cells for each event, beyond which events are sorted rather than marked in an array of all cells
DROPPED = -(2**62)  # of a column or row outside of the crop; a sum of two of them is negative, and fits 64 bits

Records: TypeAlias = NDArray[np.void]
Times: TypeAlias = NDArray[np.int64]


def records_of(content: bytes | memoryview, where: str = "the body") -> Records:
    """Return the records (events,) in `content`, without a copy; raises InvalidInput for a part of one at its end."""
    if len(content) % RECORD.itemsize:
        raise InvalidInput(f"{where} has {len(content)} bytes, expected {RECORD.itemsize} for each event")
    return np.frombuffer(content, RECORD)


def make_records(t: ArrayLike, x: ArrayLike, y: ArrayLike = 0, p: ArrayLike = 0) -> Records:
    """Return records of times in microseconds, columns (or units), rows and polarities, all (events,) or one number.

    Times are kept modulo 2**32. Columns beyond 16 bits and rows beyond 15 have no place in a record and must not come.
    """
    times, rows = np.asarray(t, np.int64), np.asarray(y, np.int64)
    records = np.empty(times.shape, RECORD)
    records["t"] = times & (CLOCK - 1)
    records["x"] = x
    records["y"] = rows | np.where(np.asarray(p, np.int64) > 0, ON, 0)
    return records


def unwrapped(t: NDArray[np.uint32], last: int) -> Times:
    """Return the times (events,) of a clock of 32 bits in microseconds that never start again.

    `last` is such a time, that of the event before: each time is the one nearest to the time before it, so that the
    difference is that of 32 bits with a sign.
    """
    phase, times = last & (CLOCK - 1), t.astype(np.int64)
    if len(t) and max(int(times.max()), phase) - min(int(times.min()), phase) < CLOCK // 2:  # all are near each other
        times += last - phase
        return times
    differences = np.diff(t, prepend=np.uint32(phase)).view(np.int32)
    return np.cumsum(differences, dtype=np.int64) + last


def times_of(records: Records) -> Times:
    """Return the unwrapped times (events,) of a whole recording, whose first is as its record says."""
    return unwrapped(records["t"], int(records["t"][0])) if len(records) else np.zeros(0, np.int64)


@dataclass(frozen=True)
class StepEvents:
    """Events at the steps of a sample, in order of step and unit, each pair once; all arrays are (events,) of int64.

    At step `t[k]`, input `unit[k]` (the index into the flattened shape) has `count[k]` events: 1 under the rule `clip`.
    """

    t: NDArray[np.int64]
    unit: NDArray[np.int64]
    count: NDArray[np.int64]

    def inputs(self, task: Spec, time_steps: int) -> Inputs:
        """Return one sample of these events for a network; see `EventCoder`. Raises InvalidInput."""
        return EventCoder(task).encode(self.t, self.unit, self.count, time_steps)


class EventBinner:
    """Bins records by one model's `input.events`. It keeps nothing of what it bins; `binner` returns a shared one."""

    def __init__(self, events: EventBinning) -> None:
        self.events = events
        self.units = math.prod(events.shape)
        self.width = events.sensor[0]
        self.height = events.sensor[1] if len(events.sensor) == 2 else 1
        x, y, width, height = events.area
        across, down = -(-width // events.bin), -(-height // events.bin)
        self.columns = _cells(x, width, self.width, events.bin)
        # By y with its polarity, the highest bit: the first half is off, the second on.
        self.rows = np.full(2 * ON, DROPPED, np.int64)
        rows = _cells(y, height, self.height, events.bin, across)
        if events.polarity is not Polarity.ON:
            self.rows[: self.height] = rows
        if events.polarity is not Polarity.OFF:
            second = across * down if events.polarity is Polarity.CHANNELS else 0
            self.rows[ON : ON + self.height] = np.where(rows == DROPPED, DROPPED, rows + second)

    def between(
        self, records: Records, times: Times, start: int, steps: int, where: str = "the body", *, in_order: bool = False
    ) -> StepEvents:
        """Return the events of the `steps` steps that begin at `start`, counted from there; others are dropped.

        `records` and their unwrapped `times` are (events,), in any order unless they are `in_order`; `start` is of the
        same clock as `times`, in microseconds. A stream gives its chunk and the start of a window. Raises InvalidInput
        for an event outside of the sensor, wherever its time is; `where` is how its message begins.
        """
        self.check(records, where)
        if not in_order and not (times[1:] >= times[:-1]).all():
            order = np.argsort(times, kind="stable")
            records, times = records[order], times[order]
        per_block = max(1, BLOCK // self.units)
        first_steps = [*range(0, steps, per_block), steps]
        edges = np.searchsorted(times, [start + step * self.events.step_us for step in first_steps]).tolist()
        marked = np.zeros(min(steps, per_block) * self.units if edges[-1] > edges[0] else 0, np.bool_)
        parts: list[StepEvents] = []
        for block, first in enumerate(first_steps[:-1]):
            if edges[block] == edges[block + 1]:
                continue
            own = slice(edges[block], edges[block + 1])
            keys = self.columns[records["x"][own]] + self.rows[records["y"][own]]
            if first_steps[block + 1] - first > 1:
                keys += (times[own] - (start + first * self.events.step_us)) // self.events.step_us * self.units
            distinct, counts = self._distinct(keys, marked)
            step = distinct // self.units
            parts.append(StepEvents(step + first, distinct - step * self.units, counts))
        if len(parts) == 1:  # as of a stream's window
            return parts[0]
        parts.append(StepEvents(*np.zeros((3, 0), np.int64)))
        return StepEvents(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("t", "unit", "count")))

    def _distinct(
        self, keys: NDArray[np.int64], marked: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the distinct keys in order without those that are negative, and what each counts by the rule.

        `marked` has a place for each possible key, all False, and is left so: clearing what was marked costs less than
        an array of all cells for each block. `keys` are sorted in place.
        """
        counting = self.events.rule is EventRule.COUNT
        if len(marked) > SPARSE * len(keys):
            keys.sort()
            differs = np.ones(len(keys), np.bool_)
            np.not_equal(keys[1:], keys[:-1], out=differs[1:])
            differs[: np.searchsorted(keys, 0)] = False
            if not counting:
                distinct = keys[differs]
                return distinct, np.ones_like(distinct)
            places = np.flatnonzero(differs)
            return keys[places], np.diff(places, append=len(keys))
        keys = keys[keys >= 0]
        marked[keys] = True
        distinct = np.flatnonzero(marked)
        marked[distinct] = False
        if not counting:
            return distinct, np.ones_like(distinct)
        return distinct, np.bincount(keys)[distinct]

    def recording(
        self, records: Records, times: Times, steps: int, start: int | None = None, where: str = "the body"
    ) -> StepEvents:
        """Return the events of the first `steps` steps of a whole recording; later ones are dropped.

        It begins at `start`, a time of its clock; by default at its earliest event, or at time 0 where `origin` says
        so. Raises InvalidInput for an event outside of the sensor, and where no event is in those steps.
        """
        if start is None:
            start = 0 if self.events.origin is Origin.ZERO else int(times.min(initial=2**62))
        if not ((times >= start) & (times < start + steps * self.events.step_us)).any():
            first = f": the first is at {times[0]}" if len(times) else ""
            raise InvalidInput(
                f"{where} has {len(records)} events, but none in the {steps} steps of {self.events.step_us} "
                f"microseconds that begin at time {start if len(times) else 0}{first}"
            )
        return self.between(records, times, start, steps, where)

    def check(self, records: Records, where: str, first: int = 0) -> None:
        """Raise InvalidInput for the first event outside of the sensor; `first` is the number of the first record."""
        x, y = records["x"], records["y"] & (ON - 1)
        if x.max(initial=0) < self.width and y.max(initial=0) < self.height:
            return
        at = int(np.argmax((x >= self.width) | (y >= self.height)))
        sensor = "×".join(str(size) for size in self.events.sensor)
        raise InvalidInput(
            f"{where}: event {first + at} is at x {x[at]}, y {y[at]}, expected x 0 to {self.width - 1} and y 0 to "
            f"{self.height - 1}, the sensor of {sensor} that this model knows"
        )


@lru_cache(maxsize=32)
def binner(events: EventBinning) -> EventBinner:
    """Return the binner of one way to bin; its tables of 0.5 to 1 MB are made once."""
    return EventBinner(events)


def _cells(first: int, size: int, sensor: int, per_cell: int, stride: int = 1) -> NDArray[np.int64]:
    """Return where the cell of each of a sensor's columns or rows begins: DROPPED outside of `size` from `first` on."""
    cells = np.full(sensor, DROPPED, np.int64)
    cells[first : first + size] = np.arange(size) // per_cell * stride
    return cells
