"""Requests for the Open Inference Protocol's other paths that no decent client sends, each with its statuses.

They ask to load and unload models, but never one that there is.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

from benchmarks.soak.client import get, post, request
from benchmarks.soak.hostile import FINE, LONG, TOO_LARGE, Hostile, of

WRONG, NONE, NOT_SO = 400, 404, 405  # the statuses of a wrong body, of what there is not, and of a wrong verb

# Names of models that nobody serves, as they stand in a path.
NAMES = (
    ".",
    "..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2Fetc%2Fpasswd",
    "..%5c..%5cwindows",
    "C:%5C",
    "%252e%252e",
    "%00",
    "a%00b",
    "a%0d%0aX-Odd:%20b",
    "%ff%fe",
    "%ed%a0%80",
    "%F0%9F%A7%A0",
    "%E2%80%AE",
    "%20",
    "%",
    "%zz",
    "*",
    "~",
    "-",
    "{name}",
    "${jndi:ldap:x}",
    "'%20OR%201=1",
    "<script>",
    "nobody;v=1",
    "x" * 300,
    "x" * 9000,
    "%2e" * 3000,
)
VERSIONS = ("0", "-1", "01", "+1", "1.0", "1e0", "latest", "%31%00", "%EF%BC%91", "9" * 20, "9" * 5000, "..", "%2e%2e")


def hostile_control(model: str) -> list[Hostile]:
    """Return every kind; `model` is one that there is."""
    return [*_names(), *_versions(model), *_index(), *_bodies(), *_verbs(model)]


def _names() -> Iterator[Hostile]:
    for name in NAMES:
        for last in ("/load", "/unload"):
            yield of(f"v2 {last} {_short(name)}", post(f"/v2/repository/models/{name}{last}", b"{}"), NONE)
        yield of(f"v2 /infer {_short(name)}", post(f"/v2/models/{name}/infer", b"{}"), NONE)
        for last in ("", "/ready", "/config", "/stats", "/versions/1", "/versions/1/config"):
            yield of(f"v2 {last} {_short(name)}", get(f"/v2/models/{name}{last}"), NONE)
    for path in ("/v2/repository/models//load", "/v2/repository/models/load", "/v2/repository/models/a/b/load"):
        yield of(path, post(path, b"{}"), NONE)
    for path in ("/v2/models//ready", "/v2/models//config", "/v3", "/v2/nothing", "/v2/health", "/v2/health/odd"):
        yield of(path, get(path), NONE)


def _versions(model: str) -> Iterator[Hostile]:
    for version in VERSIONS:
        for last in ("", "/ready", "/config", "/stats"):
            yield of(f"v2 version {_short(version)}{last}", get(f"/v2/models/{model}/versions/{version}{last}"), NONE)
        path = f"/v2/models/{model}/versions/{version}/infer"
        yield of(f"v2 version {_short(version)}/infer", post(path, b"{}"), NONE)


def _index() -> Iterator[Hostile]:
    path = "/v2/repository/index"
    for body in (b"", b" \n", b"{}", b'{"ready": true}', b'{"ready": false}'):
        yield of(f"v2 index {body.decode()!r}", post(path, body), FINE)
    for odd in (
        b"[]",
        b"null",
        b"1",
        b'"ready"',
        b"{",
        b'{"ready": "yes"}',
        b'{"ready": 1}',
        b'{"ready": null}',
        b'{"ready": true, "ready": false}',
        b'{"repository_name": "../.."}',
        b"[" * 50_000,
        b'{"ready":' * 5_000,
        b"\xff\xfe",
        bytes(1000),
        gzip.compress(b"{}", mtime=0),
        b'{"ready": ' + b"9" * 50_000 + b"}",
        b'{"ready": NaN}',
    ):
        yield of(f"v2 index {odd[:24]!r} of {len(odd)}", post(path, odd), WRONG)
    yield of("v2 index: a long body", post(path, b" " * LONG), TOO_LARGE)


def _bodies() -> Iterator[Hostile]:
    """Yield what is said beside a name that there is not: what is wrong with the body comes first."""
    files = {"file:1/model.onnx": "AAAA", "file:../../x": "AAAA"}
    for last, odd in (
        ("load", b"[]"),
        ("load", b"null"),
        ("load", b"{"),
        ("load", b"[" * 50_000),
        ("load", json.dumps({"parameters": {"config": '{"backend": "python"}'}}).encode()),
        ("load", json.dumps({"parameters": files}).encode()),
        ("load", json.dumps({"parameters": 1}).encode()),
        ("load", json.dumps({"model": "x"}).encode()),
        ("unload", b"[]"),
        ("unload", json.dumps({"parameters": {"unload_dependents": "yes"}}).encode()),
        ("unload", json.dumps({"parameters": {"force": True}}).encode()),
        ("unload", b'{"parameters": {}, "parameters": {}}'),
    ):
        path = f"/v2/repository/models/nobody/{last}"
        yield of(f"v2 {last} with {odd[:40]!r}", post(path, odd), WRONG)
    for last in ("load", "unload"):
        path = f"/v2/repository/models/nobody/{last}"
        yield of(f"v2 {last} without a body", post(path, b""), NONE)
        yield of(f"v2 {last} with a long body", post(path, b" " * LONG), TOO_LARGE)


def _verbs(model: str) -> Iterator[Hostile]:
    """Yield verbs that a path does not have. HEAD has no place here, whose answer has a length and no body."""
    for path, own in {
        f"/v2/models/{model}/infer": "POST",
        f"/v2/models/{model}": "GET",
        f"/v2/models/{model}/config": "GET",
        f"/v2/models/{model}/stats": "GET",
        "/v2/repository/index": "POST",
        f"/v2/repository/models/{model}/load": "POST",
        f"/v2/repository/models/{model}/unload": "POST",
        "/v2/health/ready": "GET",
        "/v2": "GET",
    }.items():
        for verb in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"):
            if verb != own:
                yield of(f"{verb} {path}", request(verb, path, b"{}"), NOT_SO)


def _short(text: str) -> str:
    return text if len(text) < 40 else f"{text[:8]}… of {len(text)} bytes"
