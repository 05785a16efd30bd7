"""The parts of a layer that threads share: where each begins, what it finds, and the events that all of them make."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.engines.event import event_kernels
from models.engines.event.cores import Cores
from models.engines.event.signals import ONES, Events, room_for_index
from models.engines.event.vectors import LANES
from models.spec.network import FloatArray

TILES_PER_THREAD = 2  # so that a thread whose tiles have fewer events, or that starts earlier, does more of them
TILE_STEPS = 16  # but in fewer tiles than that: events beside a bound are followed in both tiles

Bounds = NDArray[np.int64]
Turn = NDArray[np.int64]
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


def find_events(
    cores: Cores,
    helpers: int,
    bounds: Bounds,
    begins: Bounds,
    rows: int,
    capacity: int,
    valued: bool,
    kernel: Callable[..., object],
    *arguments: object,
) -> tuple[Events, Turn]:
    """Let the caller and its helpers run the tiles of a layer; return the events of its rows, and `turn`.

    `kernel` is called with the arguments and then (bounds, begins, turn, index, value, offset). It takes tile after
    tile by turn[0], and sets turn[1] where it finds a value other than 1. A tile's events go into `index` from its
    number in `begins` (tiles,) on, as many up to each row as `offset` (tiles, rows + 1) says, and their values into
    `value`, which is empty unless they are `valued`. There is room for `capacity` events in all.
    """
    turn = np.zeros(2, np.int64)
    if not helpers:  # as most layers are, so that it should cost nothing
        index, offset = room_for_index(capacity), np.empty((1, rows + 1), np.int64)
        value = np.empty(capacity, np.float32) if valued else ONES
        kernel(*arguments, bounds, AT_START, turn, index, value, offset)
        upto = offset[0]
        found = upto[-1]
        return Events(index[:found], value[:found] if valued else ONES, upto), turn
    begins = begins + LANES * np.arange(begins.size)  # with a vector's room behind each tile's events
    capacity += LANES * begins.size
    index, offset = room_for_index(capacity), np.empty((begins.size, rows + 1), np.int64)
    value = np.empty(capacity, np.float32) if valued else ONES
    cores.share(helpers, kernel, *arguments, bounds, begins, turn, index, value, offset)
    return merged(begins, index, value, offset), turn


def merged(begins: Bounds, index: NDArray[np.int32], value: FloatArray, offset: NDArray[np.int64]) -> Events:
    """Return what tiles have found as events in the order of their rows."""
    found = int(offset[:, -1].sum())
    room = np.empty(found, np.float32) if value.size else ONES
    events = Events(np.empty(found, np.int32), room, np.empty(offset.shape[1], np.int64))
    event_kernels.merge_events.call(begins, index, value, offset, events)
    return events
