"""Work in equal parts on as many threads as PyTorch uses."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

from training.fit.operators.compiled import Kernel


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "operators")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads


def in_parts(kernel: Kernel, items: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, first, end, part)` on each thread, with its share of the items and the thread's number.

    The shares depend on the number of threads only, and so do sums that a kernel keeps for each part.
    """
    parts = parts_of(items)
    if parts == 1:
        kernel(*arguments, 0, items, 0)
        return
    code = kernel.of((*arguments, 0, items, 0))
    bounds = [items * part // parts for part in range(parts + 1)]
    waiting = [
        _threads(parts - 1).submit(code, *arguments, bounds[part], bounds[part + 1], part) for part in range(1, parts)
    ]
    code(*arguments, 0, bounds[1], 0)
    for future in waiting:
        future.result()


def parts_of(items: int) -> int:
    """Return how many threads share so many items."""
    return max(1, min(torch.get_num_threads(), items))


def ranges_for(panels: int, rows: int) -> int:
    """Return into how many ranges rows are cut, so that each thread gets its share of so many panels times ranges."""
    threads = torch.get_num_threads()
    return 1 if panels % threads == 0 else max(1, min(threads, rows))
