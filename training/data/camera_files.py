"""Files of event cameras, AEDAT4, EVT (.raw), DAT and ES, as columns. The package faery reads them (extra `events`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.training.errors import InvalidData

FORMATS: Mapping[str, str] = {".aedat4": "aedat", ".raw": "evt", ".dat": "dat", ".es": "es"}  # as faery calls them
FIELDS = ("t", "x", "y", "on")
MAX_EVENTS = 2**25  # of one file: compressed, it may hold many more than its size tells
UNKNOWN_SIZE = (2**16 - 1, 2**15 - 1)  # of a sensor whose file does not say it


def read_camera_file(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the fields t, x, y and on of a file's events, each (events,); raises InvalidData."""
    packets, count = [{name: np.empty(0, np.int64) for name in FIELDS}], 0
    for packet in _packets(path):
        count += len(packet["t"])
        if count > MAX_EVENTS:
            raise InvalidData(f"'{path}': holds more than {MAX_EVENTS:,} events, expected at most as many")
        packets.append(packet)
    return {name: np.concatenate([packet[name] for packet in packets]).astype(np.int64) for name in FIELDS}


def _packets(path: Path) -> Iterator[Any]:
    """Yield what faery reads, arrays of events with fields; raises InvalidData."""
    try:
        from faery.file_decoder import Decoder  # imported here, since it is optional
    except ImportError as error:
        raise InvalidData(
            f"'{path}': is read by the package faery, which is not installed: pip install 'spikeserve[events]'"
        ) from error
    kind = FORMATS[path.suffix.lower()]
    try:
        yield from Decoder(path, file_type=kind, dimensions_fallback=UNKNOWN_SIZE, time_range_cache=None)
    except (GeneratorExit, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust's is not an Exception
        raise InvalidData(f"'{path}': cannot be read as events: {' '.join(str(error).split())}") from error
