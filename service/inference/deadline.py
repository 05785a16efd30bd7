"""How long a request may take: as long as its header X-Request-Timeout-Ms says, and no longer than the settings do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from service.errors import MalformedHeader, shown

HEADER = b"x-request-timeout-ms"
MOST_DIGITS = 9  # of the header; whatever is longer is more than any setting


def deadline_of(headers: Mapping[bytes, bytes], longest_ms: int) -> float:
    """Return when the request's time is over, on the event loop's clock. Raises MalformedHeader."""
    milliseconds = longest_ms
    value = headers.get(HEADER)
    if value is not None:
        if not value.isdigit() or not value.strip(b"0"):
            given = shown(value.decode("latin-1"))
            raise MalformedHeader(f"X-Request-Timeout-Ms is {given}, expected whole milliseconds, at least 1")
        if len(value) <= MOST_DIGITS:
            milliseconds = min(longest_ms, int(value))
    return asyncio.get_running_loop().time() + milliseconds / 1000
