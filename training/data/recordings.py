"""Recordings of events for training, which `models.recordings` reads from their files, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.files import read_events
from spikeserve.training.data.dataset import Labels
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

MAX_FILE_BYTES = 2**28


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
    """Read a file of events; its first event is at time 0. Raises InvalidData with a sentence that names the file.

    A polarity is on above 0. A camera of one polarity has one channel.
    """
    try:
        require_plain(path, MAX_FILE_BYTES)
        columns = read_events(path)
    except OSError as error:
        raise InvalidData(f"'{path}' cannot be read as events: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidData(str(error)) from error
    t = columns["t"]
    if "unit" in columns:
        places = [columns["unit"]]
    else:
        polarity = (columns["p"] > 0).astype(np.int64) if "p" in columns else np.zeros_like(t)
        places = [polarity, columns["y"], columns["x"]]
    return Recording(t - t.min(initial=t[0]) if len(t) else t, np.stack(places, axis=1))
