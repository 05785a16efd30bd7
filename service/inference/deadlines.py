"""How long a request may take: as its header X-Request-Timeout-Ms says, and no longer than the settings do."""

from __future__ import annotations

import asyncio

from starlette.types import Scope

from service.errors import MalformedHeader
from service.faults import shown

HEADER = b"x-request-timeout-ms"
MOST_DIGITS = 9  # of a header; whatever is longer is more than any setting


def deadline_of(scope: Scope, longest_ms: int) -> float:
    """Return when the request's time is over, on the event loop's clock. Raises MalformedHeader."""
    milliseconds = longest_ms
    for name, value in scope["headers"]:
        if name == HEADER:
            if not value.isdigit() or not value.strip(b"0"):
                given = shown(value.decode("latin-1"))
                raise MalformedHeader(f"X-Request-Timeout-Ms is {given}, expected whole milliseconds, at least 1")
            milliseconds = min(longest_ms, int(value[-MOST_DIGITS:]) if len(value) <= MOST_DIGITS else longest_ms)
    return asyncio.get_running_loop().time() + milliseconds / 1000
