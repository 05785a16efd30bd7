"""The parts of a layer that threads share: where each begins, what it finds, and the events that all of them make."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.event import event_kernels
from models.engines.event.signals import ONES, Events, room_for_index
from models.engines.event.vectors import LANES
from models.spec.network import FloatArray

TILES_PER_THREAD = 2  # so that a thread whose tiles have fewer events, or that starts earlier, does more of them
TILE_STEPS = 16  # but in fewer tiles than that: events beside a bound are followed in both tiles

Bounds = NDArray[np.int64]
AT_START: Bounds = np.zeros(1, np.int64)


@cache
def bounds_of(size: int, step: int, helpers: int) -> Bounds:
    """Return where tiles of `size` places begin and end, (tiles + 1,), for one thread and its helpers.

    All but the last are multiples of `step`. Without helpers it is one tile.
    """
    steps, tiles = -(-size // step), 1 + helpers
    if helpers:
        tiles = max(tiles, min(TILES_PER_THREAD * tiles, steps // TILE_STEPS))
    tiles = max(1, min(tiles, steps))
    bounds = np.arange(tiles + 1) * steps // tiles * step
    bounds[-1] = size
    return bounds


class Tiles(NamedTuple):
    """Room for the events of some rows, found by tiles.

    Those of a tile go into `index` from its number in `begins` (tiles,) on, as many up to each row as `offset` (tiles,
    rows + 1) says, and their values into `value`, which may be empty where all are spikes. A thread takes its next tile
    by turn[0]; turn[1] is not 0 once a value other than 1 was found.
    """

    begins: Bounds
    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]
    turn: NDArray[np.int64]

    @classmethod
    def of(cls, begins: Bounds, rows: int, capacity: int, *, valued: bool) -> Tiles:
        """Return room for `capacity` events in all, with a vector's room behind each tile's."""
        if begins.size > 1:
            begins = begins + LANES * np.arange(begins.size)
            capacity += LANES * begins.size
        return cls(
            begins,
            room_for_index(capacity),
            np.empty(capacity, np.float32) if valued else ONES,
            np.empty((begins.size, rows + 1), np.int64),
            np.zeros(2, np.int64),
        )

    def events(self, *, valued: bool) -> Events:
        """Return the events of all tiles in the order of their rows, with their values if they are `valued`."""
        value = self.value if valued else ONES
        if self.begins.size == 1:
            offset = self.offset[0]
            found = offset[-1]
            return Events(self.index[:found], value[:found], offset)
        found = int(self.offset[:, -1].sum())
        offset = np.empty(self.offset.shape[1], np.int64)
        merged = Events(np.empty(found, np.int32), np.empty(found, np.float32) if valued else ONES, offset)
        event_kernels.merge_events.call(self, merged)
        return merged
