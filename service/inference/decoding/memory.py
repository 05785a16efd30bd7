"""The memory budget: how many bytes the bodies and answers of all requests in progress may take, and their way back.

glibc's allocator keeps what was freed: after long bodies and answers that was half as much memory again as before, for
as long as the server lived. `malloc_trim` gives the free pages back, except at the end of a thread's own heap: each of
those keeps up to 64 MB there. So all threads share the heap of the process, of which every free page is given back.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Self

from spikeserve.service.errors import Overloaded


class MemoryBudget:
    """The bytes that are reserved, and the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self.peak = 0  # the most bytes that were reserved since the heap was last trimmed
        self.lock = Lock()


class Reservation:
    """The bytes that one owner has reserved: a request, whose threads may reserve more, or a buffer, which is resized.

    As a context manager it gives them back at the end.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.size = 0
        self.released = False  # whether the request has ended; a thread may still be working on it

    def reserve(self, size: int) -> None:
        """Reserve `size` more bytes; raises Overloaded where that would exceed the limit."""
        with self.budget.lock:
            total = self.budget.reserved + size
            if total > self.budget.limit:
                raise Overloaded(
                    f"the bodies and answers of all requests in progress would have {total} bytes with this one, "
                    f"expected at most {self.budget.limit}"
                )
            if not self.released:
                self.budget.reserved += size
                self.budget.peak = max(self.budget.peak, total)
                self.size += size

    def resize(self, size: int, uncounted: int = 0) -> None:
        """Hold `size` bytes, or none where they are no more than are `uncounted`, in place of those before.

        That is what a buffer has now. Raises Overloaded, and changes nothing.
        """
        size = size if size > uncounted else 0
        if size > self.size:
            self.reserve(size - self.size)
        elif size < self.size:
            with self.budget.lock:
                self.budget.reserved -= self.size - size
                self.size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give back what was reserved; `reserve` then keeps nothing."""
        with self.budget.lock:
            self.budget.reserved -= self.size
            self.size = 0
            self.released = True


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
