"""Who may ask: API keys, which this service knows only by their SHA-256.

A plain hash is enough, and a slow one would only help those who want to keep the server busy: a key is 256 random bits
and no password, so that there is nothing to guess. `python -m service new-key` makes one and prints it with its
digest.

With client keys set, every path needs `Authorization: Bearer <key>` but those of `OPEN` and `SHOWN`; with admin keys
set, every path of `CONTROL` needs one of those. An admin key opens what a client key opens. Where only client keys are
set, the control paths are closed: whoever wants keys does not want strangers to unload models.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Misconfigured
from service.http import docs
from service.http.errors import error_response
from service.settings import Settings

# What an orchestrator's probes ask; it says nothing but whether the process is up and ready.
OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
# Where people type their key in; it is the same for every server of this version, and names no model.
SHOWN = frozenset({"/", docs.PATH, docs.DOCUMENT})
METRICS = "/metrics"
CONTROL = ("/v2/repository",)  # these paths and all below them decide what is served

AUTHORIZATION = b"authorization"
BEARER = b"bearer "
CHALLENGE = {"WWW-Authenticate": "Bearer"}

_DIGEST = re.compile(r"sha256:([0-9A-Fa-f]{64})")


def is_control(path: str) -> bool:
    """Return whether a path decides what is served, and so takes an admin key."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in CONTROL)


@dataclass(frozen=True)
class KeyRing:
    """The SHA-256 digests of the keys of clients and of admins; none of a kind means that none is asked for."""

    clients: tuple[bytes, ...] = ()
    admins: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the keys that are set; raises Misconfigured, whose sentence never holds what was set."""
        return cls(
            tuple(_digests("api_keys", settings.api_keys, settings.api_keys_file)),
            tuple(_digests("admin_keys", settings.admin_keys, settings.admin_keys_file)),
        )

    def __bool__(self) -> bool:
        return bool(self.clients or self.admins)

    def is_admin(self, key: bytes) -> bool:
        """Return whether an admin has this key."""
        return _holds(self.admins, key)

    def is_client(self, key: bytes) -> bool:
        """Return whether a client has this key, or an admin."""
        return _holds((*self.clients, *self.admins), key)


class KeyCheck:
    """Middleware that answers 401 or 403 in the app's stead where a request lacks the key that its path takes."""

    def __init__(self, app: ASGIApp, keys: KeyRing, *, public_metrics: bool) -> None:
        self.app = app
        self.keys = keys
        self.open = OPEN | SHOWN | ({METRICS} if public_metrics else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it may go on."""
        refused = self._refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.app(scope, receive, send)
            return
        status, sentence = refused
        headers = CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}
        await error_response(status, sentence, headers)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        path = scope["path"]
        control = is_control(path)
        is_open = path in self.open or path.startswith(f"{docs.FILES}/")
        if not control and (is_open or not self.keys.clients):
            return None
        key = _key(scope)
        if key is None:
            kind = "an admin key" if control else "a key"
            return HTTPStatus.UNAUTHORIZED, f"this path takes {kind}, expected the header Authorization: Bearer <key>"
        if control and self.keys.is_admin(key):
            return None
        if not self.keys.is_client(key):
            return HTTPStatus.UNAUTHORIZED, "the key in the header Authorization is not one that this server knows"
        if control:
            return HTTPStatus.FORBIDDEN, "the key in the header Authorization is a client's, expected an admin's"
        return None


def is_loopback(host: str) -> bool:
    """Return whether an address that was bound is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _key(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == AUTHORIZATION and value[: len(BEARER)].lower() == BEARER:
            return bytes(value[len(BEARER) :]).strip()
    return None


def _holds(digests: Iterable[bytes], key: bytes) -> bool:
    """Compare with every digest, each in a time that does not hang on where they differ."""
    digest = sha256(key).digest()
    found = False
    for each in digests:
        found |= hmac.compare_digest(each, digest)
    return found


def _digests(name: str, listed: str | None, file: Path | None) -> Iterator[bytes]:
    """Read digests, `sha256:<64 hexadecimal digits>` each: separated by commas, or one a line with # for comments."""
    if listed is not None:
        for index, entry in enumerate(listed.split(",")):
            yield _digest(entry, f"{name}[{index}]")
    if file is not None:
        yield from _in_file(f"{name}_file", file)


def _in_file(name: str, file: Path) -> Iterator[bytes]:
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{name}: '{file}' cannot be read: {getattr(error, 'strerror', 'it is not text')}"
        ) from error
    if not any(lines):
        raise Misconfigured(f"{name}: '{file}' holds no key, expected a line sha256:<64 hexadecimal digits> for each")
    for number, line in enumerate(lines, start=1):
        if line:
            yield _digest(line, f"{name}: line {number}")


def _digest(entry: str, where: str) -> bytes:
    match = _DIGEST.fullmatch(entry.strip())
    if match is None:
        # The entry itself may be a key that somebody forgot to hash: it is not repeated.
        raise Misconfigured(
            f"{where} is not a digest, expected sha256:<64 hexadecimal digits>; `python -m service new-key` makes them"
        )
    return bytes.fromhex(match[1])


def new_key() -> tuple[str, str]:
    """Return a new key of 256 random bits, and its digest as the settings take it."""
    key = secrets.token_urlsafe(32)
    return key, f"sha256:{sha256(key.encode()).hexdigest()}"
