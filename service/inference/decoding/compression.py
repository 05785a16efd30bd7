"""Compressed bodies, gzip and deflate: a request is decompressed up to the limit of a body's length."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum

from spikeserve.service.errors import MalformedBody, TooLarge
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES

GZIP_WINDOW, ZLIB_WINDOW, RAW_WINDOW = 31, 15, -15  # zlib's numbers for the three forms
MAX_MEMBERS = 2**14  # of one gzip body: each costs microseconds, however short; 64 KiB is a common length of one
READ_BYTES = 2**14  # zlib copies what is left of its input at every piece and member, so it is given little at once
PIECE_BYTES = UNRESERVED_BYTES  # as much is decompressed before it is counted in the memory budget


class Encoding(StrEnum):
    """The supported encodings of a body."""

    IDENTITY = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"


def unpack(packed: bytes, encoding: Encoding, most: int, reserve: Callable[[int], None]) -> bytes:
    """Decompress to at most `most` bytes; several gzip members make one content, as RFC 1952 says.

    `reserve` reserves the bytes of what is longer than UNRESERVED_BYTES while it grows. Raises MalformedBody,
    TooLarge and Overloaded.
    """
    size, reserved = 0, 0
    pieces: list[bytes] = []
    for piece in _pieces(packed, encoding):
        size += len(piece)
        if size > most:
            raise TooLarge(f"the body has more than {most} bytes once it is unpacked, expected at most {most}")
        if size > UNRESERVED_BYTES:
            reserve(size - reserved)
            reserved = size
        pieces.append(piece)
    return b"".join(pieces)


def inflated(body: bytes, most: int) -> bytes | None:
    """Decompress a short gzip body; None where it has more than `most` bytes then, or is not one whole stream."""
    stream = zlib.decompressobj(GZIP_WINDOW)
    try:
        content = stream.decompress(body, most)
    except zlib.error:
        return None
    return content if stream.eof and not stream.unused_data else None


def _deflate_window(body: bytes) -> int:
    """Return zlib's window for a deflate body: for zlib's format, by its check bits, or the raw one of some clients."""
    is_zlib = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return ZLIB_WINDOW if is_zlib else RAW_WINDOW


def _pieces(packed: bytes, encoding: Encoding) -> Iterator[bytes]:
    """Decompress in pieces of at most PIECE_BYTES. Raises MalformedBody, and TooLarge beyond MAX_MEMBERS."""
    window = GZIP_WINDOW if encoding is Encoding.GZIP else _deflate_window(packed)
    stream, members, unread = zlib.decompressobj(window), 1, memoryview(packed)
    chunk, full = b"", False
    while chunk or unread or full:
        if stream.eof:
            members += 1
            if encoding is not Encoding.GZIP:
                raise _not_whole(encoding)
            if members > MAX_MEMBERS:
                raise TooLarge(f"the body has more than {MAX_MEMBERS} gzip members, expected at most as many")
            stream = zlib.decompressobj(window)
        if not (chunk or full):
            chunk, unread = bytes(unread[:READ_BYTES]), unread[READ_BYTES:]
        try:
            piece = stream.decompress(chunk, PIECE_BYTES)
        except zlib.error as error:
            if members > 1:
                raise _not_whole(encoding) from error
            raise MalformedBody(f"the body is not {encoding}, as its Content-Encoding says") from error
        yield piece
        full = len(piece) == PIECE_BYTES and not stream.eof  # zlib may hold more of what it was given
        chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
    if not stream.eof:
        raise _not_whole(encoding)


def _not_whole(encoding: Encoding) -> MalformedBody:
    return MalformedBody(f"the body is not one whole {encoding} stream, as its Content-Encoding says")
