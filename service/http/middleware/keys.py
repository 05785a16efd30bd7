"""API keys, which the server knows only by their SHA-256 digests.

A fast hash is enough: a key is 256 random bits, so it cannot be guessed as a password can, and a slow hash would only
let strangers keep the server busy. `spikeserve keys` makes a key and prints it with its digest.

When client keys are set, every path except `PROBES` and `PUBLIC_PAGES` needs `Authorization: Bearer <key>`; a browser's
WebSocket offers the subprotocols `spikeserve` and `spikeserve.key.<key>` instead. When admin
keys are set, every path under `CONTROL` needs an admin key. An admin key also works as a client key. When only client
keys are set, the control paths are closed to everybody, since no key is known to be an admin's.
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

from spikeserve.service.errors import Misconfigured
from spikeserve.service.http import docs, page
from spikeserve.service.http.errors import error_response
from spikeserve.service.inference.scheduling.sender import Sender
from spikeserve.service.settings import Settings

# For an orchestrator's probes; these tell only whether the process is up and ready.
PROBES = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
# Where people type their key in. These pages are the same for every server of a version, and name no model.
PUBLIC_PAGES = frozenset({"/", docs.PATH, docs.DOCUMENT})
METRICS = "/metrics"
CONTROL = ("/v2/repository",)  # these paths, and all below them, load and unload models

AUTHORIZATION = b"authorization"
BEARER = b"bearer "
SUBPROTOCOL = "spikeserve"  # of WebSockets; a browser offers it together with the one that holds its key
KEY_SUBPROTOCOL = "spikeserve.key."
CHALLENGE = {"WWW-Authenticate": "Bearer"}

_DIGEST = re.compile(r"sha256:([0-9A-Fa-f]{64})")


def is_control(path: str) -> bool:
    """Return whether a path loads or unloads models, and so needs an admin key."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in CONTROL)


@dataclass(frozen=True)
class KeyRing:
    """The SHA-256 digests of the keys of clients and of admins; where there are none, no key of that kind is needed."""

    clients: tuple[bytes, ...] = ()
    admins: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the digests from the settings. Raises Misconfigured, whose sentence never repeats a value."""
        return cls(
            tuple(_digests("api_keys", settings.api_keys, settings.api_keys_file)),
            tuple(_digests("admin_keys", settings.admin_keys, settings.admin_keys_file)),
        )

    def __bool__(self) -> bool:
        return bool(self.clients or self.admins)

    def is_admin(self, key: bytes) -> bool:
        """Return whether this is an admin's key."""
        return _holds(self.admins, key)

    def is_client(self, key: bytes) -> bool:
        """Return whether this is a client's or an admin's key."""
        return _holds((*self.clients, *self.admins), key)

    def refusal(self, key: bytes | None, *, control: bool) -> tuple[HTTPStatus, str] | None:
        """Return the status and the sentence for a request with this key, or None if it is allowed.

        `control` says that the request loads or unloads models, or lists them for that.
        """
        if not (self if control else self.clients):
            return None
        if key is None:
            kind = "an admin key" if control else "a key"
            return HTTPStatus.UNAUTHORIZED, f"this path takes {kind}, expected the header Authorization: Bearer <key>"
        if control and self.is_admin(key):
            return None
        if not self.is_client(key):
            return HTTPStatus.UNAUTHORIZED, "the key in the header Authorization is not one that this server knows"
        if control:
            return HTTPStatus.FORBIDDEN, "the key in the header Authorization is a client's, expected an admin's"
        return None


class KeyCheck:
    """Middleware that answers 401 or 403 where a request lacks the key that its path needs."""

    def __init__(self, app: ASGIApp, keys: KeyRing, *, public_metrics: bool) -> None:
        self.app = app
        self.keys = keys
        self.open = PROBES | PUBLIC_PAGES | ({METRICS} if public_metrics else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its key allows it."""
        refused = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self.app(scope, receive, send)
            return
        status, sentence = refused
        headers = CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}
        await error_response(status, sentence, headers)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        path = scope["path"]
        control = is_control(path)
        is_open = path in self.open or path.startswith((f"{docs.FILES}/", f"{page.FILES}/"))
        if not control and (is_open or not self.keys.clients):
            return None
        return self.keys.refusal(_key(scope), control=control)


def is_loopback(host: str) -> bool:
    """Return whether a bound address can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def bearer_key(value: bytes) -> bytes | None:
    """Return the key in the value of a header Authorization, or None if it has none."""
    return bytes(value[len(BEARER) :]).strip() if value[: len(BEARER)].lower() == BEARER else None


def sender_of(scope: Scope) -> Sender:
    """Return the sender of a request: its key, whether it is known or not, and the address that it came from."""
    host, port = scope.get("client") or ("", 0)
    return Sender(_key(scope) or b"", host, port)


def _key(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == AUTHORIZATION and (key := bearer_key(value)) is not None:
            return key
    # A page in a browser can set no header of a WebSocket but this one.
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(KEY_SUBPROTOCOL):
            return protocol.removeprefix(KEY_SUBPROTOCOL).encode()
    return None


def _holds(digests: Iterable[bytes], key: bytes) -> bool:
    """Compare a key with every digest, in constant time."""
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
        # The entry may be a key that somebody forgot to hash, so the sentence must not repeat it.
        raise Misconfigured(
            f"{where} is not a digest, expected sha256:<64 hexadecimal digits>; `spikeserve keys` makes them"
        )
    return bytes.fromhex(match[1])


def new_key() -> tuple[str, str]:
    """Return a new key of 256 random bits, and its digest as the settings take it."""
    key = secrets.token_urlsafe(32)
    return key, f"sha256:{sha256(key.encode()).hexdigest()}"
