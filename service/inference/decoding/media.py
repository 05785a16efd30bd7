"""What a request's body is, by its headers Content-Type and Content-Encoding; what is not supported is answered 415.

curl says of anything that it sends with --data-binary that it is a form, and of a file with -T nothing. So an array and
a recording are known by how they begin, wherever the header does not say that the body is JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import TypeAlias

from spikeserve.models.recordings.files import file_format
from spikeserve.service.errors import UnsupportedMedia, shown
from spikeserve.service.inference.decoding.body import Body
from spikeserve.service.inference.decoding.compression import Encoding, unpack

CONTENT_TYPE, CONTENT_ENCODING = b"content-type", b"content-encoding"
JSON, BYTES = b"application/json", b"application/octet-stream"
RECORDS, NPY = b"application/vnd.spikeserve.events", b"application/x-npy"
FORM = b"application/x-www-form-urlencoded"
PREDICT_TYPES = (JSON, NPY, RECORDS, BYTES)  # of the native routes
INFER_TYPES = (JSON, BYTES)  # what the protocol v2 takes, whose bytes are those of tensors
MAGIC = b"\x93NUMPY"  # how an array begins
JSON_STARTS = b"{ \t\r\n"
UTF8 = frozenset({"utf-8", "utf8"})
ALIASES = {"x-gzip": "gzip"}  # RFC 9110, section 8.4.1.3

Unpack: TypeAlias = Callable[[bytes], bytes]


class BodyFormat(StrEnum):
    """What a body holds: JSON, event records, or one array."""

    JSON = "json"
    RECORDS = "records"
    NPY = "npy"


def media_type(headers: Mapping[bytes, bytes], *types: bytes) -> bytes | None:
    """Return which of `types`, which a route takes, the Content-Type is; None where it is missing or empty.

    A form is one of them where the route takes arrays and recordings. Raises UnsupportedMedia.
    """
    kind = headers.get(CONTENT_TYPE) or None
    if kind is None or kind in types:
        return kind
    plain = _plain(kind)
    if plain not in types and not (plain == FORM and NPY in types):
        raise unsupported(kind, types)
    return plain


def unsupported(kind: bytes, types: tuple[bytes, ...]) -> UnsupportedMedia:
    """Return the error for another Content-Type than `types`."""
    expected = ", ".join(each.decode() for each in types)
    return UnsupportedMedia(
        f"Content-Type is {shown(kind.decode('latin-1'))}, expected {expected} or none; with curl, add "
        f"-H 'content-type: {types[0].decode()}'"
    )


def _plain(kind: bytes) -> bytes:
    """Return a Content-Type that is not written as the usual one, in capitals or with parameters, as that."""
    plain, *parameters = (part.strip().lower() for part in kind.decode("latin-1").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in UTF8:
            raise UnsupportedMedia(f"Content-Type is {shown(kind.decode('latin-1'))}, expected charset=utf-8 or none")
    return plain.encode("latin-1")


def form_of(kind: bytes | None, content: bytes) -> BodyFormat:
    """Find the form of an unpacked body, by its media type, one of PREDICT_TYPES or a form, and by how it begins.

    Bytes that begin as nothing that is known are event records. Raises UnsupportedMedia where a form does, and for a
    recording's file.
    """
    if kind == JSON or (kind is None and content[:1] in JSON_STARTS):
        return BodyFormat.JSON
    if kind == RECORDS:
        return BodyFormat.RECORDS
    if kind == NPY or content.startswith(MAGIC):
        return BodyFormat.NPY
    if (file := file_format(content)) is not None:
        raise UnsupportedMedia(
            f"the body is a recording's file ({file}), expected its events: the client's predict reads the file and "
            "sends them"
        )
    if kind == FORM:
        raise unsupported(kind, PREDICT_TYPES)
    return BodyFormat.JSON if kind is None else BodyFormat.RECORDS


def unpacking(headers: Mapping[bytes, bytes], body: Body) -> Unpack | None:
    """Return the decompressor of `body`, or None where its headers say that it is not compressed.

    Raises UnsupportedMedia.
    """
    name = (headers.get(CONTENT_ENCODING) or b"identity").decode("latin-1").strip().lower()
    try:
        encoding = Encoding(ALIASES.get(name, name))
    except ValueError:
        raise UnsupportedMedia(f"Content-Encoding is {shown(name)}, expected gzip, deflate or none") from None
    return (
        None
        if encoding is Encoding.IDENTITY
        else partial(unpack, encoding=encoding, most=body.limits.max_bytes, reserve=body.reserve)
    )
