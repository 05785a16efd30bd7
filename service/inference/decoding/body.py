"""A request's body: read once, within limits of bytes, seconds and memory, with or without a Content-Length.

The bodies of all requests share a memory budget (`service.inference.decoding.memory`). Bodies of at most
`UNRESERVED_BYTES` are not counted: a connection's buffers hold as much anyway, and so small requests are answered even
while long bodies have used up the budget.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from spikeserve.service.errors import BodyTooSlow, DeadlineExceeded, TooLarge
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation

MAX_DIGITS = 20  # of a Content-Length: the parser accepts at most 2**64 - 1, so further digits are leading zeros
CHUNKED = -1  # the length of a body that is not known before it ends
UNRESERVED_BYTES = 2**16  # so short a body is not counted in the budget; if it was not read, the connection stays open
LINGER_BYTES = 2**20  # how much of a body is still read after an early answer, so that the client can read the answer
LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class BodyLimits:
    """How many bytes and seconds one body may take, and the memory budget that all bodies share."""

    max_bytes: int
    seconds: float
    budget: MemoryBudget


class Body:
    """One request's body. `length` comes from its headers: CHUNKED where they do not tell, 0 where there is no body."""

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive, limits: BodyLimits) -> None:
        length = headers.get(b"content-length", b"0")
        known = length.isdigit() and len(length) <= MAX_DIGITS and b"transfer-encoding" not in headers
        self.length = int(length) if known else CHUNKED
        self.limits = limits
        self.arrived = 0
        self.complete = self.length == 0
        self.streamed = False  # its answer begins before its end
        self.refused = False  # it exceeded a limit: the rest of it is not read
        self._receive = receive
        self._expects = b"expect" in headers
        self._first: asyncio.Task[bytes] | None = None
        self._reservation: Reservation | None = None  # most bodies are short and need none

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
            if self.length > UNRESERVED_BYTES:
                self.reserve(self.length)
            while not self.complete:
                parts.append(await self._next_by(min(latest, deadline)))
                if self.length == CHUNKED or self.arrived > self.limits.max_bytes:
                    self._check_arrived()
        except BaseException as error:
            self.refused = True
            self.release()
            if isinstance(error, TimeoutError):
                raise late_body(self.arrived, self.limits.seconds, expired=deadline < latest) from error
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def invite(self) -> None:
        """Ask a client that expects `100 Continue` for its body, before the answer begins.

        The server says 100 when the body is first asked for, and not at all once the answer has begun. Such a client
        would wait for it a while, curl for a second.
        """
        if self._expects and not self.complete:
            self._first = asyncio.ensure_future(self._next())
            self._first.add_done_callback(lambda first: first.cancelled() or first.exception())  # where nobody takes it
            await asyncio.sleep(0)  # it begins to run

    async def part(self) -> bytes | None:
        """Return the next part of a body that has no limits of bytes and seconds, as streams have; None at its end.

        Nothing is read ahead of it but what a connection buffers. Raises ClientDisconnect.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return await first
        return None if self.complete else await self._next()

    def reserve(self, size: int) -> None:
        """Reserve `size` more bytes of the budget, on any thread; raises Overloaded where the budget has too few."""
        if self._reservation is None:
            self._reservation = Reservation(self.limits.budget)
        self._reservation.reserve(size)

    def release(self) -> None:
        """Give back what was reserved; later reservations of this body keep nothing. Nothing more is read."""
        if self._first is not None:
            self._first.cancel()
        if self._reservation is not None:
            self._reservation.release()

    async def wait_for_disconnect(self) -> None:
        """Return once the client has disconnected; what it still sends is dropped."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drain(self) -> None:
        """Read and drop the rest of the body, up to LINGER_BYTES and LINGER_SECONDS.

        Closing a connection that has unread bytes resets it, and the client would lose the answer.
        """
        limit = self.arrived + LINGER_BYTES
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.complete and self.arrived < limit:
                    await self.part()

    async def _next_by(self, latest: float) -> bytes:
        """Read the next part; raises TimeoutError where none has come by `latest`, on the event loop's clock.

        A busy machine may run this loop so late that a part which came in time and the timer are seen together: what
        has arrived counts.
        """
        try:
            async with asyncio.timeout_at(latest):
                return await self._next()
        except TimeoutError:
            async with asyncio.timeout(0):
                return await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        self.arrived += len(part)
        self.complete = not message.get("more_body", False)
        return part

    def _check_arrived(self) -> None:
        """Check a body whose length was not known against the limits, as it arrives."""
        if self.arrived > self.limits.max_bytes:
            raise TooLarge(f"the body has {self.arrived} bytes or more, expected at most {self.limits.max_bytes}")
        if self.arrived > UNRESERVED_BYTES:
            self.reserve(self.arrived - (self._reservation.size if self._reservation else 0))


def late_body(arrived: int, seconds: float, *, expired: bool) -> DeadlineExceeded | BodyTooSlow:
    """Return the error of a body of which only `arrived` bytes came in time.

    The request's time is `expired`, or else the body's own `seconds` are.
    """
    got, expected = f"the body had {arrived} bytes", "expected all of it by then"
    if expired:
        return DeadlineExceeded(f"{got} when the request's time was over, {expected}")
    return BodyTooSlow(f"{got} after {seconds:g} seconds, {expected}")
