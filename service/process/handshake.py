"""What a request to open a WebSocket has to be, checked before its library parses it.

The library reports nothing of a request that it cannot parse, and so such a connection would stay open, unanswered.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from http import HTTPStatus

from spikeserve.service.errors import shown

MAX_HEADERS, MAX_LINE_BYTES = 128, 8190  # of the library, which also counts a line's end
KEY_BYTES = 16
VERSION, KEY = b"sec-websocket-version", b"sec-websocket-key"


def handshake_error(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[HTTPStatus, str] | None:
    """Return the status and the sentence with which a request to open a WebSocket is refused, else None."""
    if len(headers) > MAX_HEADERS:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, (
            f"the request to open a WebSocket has {len(headers)} headers, expected at most {MAX_HEADERS}"
        )
    lines = [len(b"GET  HTTP/1.1") + len(url), *(len(name) + len(b": ") + len(value) for name, value in headers)]
    if max(lines) > MAX_LINE_BYTES:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, (
            f"a line of the request to open a WebSocket has {max(lines)} bytes, expected at most {MAX_LINE_BYTES}"
        )
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and int(value)):
            return HTTPStatus.BAD_REQUEST, "the request to open a WebSocket has a body, expected none"
    versions, keys = ([value for given, value in headers if given == name] for name in (VERSION, KEY))
    if versions != [b"13"]:
        return HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Version is {_listed(versions)}, expected '13'"
    if len(keys) != 1 or not _is_key(keys[0]):
        return HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Key is {_listed(keys)}, expected base64 of {KEY_BYTES} bytes"
    return None


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _listed(values: Sequence[bytes]) -> str:
    return shown(", ".join(value.decode("latin-1") for value in values)) if values else "missing"
