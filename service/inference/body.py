"""A request's body: read once, and held to its bounds in bytes, time and memory, whatever it says of its length.

All bodies together are bounded too (`service.inference.memory`), but for those of at most `SMALL` bytes: a connection's
buffers hold as much anyway, and so small requests are still answered while long bodies have taken all that there is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import BodyTooSlow, DeadlineExceeded, TooLarge
from service.inference.memory import MemoryBudget, Reservation

MOST_DIGITS = 20  # of a Content-Length, which the parser takes up to 2**64 - 1; more are zeros
CHUNKED = -1  # a length that is not known before the body ends
SMALL = 2**16  # bytes; so short a body is not counted in the budget, and if it was not read, the connection goes on
LINGER_BYTES = 2**20  # what is still read of a body after its answer, so that the client gets to read that
LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class BodyLimits:
    """The most bytes and seconds that one body may take, and the budget that all of them share."""

    max_bytes: int
    seconds: float
    budget: MemoryBudget


class Body:
    """One request's body. `length` is what its headers say: CHUNKED where they do not, 0 where there is none."""

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive, limits: BodyLimits) -> None:
        length = headers.get(b"content-length", b"0")
        known = length.isdigit() and len(length) <= MOST_DIGITS and b"transfer-encoding" not in headers
        self.length = int(length) if known else CHUNKED
        self.limits = limits
        self.arrived = 0
        self.complete = self.length == 0
        self.refused = False  # it broke a bound: nothing more of it is wanted
        self._receive = receive
        self._reservation: Reservation | None = None  # short bodies, which are most, need none

    async def read(self, deadline: float = math.inf) -> bytes:
        """Return the whole body.

        `deadline` is when the request's time is over, on the event loop's clock. Raises TooLarge, Overloaded,
        BodyTooSlow, DeadlineExceeded and ClientDisconnect.
        """
        if self.complete:
            return b""
        if self.length > self.limits.max_bytes:
            self.refused = True
            raise TooLarge(f"the body has {self.length} bytes, expected at most {self.limits.max_bytes}")
        latest = asyncio.get_running_loop().time() + self.limits.seconds
        parts: list[bytes] = []
        try:
            if self.length > SMALL:
                self.reserve(self.length)
            async with asyncio.timeout_at(min(latest, deadline)):
                while not self.complete:
                    parts.append(await self._next())
                    if self.length == CHUNKED or self.arrived > self.limits.max_bytes:
                        self._check_arrived()
        except BaseException as error:
            self.refused = True
            self.release()
            if isinstance(error, TimeoutError):
                raise self._late(expired=deadline < latest) from error
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def reserve(self, size: int) -> None:
        """Reserve so many bytes more of the budget, on any thread; raises Overloaded where they would be too many."""
        if self._reservation is None:
            self._reservation = Reservation(self.limits.budget)
        self._reservation.reserve(size)

    def release(self) -> None:
        """Give back all that was reserved, now and later."""
        if self._reservation is not None:
            self._reservation.release()

    async def wait_for_disconnect(self) -> None:
        """Return once the client has left; what it still sends is dropped."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drain(self) -> None:
        """Read and drop what is left of the body, for a moment and some bytes.

        A connection that is closed while bytes lie unread takes the answer with it.
        """
        most = self.arrived + LINGER_BYTES
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.complete and self.arrived < most:
                    await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        self.arrived += len(part)
        self.complete = not message.get("more_body", False)
        return part

    def _check_arrived(self) -> None:
        """Hold a body whose length was not known to the limits, as it comes."""
        if self.arrived > self.limits.max_bytes:
            raise TooLarge(f"the body has {self.arrived} bytes or more, expected at most {self.limits.max_bytes}")
        if self.arrived > SMALL:
            self.reserve(self.arrived - (self._reservation.size if self._reservation else 0))

    def _late(self, *, expired: bool) -> DeadlineExceeded | BodyTooSlow:
        if expired:
            return DeadlineExceeded(
                f"the body had {self.arrived} bytes when the request's time was over, expected all of it by then"
            )
        return BodyTooSlow(
            f"the body had {self.arrived} bytes after {self.limits.seconds:g} seconds, expected all of it by then"
        )
