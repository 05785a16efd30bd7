"""Recordings of events for training, which `models.recordings` reads from their files, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.records import Records, Times, make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.files import read_events
from spikeserve.training.data.dataset import Labels
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

MAX_FILE_BYTES = 2**28


@dataclass(frozen=True)
class Recording:
    """The events of one sample: their records, and their times `t` in microseconds from its start, both (events,).

    They are a camera's, of columns, rows and polarities, or of units.
    """

    t: Times
    records: Records
    camera: bool = True


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
        columns = read_events(path)
    except OSError as error:
        raise InvalidData(f"'{path}' cannot be read as events: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidData(str(error)) from error
    t = columns["t"]
    if len(t):
        t = t - t.min()
    if "unit" in columns:
        return Recording(t, make_records(t, columns["unit"]), camera=False)
    return Recording(t, make_records(t, columns["x"], columns["y"], columns.get("p", 0)))
