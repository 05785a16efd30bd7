"""Give memory back to the system after a burst of long requests.

glibc's allocator keeps what was freed, in a heap of its own for each thread: after long bodies and answers that was
half as much memory again as before, for as long as the server lived. `malloc_trim` gives the free pages back.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

from spikeserve.service.inference.memory import MemoryBudget

TRIM_SECONDS = 5.0  # how often to look whether a burst is over


def heap_trimmer() -> Callable[[], object] | None:
    """Return the function that gives free memory back, or None where the C library is not glibc."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return lambda: trim(ctypes.c_size_t(0))


async def keep_trimming(budget: MemoryBudget, trim: Callable[[], object] | None, seconds: float = TRIM_SECONDS) -> None:
    """Trim the heap, on a thread, once long requests have come and none is in progress."""
    while trim is not None:
        await asyncio.sleep(seconds)
        if budget.used and not budget.reserved:
            budget.used = False
            await asyncio.to_thread(trim)
