"""A session's state as text that a client takes along, and goes on with on any replica that serves the same bundle.

    4 bytes    "SPKS"                              8 bytes   microseconds at which its next window begins, or NEVER
    2 bytes    the version of this format          4 bytes   the number of classes, and that many
    2 bytes    0                                   float64   scores that decay, see `Reading.DECAY`
    8 bytes    the number of its next window       …         the state of the run, see `models.engines.blob`
                                                   32 bytes  HMAC-SHA256 of all before, where the server has keys

all little-endian, and as a whole in base64. What a client brings is checked before it is used, so a forged state can do
no more than give its client a wrong answer. With keys, only a server with the same keys accepts it: the secret is made
of the digests of all keys, which no client knows unless it has every key.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from asyncio import to_thread
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import TypedDict

import numpy as np

from models.engines.blob import from_bytes, most_bytes, to_bytes
from models.engines.state import State
from models.errors import InvalidInput
from service.inference.sessions.session import Session

MAGIC, VERSION = b"SPKS", 1
HEADER = struct.Struct("<4sHHQqI")
NEVER = -(2**63)  # before the first event
SIGNATURE_BYTES = 32
LONG_BYTES = 2**18  # a longer state is written and read on a thread
MAX_NUMBER = 2**62


class Told(TypedDict):
    """A state as a line holds it."""

    window: int
    t: int | None
    state: str


class Blobs:
    """Writes and reads states. `secret` signs them, unless it is empty."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    async def told(self, session: Session) -> Told:
        """Return the state at the end of the last window that was answered."""
        state, large = session.state, session.size > LONG_BYTES
        text = await to_thread(self._written, session, state) if large else self._written(session, state)
        return {"window": session.answered, "t": session.answered_until, "state": text}

    async def restore(self, session: Session, text: str) -> None:
        """Let a new session go on from a state. Raises InvalidInput."""
        own = HEADER.size + 8 * session.spec.classes + SIGNATURE_BYTES
        most = -(-(own + most_bytes(session.model.network)) // 3) * 4
        if len(text) > most:
            raise InvalidInput(f"state: has {len(text)} characters, expected at most {most} for this model")
        large = len(text) > LONG_BYTES
        await to_thread(self._read, session, text) if large else self._read(session, text)

    def _written(self, session: Session, state: State | None) -> str:
        state = State.rest(session.model.network, 1) if state is None else state
        until = NEVER if session.answered_until is None else session.answered_until
        header = HEADER.pack(MAGIC, VERSION, 0, session.answered, until, len(session.decayed))
        content = header + session.decayed.astype("<f8").tobytes() + to_bytes(state, session.model.bundle.digest)
        return b64encode(content + self._signature(content)).decode()

    def _read(self, session: Session, text: str) -> None:
        try:
            content = b64decode(text, validate=True)
        except binascii.Error:
            raise InvalidInput("state: is not base64, expected what a line of type state holds") from None
        content = self._checked(content)
        if len(content) < HEADER.size or content[: len(MAGIC)] != MAGIC:
            raise InvalidInput("state: is no session's state, expected what a line of type state holds")
        _, version, _, number, until, classes = HEADER.unpack_from(content)
        if version != VERSION:
            raise InvalidInput(f"state: has format {version}, expected {VERSION}")
        if (
            classes != session.spec.classes
            or not number < MAX_NUMBER
            or not (until == NEVER or 0 <= until < MAX_NUMBER)
        ):
            raise InvalidInput("state: is damaged, expected it as it was sent")
        end = HEADER.size + 8 * classes
        decayed = np.frombuffer(content[HEADER.size : end], "<f8").astype(np.float64)
        if len(decayed) != classes or not (np.isfinite(decayed) & (decayed >= 0)).all():
            raise InvalidInput("state: is damaged, expected it as it was sent")
        state = from_bytes(content[end:], session.model.network, session.model.bundle.digest)
        session.go_on(state, int(number), None if until == NEVER else int(until), decayed)

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self.secret, content, "sha256") if self.secret else b""

    def _checked(self, content: bytes) -> bytes:
        """Return a state without its signature; raises InvalidInput where that is wrong."""
        if not self.secret:
            return content
        content, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(content)):
            raise InvalidInput("state: was not signed by a server with the keys of this one")
        return content


def secret_of(digests: tuple[bytes, ...]) -> bytes:
    """Return what signs states, from the digests of all keys; empty where there are none."""
    return sha256(b"spikeserve session state\0" + b"".join(sorted(digests))).digest() if digests else b""
