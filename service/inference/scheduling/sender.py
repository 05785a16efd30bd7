"""The sender of a request: whom its sequences and sessions belong to, and who is charged for them."""

from __future__ import annotations

from typing import NamedTuple


class Sender(NamedTuple):
    """The API key that a request came with, if any, and the address and port that it came from."""

    key: bytes = b""
    host: str = ""
    port: int = 0


NOBODY = Sender()  # of a request that belongs to no sequence
