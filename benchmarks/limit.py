"""The limit of a spike-by-spike engine: how fast one core adds rows of weights that lie in its L2 cache."""

from __future__ import annotations

import time

import numpy as np

ROW = 1000  # floats: what one spike adds in 784-1000-10
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
            for column in range(total.size):
                total[column] += table[row, column]

    compiled = numba.njit(add_rows)
    rng = np.random.default_rng(0)
    table, order = rng.random((ROWS, ROW), np.float32), rng.integers(0, ROWS, ADDED)
    total = np.zeros(ROW, np.float32)
    taken = []
    for _ in range(RUNS + 1):  # the first compiles
        began = time.perf_counter()
        compiled(table, order, total)
        taken.append(time.perf_counter() - began)
    return ADDED * ROW / float(np.median(taken[1:]))
