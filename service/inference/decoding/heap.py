"""Give memory back to the system after a burst of long requests.

glibc's allocator keeps what was freed: after long bodies and answers that was half as much memory again as before, for
as long as the server lived. `malloc_trim` gives the free pages back, except at the end of a thread's own heap: each of
those keeps up to 64 MB there. So all threads share the heap of the process, of which every free page is given back.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress

from spikeserve.service.inference.decoding.memory import MemoryBudget

TRIM_SECONDS = 5.0  # how often to look whether a burst is over
M_ARENA_MAX = -8  # as glibc's malloc.h has it

# What `ctypes` raises where the C library is not glibc.
NOT_GLIBC = (OSError, AttributeError, TypeError)


def share_heap() -> None:
    """Let all threads that start from now on use the heap of the process, where the C library is glibc."""
    with suppress(*NOT_GLIBC):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def heap_trimmer() -> Callable[[], object] | None:
    """Return the function that gives free memory back, or None where the C library is not glibc."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except NOT_GLIBC:
        return None
    return lambda: trim(ctypes.c_size_t(0))


async def keep_trimming(budget: MemoryBudget, trim: Callable[[], object] | None, seconds: float = TRIM_SECONDS) -> None:
    """Trim the heap, on a thread, each time that half of the most reserved bytes or more were given back.

    It does not wait until nothing is reserved: a stream may hold a few bytes for days.
    """
    while trim is not None:
        await asyncio.sleep(seconds)
        if budget.peak > 2 * budget.reserved:
            budget.peak = budget.reserved
            await asyncio.to_thread(trim)
