"""Events as the server takes them: 8-byte records, from whatever has times and places.

A record is little-endian: `t` (32 bits) is microseconds, `x` (16 bits) the column or the unit, `y` (15 bits) the row,
and the highest bit of y the polarity, 1 for on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeserve.errors import InvalidEvents

RECORD = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2")])
ON = 2**15  # the bit of y that is the polarity
CLOCK = 2**32  # microseconds after which the clock of a record starts again
MAX_TIME = 2**61
FIELDS: Mapping[str, tuple[str, ...]] = {  # what people call each field
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "on", "pol", "polarity"),
    "unit": ("unit", "units", "channel", "neuron"),
}
BELOW = {"t": MAX_TIME, "x": 2**16, "y": 2**15, "unit": 2**16}


@dataclass(frozen=True, eq=False)
class Events:
    """Events in the order in which they came: `t` is microseconds (events,) of int64, `records` (events,) of RECORD."""

    t: NDArray[np.int64]
    records: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Events:
        return Events(self.t[part], self.records[part])

    def in_order(self) -> Events:
        """Return them in order of time; those of equal times stay in their order."""
        order = np.argsort(self.t, kind="stable")
        return Events(self.t[order], self.records[order])


EventsLike: TypeAlias = Events | NDArray[Any] | Mapping[str, ArrayLike]


def events(given: EventsLike, now: int | None = None) -> Events:
    """Return events in the order in which they are given.

    `given` is an array with the fields t and unit, or t, x, y and p (p may be missing: all are on; common other names
    of the fields will do), or a mapping of such columns, or an array of RECORD. Times are whole microseconds; those of
    RECORD start again every 71.6 minutes and are counted on, from `now` where events came before. Raises InvalidEvents.
    """
    if isinstance(given, Events):
        return given
    if isinstance(given, np.ndarray) and given.dtype == RECORD:
        return Events(_counted_on(given["t"], now), given)
    if isinstance(given, np.ndarray):
        names = list(given.dtype.names or ())
        if not names:
            raise InvalidEvents(
                f"events are an array of {given.dtype} without fields, expected t, x, y and p, or t and unit"
            )
    elif isinstance(given, Mapping):
        names = list(given)
    else:
        raise InvalidEvents(
            f"events are a {type(given).__name__}, expected an array with fields or a mapping of columns"
        )
    columns = {ours: _whole(ours, given[name]) for ours, name in _named(names).items()}
    t = columns["t"]
    for name, column in columns.items():
        if len(column) != len(t):
            raise InvalidEvents(f"events: {len(t)} t for {len(column)} {name}, expected as many of both")
    records = np.zeros(len(t), RECORD)
    records["t"] = t & (CLOCK - 1)
    records["x"] = columns["unit"] if "unit" in columns else columns["x"]
    if "y" in columns:
        records["y"] = columns["y"] | np.where(columns["p"] > 0, ON, 0) if "p" in columns else columns["y"] | ON
    return Events(t, records)


def is_events(given: object) -> bool:
    """Return whether this is an array of events, rather than of samples."""
    return isinstance(given, Events) or (isinstance(given, np.ndarray) and given.dtype.names is not None)


def _named(names: list[str]) -> dict[str, str]:
    """Return the name of each field; raises InvalidEvents where one is missing."""
    lower = {name.lower(): name for name in names}
    found = {ours: lower[name] for ours, theirs in FIELDS.items() for name in theirs if name in lower}
    wanted = ("t", "unit") if "unit" in found else ("t", "x", "y")
    for field in wanted:
        if field not in found:
            raise InvalidEvents(
                f"events have no field '{field}' but {', '.join(names)[:100] or 'none'}, expected t, x, y and p, or t "
                "and unit"
            )
    return {ours: found[ours] for ours in (*wanted, *(("p",) if "p" in found and "unit" not in found else ()))}


def _whole(name: str, given: ArrayLike) -> NDArray[np.int64]:
    """Return a column as integers; raises InvalidEvents for one that has other values."""
    column = np.asarray(given)
    if column.ndim != 1 or (column.dtype.kind not in "biuf" and len(column)):
        raise InvalidEvents(f"events: {name} is {column.dtype} of {column.ndim} axes, expected one axis of numbers")
    if name == "p":
        return (column > 0).astype(np.int64)
    with np.errstate(invalid="ignore"):
        wrong = ~((column >= 0) & (column < BELOW[name]))
    if column.dtype.kind == "f":
        wrong |= column != np.floor(column)
    if wrong.any():
        at = int(wrong.argmax())
        expected = "whole microseconds from 0" if name == "t" else f"a whole number from 0 to {BELOW[name] - 1}"
        raise InvalidEvents(f"events: {name} of event {at} is {column[at]:g}, expected {expected}")
    return column.astype(np.int64)


def _counted_on(t: NDArray[np.uint32], now: int | None) -> NDArray[np.int64]:
    """Return the times of a clock of 32 bits as times that never start again: each is nearest to the one before it."""
    if not len(t):
        return np.zeros(0, np.int64)
    before = int(t[0]) if now is None else now
    differences = np.diff(t, prepend=np.uint32(before % CLOCK)).view(np.int32)
    times = np.cumsum(differences, dtype=np.int64) + before
    return times + CLOCK if times.min() < 0 else times
