"""Work in equal parts on PyTorch's own threads.

A thread of OpenMP spins for milliseconds after each of PyTorch's operations, since the next one may be near. A pool of
other threads would have to share the cores with those that spin; so the kernels run on these very threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeAlias

import torch

from spikeserve.models.engines.event.compiled import Kernel

WORTH_A_THREAD = 50_000  # nanoseconds

Part: TypeAlias = Callable[[int], None]  # does the part of this number


def in_parts(kernel: Kernel, items: int, *arguments: Any, work: int | None = None) -> None:
    """Call `kernel(*arguments, first, end, part)` on each thread, with its share of the items and the thread's number.

    The shares depend on the number of threads and on `work` only, and so do sums that a kernel keeps for each part;
    see `parts_of`.
    """
    parts = parts_of(items, work)
    if parts == 1:
        kernel.call(*arguments, 0, items, 0)
        return
    code = kernel.code_for((*arguments, 0, items, 0))
    bounds = [items * part // parts for part in range(parts + 1)]

    def run(part: int) -> None:
        code(*arguments, bounds[part], bounds[part + 1], part)

    together(run, parts)


def together(run: Part, parts: int) -> None:
    """Call `run(part)` for each part, each on a thread of its own; raises what the first that fails raises."""
    failed: list[BaseException] = []

    def guarded(part: int) -> None:
        try:
            run(part)
        except BaseException as error:
            failed.append(error)

    openmp = _openmp()
    if openmp is None:
        list(_pool(parts).map(guarded, range(parts)))
    else:
        openmp(guarded, parts)
    if failed:
        raise failed[0]


def parts_of(items: int, work: int | None = None) -> int:
    """Return how many threads share so many items.

    `work` says about how many nanoseconds one thread would take for all of them, where that may be so few that waking
    another takes longer.
    """
    worth = items if work is None else work // WORTH_A_THREAD
    return max(1, min(torch.get_num_threads(), items, worth))


def ranges_for(panels: int, rows: int) -> int:
    """Return into how many ranges rows are cut, so that each thread gets its share of so many panels times ranges."""
    threads = torch.get_num_threads()
    return 1 if panels % threads == 0 else max(1, min(threads, rows))


@cache
def _openmp() -> Callable[[Part, int], None] | None:
    """Return a runner of parts on the threads of the OpenMP library that PyTorch has loaded, if there is one.

    These are the functions that stand for `#pragma omp parallel` in what a compiler makes of it:
    https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html
    They are found through PyTorch's own library, since a process may have loaded several.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)
        start, end = library.GOMP_parallel_start, library.GOMP_parallel_end
        number, count = library.omp_get_thread_num, library.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    start.argtypes, start.restype = (callback, ctypes.c_void_p, ctypes.c_uint), None
    end.argtypes, end.restype = (), None

    def run(part: Part, parts: int) -> None:
        def share(_: int | None = None) -> None:
            for at in range(number(), parts, count()):  # its limits may leave fewer threads than were asked for
                part(at)

        # As many threads as PyTorch takes: for another number the library would end some or start new ones.
        others, threads = callback(share), torch.get_num_threads()
        # This thread takes its share outside the callback, which would swallow the KeyboardInterrupt of a Ctrl-C. Nor
        # can one come within the `try` before the others have started: Python looks for signals after a call.
        try:
            start(others, None, threads)
            share()
        finally:
            end()

    return run


@cache
def _pool(parts: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(parts, "operators")


def _after_fork() -> None:
    """Forget threads that only the parent has. OpenMP's cannot be started again in a child, so it uses a pool."""
    global _openmp
    _openmp = cache(lambda: None)
    _pool.cache_clear()


os.register_at_fork(after_in_child=_after_fork)
