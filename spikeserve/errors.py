"""What can go wrong, as one tree of exceptions.

SpikeserveError
├── InvalidEvents        events, samples or a file that cannot be sent
├── InvalidOption        a session has no option of that name
├── ConnectionLost       no answer: the server is not reached, or the connection broke too often
├── AnswerError          the server refused: `status` and `sentence`, as it said it
│   ├── InvalidRequest   400, 415 and 422: something about the request is wrong
│   │   └── TooLarge     413: more than a limit allows
│   ├── NoKey            401 and 403
│   ├── ModelNotFound    404
│   ├── TookTooLong      408 and 504: a deadline has passed
│   └── Unavailable      502 and 503: loading, overloaded or shutting down; `retry_after` in seconds
└── SessionError         an error ended a session: `sentence`, and the `state` before it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeserve.answers import SessionState

MAX_SENTENCE = 500  # characters of a body that is no error of the server's, but a proxy's


class SpikeserveError(Exception):
    """Any error of this client."""


class InvalidEvents(SpikeserveError, ValueError):
    """Events, samples or a file that cannot be sent."""


class InvalidOption(SpikeserveError, TypeError):
    """A session has no option of that name."""


class ConnectionLost(SpikeserveError, ConnectionError):
    """The server was not reached, or the connection broke more often than is tried again."""


class AnswerError(SpikeserveError):
    """An answer other than 200: its HTTP status, and the server's sentence."""

    def __init__(self, status: int, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after  # seconds


class InvalidRequest(AnswerError):
    """Something about the request is wrong."""


class TooLarge(InvalidRequest):
    """The request is larger than a limit of the server allows."""


class NoKey(AnswerError):
    """The server wants a key, or another one."""


class ModelNotFound(AnswerError):
    """The server has no such model or version."""


class TookTooLong(AnswerError):
    """A deadline passed before the answer."""


class Unavailable(AnswerError):
    """The server is loading, overloaded or shutting down."""


class SessionError(SpikeserveError):
    """The server ended a session by an error, or windows were lost; `state` is one before it, to go on from."""

    def __init__(self, sentence: str, state: SessionState | None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.state = state


BY_STATUS: Mapping[int, type[AnswerError]] = {
    **dict.fromkeys((400, 415, 422), InvalidRequest),
    **dict.fromkeys((401, 403), NoKey),
    **{404: ModelNotFound, 413: TooLarge},
    **dict.fromkeys((408, 504), TookTooLong),
    **dict.fromkeys((502, 503), Unavailable),
}


def answer_error(status: int, headers: Mapping[str, str], body: bytes) -> AnswerError:
    """Return the error of an answer; a body that is not the server's own is shown as it is."""
    try:
        sentence = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        sentence = body[:MAX_SENTENCE].decode(errors="replace").strip() or "an answer without a body"
    try:
        retry_after = float(headers["retry-after"])
    except (LookupError, ValueError):
        retry_after = None
    return BY_STATUS.get(status, AnswerError)(status, sentence, retry_after)
