"""Events as the server takes them: 8-byte records, from whatever has times and places, or a recording's file.

A record is little-endian: `t` (32 bits) is microseconds, `x` (16 bits) the column or the unit, `y` (15 bits) the row,
and the highest bit of y the polarity, 1 for on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeserve.errors import InvalidEvents
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.columns import RECORD, fields_of, whole_columns
from spikeserve.models.recordings.files import read_events as columns_of

__all__ = ["RECORD", "Events", "EventsLike", "events", "read_events"]

ON = 2**15  # the bit of y that is the polarity
CLOCK = 2**32  # microseconds after which the clock of a record starts again
MAX_TIME = 2**61


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


def events(source: EventsLike, now: int | None = None) -> Events:
    """Return events in the order in which they are given.

    `source` is an array with the fields t and unit, or t, x, y and p (p may be missing: all are on; common other names
    of the fields will do), or a mapping of such columns, or an array of RECORD. Times are whole microseconds; those of
    RECORD start again every 71.6 minutes and are counted on, from `now` where events came before. Raises InvalidEvents.
    """
    if isinstance(source, Events):
        return source
    if isinstance(source, np.ndarray) and source.dtype == RECORD:
        return Events(_counted_on(source["t"], now), source)
    if not isinstance(source, (np.ndarray, Mapping)):
        raise InvalidEvents(
            f"events are a {type(source).__name__}, expected an array with fields or a mapping of columns"
        )
    try:
        if isinstance(source, np.ndarray):
            columns = whole_columns(fields_of(source, "events"), "events")
        else:
            columns = whole_columns({name: np.asarray(column) for name, column in source.items()}, "events")
    except InvalidInput as error:
        raise InvalidEvents(str(error)) from error
    t = columns["t"]
    if (t < 0).any():
        at = int((t < 0).argmax())
        raise InvalidEvents(f"events: t of event {at} is {t[at]}, expected whole microseconds from 0")
    records = np.zeros(len(t), RECORD)
    records["t"] = t & (CLOCK - 1)
    records["x"] = columns["unit"] if "unit" in columns else columns["x"]
    if "y" in columns:
        records["y"] = columns["y"] | np.where(columns["p"] > 0, ON, 0) if "p" in columns else columns["y"] | ON
    return Events(t, records)


def is_events(source: object) -> bool:
    """Return whether this is an array of events, rather than of samples."""
    return isinstance(source, Events) or (isinstance(source, np.ndarray) and source.dtype.names is not None)


def _counted_on(t: NDArray[np.uint32], now: int | None) -> NDArray[np.int64]:
    """Return the times of a clock of 32 bits as times that never start again: each is nearest to the one before it."""
    if not len(t):
        return np.zeros(0, np.int64)
    before = int(t[0]) if now is None else now
    differences = np.diff(t, prepend=np.uint32(before % CLOCK)).view(np.int32)
    times = np.cumsum(differences, dtype=np.int64) + before
    return times + CLOCK if times.min() < 0 else times


def read_events(path: str | PathLike[str]) -> Events:
    """Return the events of a file, in order of time, which is in microseconds. Raises InvalidEvents.

    .npy    an array with the fields t, x, y and p, or t and unit, or of event records
    .npz    an array for each of them
    .csv    a column for each of them, named by the first line; without such a line they are t, x, y and p
    other   AEDAT, EVT (.raw), DAT and ES files, by the package faery
    """
    file = Path(path)
    try:
        return events(columns_of(file)).in_order()
    except InvalidInput as error:
        raise InvalidEvents(str(error)) from error
    except InvalidEvents as error:
        raise InvalidEvents(f"'{file}': {error}") from error
