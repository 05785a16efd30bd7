"""Requests that no document describes, each with the statuses that it may get. None may bring the server down.

They are bytes for a server whose default model is given as a body that it answers (`sound`). What JSON may say wrong is
left to schemathesis, in `benchmarks.soak.documented`.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks.soak.client import get, post

MALFORMED, WRONG, TOO_LARGE = 400, 422, 413
NOT_HTTP = frozenset({400})
LONG = 100_000
BOMB = 2**26  # bytes, four times what a body may be; it compresses to a thousandth


@dataclass(frozen=True)
class Hostile:
    """A request, what is odd about it and the statuses that are an answer to it."""

    name: str
    request: bytes
    statuses: frozenset[int]


def hostile(sound: dict[str, Any]) -> list[Hostile]:
    """Return every kind, made from a body that the default model answers."""
    body = json.dumps(sound).encode()
    return [*_bodies(sound), *_packed(body), *_around(body), *_lines(body)]


def of(name: str, request: bytes, *statuses: int) -> Hostile:
    """Return a request with its statuses."""
    return Hostile(name, request, frozenset(statuses))


def _bodies(sound: dict[str, Any]) -> Iterator[Hostile]:
    """Yield well-formed HTTP whose body is long, or no JSON."""
    sample, text = sound["inputs"][0], json.dumps(sound)
    many = json.dumps({"inputs": [sample] * 1025}).encode()
    yield of("too many samples", post("/predict", many), TOO_LARGE)
    for name, values in {"a million values": b"0," * 2**20, "a million lists": b"[0]," * 2**20}.items():
        yield of(name, post("/predict", b'{"inputs": [' + values + b"0]}"), TOO_LARGE)
    work = json.dumps({"inputs": [sample] * 1024, "time_steps": 1000, "return": ["membrane"]}).encode()
    yield of("too much work", post("/predict", work), TOO_LARGE, WRONG)
    yield of("too many strings", post("/predict", json.dumps({"return": ["x"] * LONG}).encode()), TOO_LARGE)
    malformed = {
        "nothing": b"",
        "white space": b" " * LONG,
        "half of it": text[: len(text) // 2].encode(),
        "twice": (text * 2).encode(),
        "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "no UTF-8": b'{"inputs": "\xff\xfe"}',
        "half a surrogate": b'{"\\ud800": 1}',
        "nested deep": b'{"inputs": ' + b"[" * 10_000,
        "objects nested deep": b'{"a":' * 10_000,
        "a field said twice": text.replace("{", '{"inputs": [[]], ', 1).encode(),
        "a number of many digits": b'{"inputs": [[' + b"9" * LONG + b"]]}",
        "an exponent of many digits": b'{"inputs": [[1e' + b"9" * LONG + b"]]}",
        "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
        "zeros": bytes(1000),
        "compressed, and said not to be": gzip.compress(text.encode(), mtime=0),
    }
    for name, body in malformed.items():
        yield of(name, post("/predict", body), MALFORMED, WRONG)


@lru_cache
def _bomb(byte: bytes = b"\0", compress: Callable[[bytes, int], bytes] = gzip.compress) -> bytes:
    return compress(byte * BOMB, 9)


def _packed(body: bytes) -> Iterator[Hostile]:
    """Yield compressed bodies that are broken, or very long once they are not."""
    for encoding, name, content, status in (
        ("gzip", "its first bytes alone", gzip.compress(body)[:10], MALFORMED),
        ("gzip", "with a wrong checksum", gzip.compress(body)[:-8] + bytes(8), MALFORMED),
        ("gzip", "twice, one in the other", gzip.compress(gzip.compress(body)), MALFORMED),
        ("gzip", "in very many members", gzip.compress(b"") * LONG, TOO_LARGE),
        ("gzip", "a bomb", _bomb(), TOO_LARGE),
        ("gzip", "a bomb of white space", gzip.compress(body) + _bomb(b" "), TOO_LARGE),
        ("deflate", "a bomb", _bomb(compress=zlib.compress), TOO_LARGE),
        ("x" * 5000, "an encoding with a long name", body, 415),
    ):
        yield of(f"{encoding[:12]}: {name}", post("/predict", content, {"Content-Encoding": encoding}), status)


def _around(body: bytes) -> Iterator[Hostile]:
    """Yield a body that is right with a length that is not, and paths that are none."""
    for name, value in {
        "X-Request-ID": "x" * 5000,
        "x-request-id": "\xff\xfe",
        "Traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-zz",
        "Cookie": "a=b; " * 500,
        "Expect": "the impossible",
        "Upgrade": "websocket",
    }.items():
        yield of(f"{name}: {value[:20]}", post("/predict", body, {name: value}), 200)
    yield of("a body of 99999999999 bytes", post("/predict", body, {"Content-Length": "99999999999"}), TOO_LARGE)
    yield of("a body shorter than it says", post("/predict", body, {"Content-Length": str(len(body) + 9)}), 408)
    for path in ("/models/../predict", "/models/%2e%2e%2fetc/predict", "/models/a%00b/predict", "/models//predict"):
        yield of(path, post(path, body), 404, 405)
    for path in ("/models/%ff", "/models/" + "x" * 9000, "/../../etc/passwd", "/models/toy/versions/-1", "/%"):
        yield of(path[:30], get(path), 404, 405)


def _lines(body: bytes) -> Iterator[Hostile]:
    """Yield what is not HTTP as it should be."""
    head = b"POST /predict HTTP/1.1\r\nHost: soak\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    for name, request in {
        "a length below zero": head + b"Content-Length: -1\r\n\r\n" + body,
        "a length that is text": head + b"Content-Length: all\r\n\r\n" + body,
        "a length with a sign": head + b"Content-Length: +1\r\n\r\n" + body,
        "a length in hexadecimal": head + b"Content-Length: 0x10\r\n\r\n" + body,
        "two numbers for a length": head + b"Content-Length: 1 1\r\n\r\n" + body,
        "a list for a length": head + b"Content-Length: 1, 1\r\n\r\n" + body,
        "a length said twice alike": head + length + length + b"\r\n" + body,
        "two lengths": head + length + b"Content-Length: 1\r\n\r\n" + body,
        "a length of many digits": head + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + body,
        "a length and chunks": head + length + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunks and a length": head + b"Transfer-Encoding: chunked\r\n" + length + b"\r\n0\r\n\r\n",
        "chunks and a length after a space": head + b"Transfer-Encoding : chunked\r\n" + length + b"\r\n0\r\n\r\n",
        "chunks that are no chunks": head + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "chunks below what is said last": head + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "a chunk of a size below zero": head + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + body,
        "a chunk of more than 64 bits": head + b"Transfer-Encoding: chunked\r\n\r\n1" + b"0" * 16 + b"\r\n" + body,
        "a header on two lines": head + b"X-Odd: a\r\n b: c\r\n\r\n",
        "a space in a header's name": head + b"X Odd: a\r\n\r\n",
        "chunks without a size": head + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + body,
        "a header without a name": head + b": nobody\r\n\r\n",
        "a header with a NUL": head + b"X-Odd: a\0b\r\n\r\n",
        "a verb that is none": b"BREW /predict HTTP/1.1\r\nHost: soak\r\n\r\n",
        "no verb at all": b"\r\n\0\0\0\0\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a version that is none": b"GET / HTTP/9.9\r\n\r\n",
    }.items():
        yield Hostile(name, request, NOT_HTTP)
    yield of("headers without end", head + b"X-Long: " + b"x" * LONG, 431)
    yield of("headers that stop", head, 408)
    yield of("a chunk that ends too soon", head + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + body, 408)
    yield of(
        "chunks of one byte",
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
        200,
    )


def mutated(sound: bytes, rng: random.Random) -> bytes:
    """Return a body that is a sound one with a few bytes changed, dropped, doubled or moved."""
    body = bytearray(sound)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body))
        match rng.randrange(5):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randint(1, 8)]
            case 2:
                body[at:at] = rng.choice(TOKENS)
            case 3:
                body[at:at] = body[at : at + rng.randint(1, 40)]
            case _:
                body[at] ^= 1 << rng.randrange(8)
        if not body:
            body += b"0"
    return bytes(body)


TOKENS = (
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"',
    b"null",
    b"true",
    b"1e9",
    b"-",
    b"NaN",
    b'"inputs":',
    b'"time_steps":7,',
    b'"datatype":',
    b'"parameters":{},',
    b"\0",
)
