"""Files of event cameras, AEDAT4, EVT (.raw), DAT and ES, as columns. The package faery reads them (extra `events`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import InvalidData

SUFFIXES = (".aedat4", ".dat", ".es", ".raw")
MAX_EVENTS = 2**25  # of one file: compressed, it may hold many more than its size tells
UNKNOWN_SIZE = (2**16 - 1, 2**15 - 1)  # of a sensor whose file does not say it


def read_camera_file(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the fields t, x, y and on of a file's events, each (events,); raises InvalidData."""
    try:
        from faery.file_decoder import Decoder  # imported here, since it is optional
    except ImportError as error:
        raise InvalidData(
            f"'{path}': is read by the package faery, which is not installed: pip install 'spikeserve[events]'"
        ) from error
    packets, count = [], 0
    try:
        for packet in Decoder(path, dimensions_fallback=UNKNOWN_SIZE, time_range_cache=None):
            count += len(packet)
            if count > MAX_EVENTS:
                raise InvalidData(f"'{path}': holds more than {MAX_EVENTS} events, expected at most as many")
            packets.append(packet)
    except (InvalidData, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust's is not an Exception
        raise InvalidData(f"'{path}': cannot be read as events: {' '.join(str(error).split())}") from error
    fields = ("t", "x", "y", "on")
    return {name: np.concatenate([packet[name] for packet in packets] or [np.empty(0, np.int64)]) for name in fields}
