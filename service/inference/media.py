"""What a request's body is, by its headers Content-Type and Content-Encoding; what is not supported is answered 415."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from service.errors import UnsupportedMedia, shown
from service.inference.body import Body
from service.inference.compression import Encoding, unpack

CONTENT_TYPE, CONTENT_ENCODING = b"content-type", b"content-encoding"
JSON, BYTES = b"application/json", b"application/octet-stream"
UTF8 = frozenset({"utf-8", "utf8"})
ALIASES = {"x-gzip": "gzip"}  # RFC 9110, section 8.4.1.3

Unpack: TypeAlias = Callable[[bytes], bytes]


def unpacking(headers: Mapping[bytes, bytes], body: Body, *types: bytes) -> Unpack | None:
    """Return what decompresses `body`, or None where its headers say that it is not compressed.

    `types` are the content types that the route takes; a request that names none is taken to have one of them. Raises
    UnsupportedMedia.
    """
    kind = headers.get(CONTENT_TYPE)
    if kind is not None and kind not in types:
        _check_type(kind.decode("latin-1"), [each.decode() for each in types])
    encoding = headers.get(CONTENT_ENCODING)
    return None if encoding is None else _unpacking(encoding.decode("latin-1"), body)


def _check_type(given: str, types: list[str]) -> None:
    """Check a Content-Type that is not written as the usual one: in capitals, or with parameters."""
    kind, *parameters = (part.strip().lower() for part in given.split(";"))
    if kind not in types:
        raise UnsupportedMedia(
            f"Content-Type is {shown(given)}, expected {', '.join(types)} or none; with curl, add "
            f"-H 'content-type: {types[0]}'"
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in UTF8:
            raise UnsupportedMedia(f"Content-Type is {shown(given)}, expected charset=utf-8 or none")


def _unpacking(given: str, body: Body) -> Unpack | None:
    name = given.strip().lower()
    try:
        encoding = Encoding(ALIASES.get(name, name))
    except ValueError:
        raise UnsupportedMedia(f"Content-Encoding is {shown(name)}, expected gzip, deflate or none") from None
    return None if encoding is Encoding.IDENTITY else partial(unpack, encoding=encoding, body=body)
