"""What one request may cost. Bytes are counted as they arrive; samples, steps and values once they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooLarge
from service.settings import Settings

MOST_DIGITS = 19  # of a Content-Length that is a length; a server refuses longer ones before they come here


@dataclass(frozen=True)
class Limits:
    """The most samples and time steps in a request, the most values in one layer, and the most that is recorded."""

    samples: int
    time_steps: int
    values: int
    recorded_values: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that are set."""
        return cls(settings.max_samples, settings.max_time_steps, settings.max_values, settings.max_recorded_values)


class BodyLimit:
    """Stops a body at its first byte over the limit, whether or not its length was declared.

    The fault is raised where the body is read, so that it is answered like every other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared_length(scope)
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            if declared > self.max_bytes:
                raise TooLarge(f"the body has {declared} bytes, expected at most {self.max_bytes}")
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.max_bytes:
                raise TooLarge(f"the body has {arrived} bytes or more, expected at most {self.max_bytes}")
            return message

        await self.app(scope, counted, send)


def _declared_length(scope: Scope) -> int:
    """Return the Content-Length, or 0 where there is none that is a number."""
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdecimal() and len(declared) <= MOST_DIGITS else 0
