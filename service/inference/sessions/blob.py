"""A session's state as text that a client takes along, and goes on with on any replica that serves the same bundle.

    4 bytes    "SPKS"                              8 bytes   microseconds at which its next window begins, or NEVER
    2 bytes    the version of this format          4 bytes   the number of classes, and that many
    2 bytes    0                                   float64   scores that decay, see `Reading.DECAY`
    8 bytes    the number of its next window       8 bytes   late events that no window told of; not in version 1
                                                   …         the state of the run, see `models.engines.blob`
                                                   32 bytes  HMAC-SHA256 of all before, where the server has keys

all little-endian, and as a whole in base64. States of version 1 may be kept somewhere, and are read. What a client
brings is checked before it is used, so a forged state can do no more than give its client a wrong answer. With keys,
only a server with the same keys accepts it: the secret is made of the digests of all keys, which no client knows unless
it has every key.
"""

from __future__ import annotations

import hmac
import struct
from asyncio import to_thread
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import numpy as np

from spikeserve.models.engines.blob import from_bytes, most_bytes, to_bytes
from spikeserve.models.engines.state import State
from spikeserve.models.errors import InvalidInput
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.sessions.session import Session, SessionState

MAGIC, VERSION = b"SPKS", 2
HEADER = struct.Struct("<4sHHQqI")
LATE = struct.Struct("<Q")
NEVER = -(2**63)  # before the first event
SIGNATURE_BYTES = 32
LONG_BYTES = 2**18  # a longer state is written and read on a thread
MAX_NUMBER = 2**62
DAMAGED = "state: is damaged, expected it as it was sent"


class Blobs:
    """Writes and reads states. `secret` signs them, unless it is empty."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    async def line(self, session: Session, reason: str | None = None) -> dict[str, Any]:
        """Return the line with the state after the last window that was answered, and why it is sent unasked.

        The events, or values, from `t` on are to be sent again; it is None before anything says when a window begins.
        """
        model, at = session.model, session.carried()
        large = model.state_bytes > LONG_BYTES
        text = await to_thread(self.write, model, at) if large else self.write(model, at)
        why = {} if reason is None else {"reason": reason}
        return {"type": "state", "window": at.number, "t": at.start, "state": text, **why}

    async def restore(self, session: Session, text: str) -> None:
        """Let a new session go on from a state. Raises InvalidInput."""
        model, large = session.model, len(text) > LONG_BYTES
        session.go_on(await to_thread(self.read, model, text) if large else self.read(model, text))

    def write(self, model: LoadedModel, at: SessionState) -> str:
        """Return a state as text. Raises InvalidInput for one from which no run could go on."""
        header = HEADER.pack(MAGIC, VERSION, 0, at.number, NEVER if at.start is None else at.start, len(at.decayed))
        own = header + at.decayed.astype("<f8").tobytes() + LATE.pack(at.late)
        state = State.rest(model.network, 1) if at.state is None else at.state
        content = own + to_bytes(state, model.bundle.digest)
        return b64encode(content + self._signature(content)).decode()

    def read(self, model: LoadedModel, text: str) -> SessionState:
        """Read a text that a server wrote for the same bundle. Raises InvalidInput."""
        most = most_characters(model)
        if len(text) > most:
            raise InvalidInput(f"state: has {len(text)} characters, expected at most {most} for this model")
        try:
            content = b64decode(text, validate=True)
        except ValueError:  # also for characters that are not ASCII
            raise InvalidInput("state: is not base64, expected what a line of type state holds") from None
        if self.secret:
            content, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._signature(content)):
                raise InvalidInput("state: was not signed by a server with the keys of this one")
        if len(content) < HEADER.size or content[: len(MAGIC)] != MAGIC:
            raise InvalidInput("state: is no session's state, expected what a line of type state holds")
        spec = model.network.spec
        _, version, _, number, start, classes = HEADER.unpack_from(content)
        if version not in (1, VERSION):
            raise InvalidInput(f"state: has format {version}, expected 1 or {VERSION}")
        end = HEADER.size + 8 * classes
        begin = end + LATE.size if version == VERSION else end
        if classes != spec.classes or len(content) < begin:
            raise InvalidInput(DAMAGED)
        (late,) = LATE.unpack_from(content, end) if version == VERSION else (0,)
        in_range = max(number, late) < MAX_NUMBER and (start == NEVER or 0 <= start < MAX_NUMBER)
        decayed = np.frombuffer(content[HEADER.size : end], "<f8").astype(np.float64)
        if not in_range or not (np.isfinite(decayed) & (decayed >= 0)).all():
            raise InvalidInput(DAMAGED)
        state = from_bytes(content[begin:], model.network, model.bundle.digest)
        return SessionState(state, number, None if start == NEVER else start, decayed, late)

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self.secret, content, "sha256") if self.secret else b""


def most_characters(model: LoadedModel) -> int:
    """Return the most characters of a state of a model. Raises InvalidInput for one that has no state."""
    own = HEADER.size + 8 * model.network.spec.classes + LATE.size + SIGNATURE_BYTES
    return -(-(own + most_bytes(model.network)) // 3) * 4


def secret_of(digests: tuple[bytes, ...]) -> bytes:
    """Derive the secret that signs states from the digests of all keys; empty where there are none."""
    return sha256(b"spikeserve session state\0" + b"".join(sorted(digests))).digest() if digests else b""
