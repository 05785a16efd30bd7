"""Compressed bodies, gzip and deflate, in and out. A request is decompressed up to the limit of a body's length."""

from __future__ import annotations

import zlib
from enum import StrEnum

from service.errors import TooLarge, shown
from service.inference.pieces import Pieces, joined
from service.inference.v2.errors import InvalidRequest, UnknownEncoding

MIN_COMPRESSED = 512  # bytes; a shorter answer is not compressed
LEVEL = 1  # the fastest; for numbers a higher level gains little
GZIP_WINDOW, ZLIB_WINDOW, RAW_WINDOW = 31, 15, -15  # zlib's numbers for the three forms


class Encoding(StrEnum):
    """The supported encodings of a body."""

    IDENTITY = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"


def encoding_of(header: str | None) -> Encoding:
    """Return the encoding that a Content-Encoding header names; raises UnknownEncoding."""
    name = Encoding.IDENTITY if header is None else header.strip().lower()
    try:
        return Encoding(name)
    except ValueError:
        raise UnknownEncoding(f"Content-Encoding is {shown(name)}, expected gzip, deflate or none") from None


def unpack(body: bytes, encoding: Encoding, most: int) -> bytes:
    """Decompress a body; raises InvalidRequest, and TooLarge beyond `most` bytes."""
    if encoding is Encoding.IDENTITY:
        return body
    stream = zlib.decompressobj(GZIP_WINDOW if encoding is Encoding.GZIP else _deflate_window(body))
    try:
        unpacked = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {encoding}, as its Content-Encoding says") from error
    if len(unpacked) > most:
        raise TooLarge(f"the body has more than {most} bytes once it is unpacked, expected at most {most}")
    if not stream.eof or stream.unused_data:
        raise InvalidRequest(f"the body is not one whole {encoding} stream, as its Content-Encoding says")
    return unpacked


def pack(pieces: Pieces, encoding: Encoding) -> Pieces:
    """Compress the pieces of an answer, by gzip or deflate."""
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW if encoding is Encoding.GZIP else ZLIB_WINDOW)
    packed = [stream.compress(piece) for piece in pieces]
    return joined([*packed, stream.flush()])


def accepted(header: str | None, size: int) -> Encoding:
    """Return the encoding of an answer of `size` bytes that an Accept-Encoding header allows, gzip before deflate."""
    if header is None or size < MIN_COMPRESSED:
        return Encoding.IDENTITY
    allowed = set()
    for choice in header.lower().split(","):
        name, _, weight = choice.replace(" ", "").partition(";")
        if weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            allowed.add(name)
    return next((each for each in (Encoding.GZIP, Encoding.DEFLATE) if each in allowed), Encoding.IDENTITY)


def _deflate_window(body: bytes) -> int:
    """Return zlib's window for a deflate body: for zlib's format, by its check bits, or the raw one of some clients."""
    is_zlib = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return ZLIB_WINDOW if is_zlib else RAW_WINDOW
