"""The bytes that a connection has received and not parsed yet, and how they are divided into parts for the parser."""

from __future__ import annotations

import re

from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation

END = b"\r\n\r\n"
MAX_PART_BYTES = 2**13  # of headers or a chunked body: so short a part has at most 1,366 chunks, of a byte each
UNFINISHED_ENDS = (b"\r\n\r", b"\r\n", b"\r")  # possible beginnings of END, the longest first

# Several times as fast as `bytes.find`, which matters for long chunked bodies.
_find_end = re.compile(re.escape(END)).search


class Backlog:
    """The received bytes from the first one that was not parsed; `len` is their number, `data` is empty without any."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.data = b""
        self.start = 0  # the bytes of `data` before it were parsed
        self.reserved = Reservation(budget)

    def __len__(self) -> int:
        return len(self.data) - self.start

    def add(self, data: bytes) -> None:
        """Append what was received."""
        self.data = self.data[self.start :] + data if self.data else data
        self.start = 0

    def take(self, body_bytes: int) -> bytes | memoryview:
        """Remove and return the next part to parse, in which at most one request ends, and that at the part's end.

        `body_bytes` are left of the body that is being received, if its headers told its length: the part is these.
        Otherwise the part ends with the first empty line (END), or after MAX_PART_BYTES. Headers end with their first
        empty line. So does a chunked body: chunk sizes and trailers are not empty, and an empty line inside a chunk
        only makes the part shorter. No part ends within an END: its beginning stays here until the rest of it has
        arrived, and the part may then be empty.
        """
        data, start = self.data, self.start
        length = len(data)
        if body_bytes:
            end = start + body_bytes
        elif empty_line := _find_end(data, start, start + MAX_PART_BYTES):
            end = empty_line.end()
        else:
            end = min(length, start + MAX_PART_BYTES)
            end -= next((len(each) for each in UNFINISHED_ENDS if data.endswith(each, start, end)), 0)
        if end < length:
            self.start = end
            return memoryview(data)[start:end]
        self.data, self.start = b"", 0
        return memoryview(data)[start:] if start else data

    def reserve(self) -> None:
        """Reserve the bytes in the memory budget; raises Overloaded if it has too few."""
        self.reserved.resize(len(self.data))

    def release(self) -> None:
        """Give back what was reserved, and the memory of the bytes that were parsed."""
        self.data, self.start = self.data[self.start :], 0
        self.reserved.resize(0)

    def clear(self) -> None:
        """Drop the bytes."""
        self.data, self.start = b"", 0
        self.release()
