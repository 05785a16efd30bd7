"""A request's query string: at most MAX_PARAMETERS parameters, and each name once.

The middleware refuses a longer one on every route, before anything parses it: a header's 64 KiB hold 65,536 of them.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from spikeserve.models.errors import InvalidInput
from spikeserve.service.errors import shown

MAX_PARAMETERS = 16
TOO_MANY = f"the query has more than {MAX_PARAMETERS} parameters, expected at most as many"


def has_too_many(query: bytes) -> bool:
    """Return whether a query string has more than MAX_PARAMETERS parameters, without parsing it."""
    return query.count(b"&") >= MAX_PARAMETERS


def parameters(query: bytes) -> dict[str, str]:
    """Return the parameters by name. Raises InvalidInput for too many of them, and for a name that is there twice."""
    if has_too_many(query):
        raise InvalidInput(TOO_MANY)
    found: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in found:
            raise InvalidInput(f"{shown(name)} is in the query twice, expected once")
        found[name] = value
    return found
