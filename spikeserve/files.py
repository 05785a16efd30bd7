"""Recorded events from a file: .npy, .npz and .csv, and through faery, where it is installed, what cameras write."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from spikeserve.errors import InvalidEvents
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.files import read_events as columns_of
from spikeserve.records import Events, events


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
