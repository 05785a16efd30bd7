"""The memory budget: how many bytes the bodies and answers of all requests in progress may take."""

from __future__ import annotations

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

    def resize(self, size: int) -> None:
        """Hold `size` bytes in place of those before: what a buffer has now. Raises Overloaded, and changes nothing."""
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
