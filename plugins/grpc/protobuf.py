"""Where the fields of a protobuf message lie in its bytes, of which no parser has made objects yet.

Bytes that another parser might read differently are refused. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # the wire types
WIDTHS = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES, MAX_TAG_BYTES, TAGS = 10, 5, 2**32


class MalformedMessage(ValueError):
    """Bytes that are no message, in words that go on from its name."""


class TooManyFields(ValueError):
    """A message of more fields than were allowed."""


class Field(NamedTuple):
    """A field of a message: its number and wire type, and where its tag, its value and the next field begin."""

    number: int
    kind: int
    begin: int
    start: int
    stop: int


class FieldReader:
    """Walks the fields of a message and of those in it, `most` in all."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.left = most

    def fields(self, at: int, end: int) -> Iterator[Field]:
        """Yield the fields that lie from `at` to `end`; raises MalformedMessage and TooManyFields."""
        while at < end:
            if not self.left:
                raise TooManyFields
            self.left -= 1
            tag, start = self.varint(at, end)
            number, kind = tag >> 3, tag & 7
            tag_bytes = start - at
            if kind == DELIMITED:
                length, start = self.varint(start, end)
                stop = start + length
            elif kind == VARINT:
                _, stop = self.varint(start, end)
            elif kind in WIDTHS:
                stop = start + WIDTHS[kind]
            else:
                raise MalformedMessage(f"a field has wire type {kind}")
            if number == 0 or tag >= TAGS or tag_bytes > MAX_TAG_BYTES:
                raise MalformedMessage("a field has no number")
            if stop > end:
                raise MalformedMessage("it ends within a field")
            yield Field(number, kind, at, start, stop)
            at = stop

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a number of variable length, and where it ends; raises MalformedMessage."""
        value = 0
        for place, byte in enumerate(self.data[at : min(end, at + MAX_VARINT_BYTES)]):
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value, at + place + 1
        raise MalformedMessage("it ends within a field")
