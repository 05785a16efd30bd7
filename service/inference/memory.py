"""The memory budget: how many bytes the bodies and unread answers of all requests may hold together.

Each alone may be small enough, and many of them still too much.
"""

from __future__ import annotations

from threading import Lock

from service.errors import Overloaded


class MemoryBudget:
    """The bytes that are reserved, and the most that may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self.lock = Lock()


class Reservation:
    """What one request has reserved. A worker thread may reserve more, since bodies are decompressed there."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.size = 0
        self.released = False  # the request has ended, although a thread may still be at it

    def reserve(self, size: int) -> None:
        """Reserve so many bytes more; raises Overloaded where they would be too many."""
        with self.budget.lock:
            total = self.budget.reserved + size
            if total > self.budget.limit:
                raise Overloaded(
                    f"the bodies of all requests in progress would have {total} bytes with this one, expected at "
                    f"most {self.budget.limit}"
                )
            if not self.released:
                self.budget.reserved += size
                self.size += size

    def release(self) -> None:
        """Reserve nothing, now and later."""
        with self.budget.lock:
            self.budget.reserved -= self.size
            self.size = 0
            self.released = True
