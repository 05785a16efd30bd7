"""The limit of a spike-by-spike engine: how fast one core adds rows of weights that lie in its L2 cache."""

from __future__ import annotations

import time

import numpy as np

from spikeserve.models.spec.network import FloatArray

ROW = 1000  # floats: what one spike adds in 784-1000-10
LINE = 64  # bytes of a cache line, at which each row begins: without that the rate hangs on luck, by a third
STRIDE = 1008  # floats from row to row: the whole lines that a row takes
ROWS = 200  # 800 kB, more than an L1 cache and less than an L2
ADDED = 20_000  # rows in one run
RUNS = 15


def additions_per_second() -> float | None:
    """Return how many float32 additions one core makes so, or None where numba is not installed."""
    try:
        import numba
    except ImportError:
        return None

    def add_rows(table, order, total):  # type: ignore[no-untyped-def]
        for row in order:
            for column in range(ROW):
                total[column] += table[row, column]

    compiled = numba.njit(add_rows)
    rng = np.random.default_rng(0)
    table, total = _aligned(ROWS * STRIDE).reshape(ROWS, STRIDE), _aligned(STRIDE)
    table[:] = rng.random(table.shape, np.float32)
    order = rng.integers(0, ROWS, ADDED)
    taken = []
    for _ in range(RUNS + 1):  # the first compiles
        began = time.perf_counter()
        compiled(table, order, total)
        taken.append(time.perf_counter() - began)
    return ADDED * ROW / float(np.median(taken[1:]))


def _aligned(size: int) -> FloatArray:
    """Return zeros (size,) that begin at a cache line."""
    room = np.zeros(size + LINE // 4, np.float32)
    start = -room.ctypes.data % LINE // 4
    return room[start : start + size]
