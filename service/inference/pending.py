"""How many bytes of bodies the requests in progress hold together, which is bounded: each alone may be small enough."""

from __future__ import annotations

from threading import Lock

from service.errors import Overloaded


class Pending:
    """The bytes that are held, and the most that may be."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.lock = Lock()


class Share:
    """What one request holds of it; also a worker's thread may take more, since that is where a body is unpacked."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.held = 0
        self.over = False  # the request has ended, although a thread may still be at it

    def take(self, size: int) -> None:
        """Hold so many bytes more; raises Overloaded where they would be too many."""
        with self.pending.lock:
            together = self.pending.held + size
            if together > self.pending.most:
                raise Overloaded(
                    f"the bodies of all requests in progress would have {together} bytes with this one, expected at "
                    f"most {self.pending.most}"
                )
            if not self.over:
                self.pending.held += size
                self.held += size

    def give_back(self) -> None:
        """Hold nothing, now and later."""
        with self.pending.lock:
            self.pending.held -= self.held
            self.held = 0
            self.over = True
