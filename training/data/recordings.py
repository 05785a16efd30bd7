"""Recordings of events, and the files that hold them.

A file holds the fields t, x, y and p (an event camera's: time, column, row and polarity), or t and unit. Times are
whole microseconds, from any start.

    .npy   a structured array with those fields
    .npz   an array for each field
    .csv   a line of the fields' names, then a line for each event
    .aedat4, .raw, .dat, .es   what event cameras write: AEDAT4, EVT2 or EVT3, DAT, ES
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.columns import FIELDS, WANTED
from spikeserve.training.data.camera_files import FORMATS, read_camera_file
from spikeserve.training.data.dataset import Labels
from spikeserve.training.data.numpy_files import open_npz, read_npy
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

MAX_FILE_BYTES = 2**28
MAX_PLACE = 2**16  # of a column, a row or a unit

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Recording:
    """The events of one sample: `t` (events,) in microseconds from its start, and the place of each in the input.

    `places` is (events, 3) of polarity, row and column, or (events, 1) of a unit: an index into the input's shape.
    """

    t: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings that are read one at a time."""

    labels: Labels
    read: Callable[[int], Recording]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Recordings:
        """Return some of the recordings."""
        return Recordings(self.labels[chosen], lambda index: self.read(int(chosen[index])))


def read_recording(path: Path) -> Recording:
    """Read a file of events; its first event is at time 0. Raises InvalidData with a sentence that names the file."""
    try:
        require_plain(path, MAX_FILE_BYTES)
        columns = READERS[path.suffix.lower()](path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidData):
            raise
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InvalidData(f"'{path}': cannot be read as events: {why}") from error
    return recording_of(columns, f"'{path}'")


def recording_of(columns: Mapping[str, NDArray[Any]], where: str) -> Recording:
    """Return a recording of columns by any of their usual names; raises InvalidData that begins with `where`."""
    given = {name.strip().lower(): column for name, column in columns.items()}
    found = {ours: given[name] for ours, names in FIELDS.items() for name in names if name in given}
    fields = ("t", "unit") if "unit" in found else ("t", "p", "y", "x")
    missing = [field for field in fields if field not in found]
    if missing:
        raise InvalidData(f"{where}: has no field '{missing[0]}' but {', '.join(columns) or 'none'}, {WANTED}")
    whole = {field: _whole(found[field], field, where) for field in fields}
    for field, column in whole.items():
        if len(column) != len(whole["t"]):
            raise InvalidData(f"{where}: {len(whole['t'])} t for {len(column)} {field}, expected as many of both")
    t, *places = whole.values()
    return Recording(t - t.min(initial=t[0]) if len(t) else t, np.stack(places, axis=1))


def _whole(column: NDArray[Any], field: str, where: str) -> NDArray[np.int64]:
    """Return a column as integers; raises InvalidData for what is none, and for what would not be whole."""
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise InvalidData(f"{where}: {field} is {column.dtype} of {column.ndim} axes, expected one of numbers")
    if column.dtype == np.float16:
        raise InvalidData(f"{where}: {field} is float16, which holds no whole numbers beyond 2048, expected integers")
    if column.dtype.kind == "f":
        wrong = ~np.isfinite(column) | (column != np.floor(column)) | (np.abs(column) > 2**52)
        if wrong.any():
            unit = "whole microseconds" if field == "t" else "whole numbers"
            raise InvalidData(f"{where}: {field} holds {column[wrong][0]:g}, expected {unit}")
    whole = column.astype(np.int64)
    if field == "p" and whole.size and set(np.unique(whole)) <= {-1, 1}:
        whole = (whole > 0).astype(np.int64)
    if field != "t" and whole.size and not (whole.min() >= 0 and whole.max() < MAX_PLACE):
        wrong_place = whole.min() if whole.min() < 0 else whole.max()
        raise InvalidData(f"{where}: {field} holds {wrong_place}, expected 0 to {MAX_PLACE - 1}")
    return whole


def _read_npy(path: Path) -> Mapping[str, NDArray[Any]]:
    array = read_npy(path)
    if array.dtype.names is None:
        raise InvalidData(f"'{path}': is an array without fields, of shape {array.shape}, {WANTED}")
    return {name: array[name] for name in array.dtype.names}


def _read_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    with open_npz(path) as file:
        known = {name for names in FIELDS.values() for name in names}
        found = {name: file.read(name) for name in file.names if name.strip().lower() in known}
        return found or dict.fromkeys(file.names, np.empty(0))


def _read_csv(path: Path) -> Mapping[str, NDArray[Any]]:
    with path.open() as file:
        head = file.readline().strip()
        separator = next((each for each in SEPARATORS if each in head), None)
        names = [name.strip().strip('"').partition("@")[0] for name in head.split(separator)]  # faery's x@640
        rows = [line for line in file if line.strip()]
    if not rows:
        return {name: np.empty(0, np.int64) for name in names}
    values = np.loadtxt(rows, np.float64, delimiter=separator, ndmin=2)
    if values.shape[1] != len(names):
        raise InvalidData(f"'{path}': has {values.shape[1]} columns under {len(names)} names in its first line")
    return dict(zip(names, values.T, strict=True))


READERS: Mapping[str, Callable[[Path], Mapping[str, NDArray[Any]]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    **dict.fromkeys(FORMATS, read_camera_file),
}
