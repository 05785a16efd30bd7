"""The parts of a layer that threads share: where each begins, what it finds, and the events that all of them make."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event import event_kernels
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.table import ONES, Events
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec.network import FloatArray

TILES_PER_THREAD = 2  # so that a thread whose tiles have fewer events, or that starts earlier, does more of them
TILE_STEPS = 16  # but in fewer tiles than that: events beside a bound are followed in both tiles

Bounds = NDArray[np.int64]


@lru_cache(maxsize=1024)  # a request chooses the number of rows
def bounds_of(size: int, step: int, helpers: int) -> Bounds:
    """Return where tiles of `size` places begin and end, (tiles + 1,), for a thread and its helpers.

    All but the last are multiples of `step`.
    """
    steps, tiles = -(-size // step), 1 + helpers
    if helpers:
        tiles = max(tiles, min(TILES_PER_THREAD * tiles, steps // TILE_STEPS))
    tiles = max(1, min(tiles, steps))
    bounds = np.arange(tiles + 1) * steps // tiles * step
    bounds[-1] = size
    return bounds


def find_in_tiles(
    cores: Cores, helpers: int, bounds: Bounds, begins: Bounds, rows: int, capacity: int, valued: bool,
    find: Callable[..., object],
) -> Events:  # fmt: skip
    """Let the caller and its helpers run the tiles of a layer, and return the events of its `rows`.

    Each takes tile after tile until none is left, and calls `find` with where the tile begins and ends, of `bounds`
    (tiles + 1,), and with its (index, value, offset): the tile's events, as many up to each row as its `offset` (rows +
    1,) says. There is room for `capacity` events in all, and for a tile's from its number in `begins` (tiles,) on;
    `value` is empty unless they are `valued`.
    """
    begins = begins + LANES * np.arange(begins.size)  # with a vector's room behind each tile's events
    capacity += LANES * begins.size
    index, offset = np.empty(capacity + LANES, np.int32), np.empty((begins.size, rows + 1), np.int64)
    value = np.empty(capacity, np.float32) if valued else ONES
    waiting = deque(enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), begins.tolist(), strict=True)))

    def run_tiles() -> None:
        with suppress(IndexError):  # none is left
            while True:
                tile, (lo, hi, begin) = waiting.popleft()
                find(lo, hi, index[begin:], value[begin:], offset[tile])

    cores.share(helpers, run_tiles)
    return merged(begins, index, value, offset)


def merged(begins: Bounds, index: NDArray[np.int32], value: FloatArray, offset: NDArray[np.int64]) -> Events:
    """Merge the events that tiles have found, in the order of their rows."""
    count = int(offset[:, -1].sum())
    room = np.empty(count, np.float32) if value.size else ONES
    events = Events(np.empty(count, np.int32), room, np.empty(offset.shape[1], np.int64))
    event_kernels.merge_events.call(begins, index, value, offset, events)
    return events
