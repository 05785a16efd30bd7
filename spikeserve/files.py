"""Recorded events from a file: .npy, .npz and .csv, and through faery, where it is installed, what cameras write."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

import numpy as np

from spikeserve.errors import InvalidEvents
from spikeserve.records import Events, events

NO_HEADER = ("t", "x", "y", "p")
OF_FAERY = frozenset({".aedat", ".aedat4", ".dat", ".es", ".evt", ".raw"})


def read_events(path: str | PathLike[str]) -> Events:
    """Return the events of a file, in order of time, which is in microseconds. Raises InvalidEvents.

    .npy    an array with the fields t, x, y and p, or t and unit, or of event records
    .npz    an array for each of them
    .csv    a column for each of them, named by the first line; without such a line they are t, x, y and p
    other   AEDAT, EVT (.raw), DAT and ES files, by the package faery
    """
    file = Path(path)
    kind = file.suffix.lower()
    try:
        if kind == ".npy":
            return events(np.load(file, allow_pickle=False)).in_order()
        if kind == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return events({name: arrays[name] for name in arrays.files}).in_order()
        if kind == ".csv":
            return _of_csv(file)
    except InvalidEvents as error:
        raise InvalidEvents(f"'{file}': {error}") from error
    except (OSError, ValueError, EOFError) as error:
        raise InvalidEvents(f"'{file}': cannot be read: {error}") from error
    if kind in OF_FAERY:
        return _of_camera(file)
    raise InvalidEvents(
        f"'{file}': is of no kind that is known, expected .npy, .npz, .csv or {', '.join(sorted(OF_FAERY))}"
    )


def _of_csv(file: Path) -> Events:
    with file.open(newline="") as lines:
        first = lines.readline()
        separator = next((each for each in ",;\t" if each in first), ",")
        names = [name.strip().strip('"').partition("@")[0] for name in first.split(separator)]  # faery's x@640
        if any(name.replace(".", "", 1).lstrip("-").isdigit() for name in names):
            lines.seek(0)
            names = list(NO_HEADER[: len(names)])
        rows = list(csv.reader(lines, delimiter=separator))
    if any(len(row) != len(names) for row in rows):
        at = next(at for at, row in enumerate(rows) if len(row) != len(names))
        raise InvalidEvents(f"event {at} has {len(rows[at])} values, expected {len(names)}: {', '.join(names)}")
    columns = np.array(rows, np.float64).reshape(len(rows), len(names))
    return events({name: columns[:, place] for place, name in enumerate(names)}).in_order()


def _of_camera(file: Path) -> Events:
    try:
        import faery
    except ImportError:
        raise InvalidEvents(
            f"'{file}': is read by the package faery, which is not installed: pip install faery"
        ) from None
    try:
        packets = list(faery.events_stream_from_file(file))
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise InvalidEvents(f"'{file}': cannot be read: {error}") from error
    return events(np.concatenate(packets) if packets else np.zeros(0, faery.EVENTS_DTYPE)).in_order()
