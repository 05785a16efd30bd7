"""A request's body on its way in: no more bytes and no more time than it may take, whatever it says of its length.

All bodies together are bounded too, but for those that are SMALL: a connection's buffers hold as much anyway, and so
they are still answered where long ones have taken all that there is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlow, DeadlineExceeded, ServiceError, TooLarge
from service.inference.pending import Pending, Share

BODY = "spikeserve.body"  # where a request's scope holds its body, unless it has none
MOST_DIGITS = 20  # of a Content-Length, which the parser takes up to 2**64 - 1; more are zeros
CHUNKED = -1  # a length that is not known before the body ends
LINGER_BYTES = 2**20  # what is still read of a body after its answer, so that the client gets to read that
LINGER_SECONDS = 1.0
SMALL = 2**16  # bytes; so short a body is not held to the bound, and if it was not read, the connection still goes on


class BodyLimit:
    """Stops a body at its first byte over the limit, or when its time is over, and ends the connection.

    The fault is raised where the body is read, so that it is answered like every other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float, pending: Pending) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.pending = pending
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that counts and a `send` that sees whether all has been read."""
        length = _length(scope) if scope["type"] == "http" else 0
        if length == 0:
            await self.app(scope, receive, send)
            return
        body = scope[BODY] = Body(self, length, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.share.give_back()


class Body:
    """One request's body, and the answer that it gets.

    `length` is what it says of itself, or CHUNKED; `share` what it holds of all bodies; `deadline`, which whoever reads
    it may set, when its request's time is over, on the event loop's clock.
    """

    def __init__(self, limit: BodyLimit, length: int, receive: Receive, send: Send) -> None:
        self.limit: Final = limit
        self.length: Final = length
        self._receive: Final = receive
        self._send: Final = send
        self.share: Final = Share(limit.pending)
        self.arrived = 0
        self.deadline = math.inf
        self.latest: float | None = None  # when it must have arrived, once it was waited for
        self.ended = False  # nothing more will come
        self.given_up = False  # nothing more is wanted
        self.cut_off = False  # the answer says that the connection ends with it

    async def receive(self) -> Message:
        """Return what comes next. Raises TooLarge, Overloaded, BodyTooSlow and DeadlineExceeded."""
        if self.ended:
            return await self._receive()  # it waits for the client to leave, for as long as that takes
        try:
            return await self._bounded()
        except ServiceError:
            self.given_up = True
            self.share.give_back()
            raise

    async def _bounded(self) -> Message:
        if self.length > self.limit.max_bytes:
            raise TooLarge(f"the body has {self.length} bytes, expected at most {self.limit.max_bytes}")
        if self.length > SMALL and not self.share.held:
            self.share.take(self.length)
        message = await self._next()
        self._count(message)
        if self.arrived > self.limit.max_bytes:
            raise TooLarge(f"the body has {self.arrived} bytes or more, expected at most {self.limit.max_bytes}")
        if self.length == CHUNKED and self.arrived > SMALL:
            self.share.take(self.arrived - self.share.held)
        return message

    async def _next(self) -> Message:
        """Return what arrives next. Most bodies are there already, and to them no timer is set: it takes 3 µs."""
        receiving = cast("Coroutine[Any, None, Message]", self._receive())
        try:
            waits_for = receiving.send(None)
        except StopIteration as there:
            return cast("Message", there.value)
        if self.latest is None:
            self.latest = asyncio.get_running_loop().time() + self.limit.seconds
        try:
            async with asyncio.timeout_at(min(self.latest, self.deadline)):
                return await _resumed(receiving, waits_for)
        except TimeoutError as error:
            if self.deadline < self.latest:
                raise DeadlineExceeded(
                    f"the body had {self.arrived} bytes when the request's time was over, expected all of it by then"
                ) from error
            raise BodyTooSlow(
                f"the body had {self.arrived} bytes after {self.limit.seconds:g} seconds, expected all of it by then"
            ) from error

    async def send(self, message: Message) -> None:
        """Pass the answer on. One that comes before the body has ended ends the connection.

        Otherwise the server would read and drop all that the client goes on to send. The end waits for a moment, and
        some bytes, since a connection that is closed on unread bytes takes the answer with it.
        """
        if not self.ended and message["type"] == "http.response.start":
            if not self.given_up and 0 < self.length <= SMALL:
                await self._drop_the_rest()
            if not self.ended:
                self.cut_off = True
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        elif self.cut_off and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop_the_rest()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drop_the_rest(self) -> None:
        most = self.arrived + LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.ended and self.arrived < most:
                    self._count(await self._receive())

    def _count(self, message: Message) -> None:
        self.arrived += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)


@coroutine
def _resumed(begun: Coroutine[Any, None, Message], waits_for: Any) -> Generator[Any, None, Message]:
    """Go on with a coroutine that was begun by hand and waits for a future."""
    try:
        yield waits_for
    except BaseException as error:  # as when the task is cancelled
        begun.throw(error)
        raise
    return (yield from begun.__await__())


def _length(scope: Scope) -> int:
    """Return how long the body says that it is: CHUNKED where it does not, 0 where there is none."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return CHUNKED
        if name == b"content-length":
            length = int(value) if value.isdigit() and len(value) <= MOST_DIGITS else CHUNKED
    return length
