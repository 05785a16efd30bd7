"""API keys, which the server knows only by their SHA-256 digests.

A fast hash is enough: a key is 256 random bits, so it cannot be guessed as a password can, and a slow hash would only
let strangers keep the server busy. `spikeserve keys` makes a key and prints it with its digest. An admin key also works
as a client key. Where only client keys are set, what needs an admin's is closed to everybody.
"""

from __future__ import annotations

import hmac
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Self

from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings

AUTHORIZATION = b"authorization"
BEARER = b"bearer "

_DIGEST = re.compile(r"sha256:([0-9A-Fa-f]{64})")


@dataclass(frozen=True)
class KeyRing:
    """The SHA-256 digests of the keys of clients and of admins; where there are none, no key of that kind is needed."""

    clients: tuple[bytes, ...] = ()
    admins: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the digests from the settings. Raises Misconfigured, whose sentence never repeats a value."""
        return cls(tuple(_digests("api_keys", settings.api_keys)), tuple(_digests("admin_keys", settings.admin_keys)))

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


def bearer_key(value: bytes) -> bytes | None:
    """Return the key in the value of a header Authorization, or None if it has none."""
    return bytes(value[len(BEARER) :]).strip() if value[: len(BEARER)].lower() == BEARER else None


def new_key() -> tuple[str, str]:
    """Return a new key of 256 random bits, and its digest for the settings."""
    key = secrets.token_urlsafe(32)
    return key, f"sha256:{sha256(key.encode()).hexdigest()}"


def _holds(digests: Iterable[bytes], key: bytes) -> bool:
    """Compare a key with every digest, in constant time."""
    digest = sha256(key).digest()
    return sum(hmac.compare_digest(each, digest) for each in digests) > 0  # `any` would end at the first


def _digests(name: str, listed: str | None) -> Iterator[bytes]:
    """Read digests, `sha256:<64 hexadecimal digits>` each, separated by commas.

    An entry `@<file>` stands for those of a file, which has one a line and # for comments.
    """
    for index, entry in enumerate([] if listed is None else listed.split(",")):
        if entry.strip().startswith("@"):
            yield from _in_file(name, Path(entry.strip()[1:]))
        else:
            yield _digest(entry, f"{name}[{index}]")


def _in_file(name: str, file: Path) -> Iterator[bytes]:
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "it is not text")
        raise Misconfigured(f"{name}: '{file}' cannot be read: {why}") from error
    if not any(lines):
        raise Misconfigured(f"{name}: '{file}' holds no key, expected a line sha256:<64 hexadecimal digits> for each")
    for number, line in enumerate(lines, start=1):
        if line:
            yield _digest(line, f"{name}: line {number}")


def _digest(entry: str, where: str) -> bytes:
    if (match := _DIGEST.fullmatch(entry.strip())) is None:
        # The entry may be a key that somebody forgot to hash, so the sentence must not repeat it.
        raise Misconfigured(
            f"{where} is not a digest, expected sha256:<64 hexadecimal digits>; `spikeserve keys` makes them"
        )
    return bytes.fromhex(match[1])


USAGE = 2
MAX_NAME = 64  # characters of a key's name, which is a comment in the file
HELP = """\
usage: spikeserve keys [NAME]

Makes an API key of 256 random bits. The server is given its digest only, as a line of the file that --api-keys @FILE or
--admin-keys @FILE names; NAME is a comment there, which says whose key it is.
"""


def main(arguments: Sequence[str]) -> int:
    """Make a key, print it and its line, and return the exit status."""
    if arguments and arguments[0].startswith("-"):
        print(HELP, end="", file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else USAGE
    name = " ".join(arguments)
    if len(name) > MAX_NAME or not name.isprintable():
        print(
            f"spikeserve: NAME is {name[:MAX_NAME]!a}, expected at most {MAX_NAME} characters on one line",
            file=sys.stderr,
        )
        return USAGE
    key, digest = new_key()
    print(f"The key, for the client; it is shown only here:\n{key}")
    print(f"Its line in the file of --api-keys @FILE or --admin-keys @FILE:\n{digest}{f'  # {name}' if name else ''}")
    return 0
