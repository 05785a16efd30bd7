"""What a request can fail with, one tree; each carries its HTTP status, and its message is the body's one sentence.

ServiceError
├── MalformedBody     400  not JSON, or a name said twice in one object
├── MalformedHeader   400  a header that is not what it should be
├── LoadFailed        400  a version that was to be loaded and could not be
├── ModelNotFound     404  a model or version that is not served here
├── BodyTooSlow       408  a body that takes longer to arrive than the settings allow
├── TooLarge          413  more bytes, samples or work than the limits allow
├── NotReady          503  a model that is still loading or could not be loaded, or a worker that is silent
├── Overloaded        503  more requests wait than the queue may hold, or more bytes than all may have
├── ShuttingDown      503  a server that finishes what it has and takes nothing new
└── DeadlineExceeded  504  no answer within the time that the request had

`models.errors.InvalidInput` answers 422. The middleware for keys answers 401 and 403, the one for origins 403.
Misconfigured never meets a request: it stops the server from starting.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from models.errors import SpikeserveError

RETRY_AFTER_SECONDS = 2
LONGEST_SHOWN = 60  # characters of a client's value that a sentence repeats

_AS_JSON: Mapping[str, str] = {
    "None": "null", "True": "true", "False": "false", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"
}  # fmt: skip


class Misconfigured(SpikeserveError):
    """Settings that no server can start with."""


class ServiceError(SpikeserveError):
    """A request that gets no answer."""

    status: ClassVar[HTTPStatus]
    headers: ClassVar[Mapping[str, str]] = {}


class MalformedBody(ServiceError):
    """A body that is not one JSON value."""

    status = HTTPStatus.BAD_REQUEST


class MalformedHeader(ServiceError):
    """A header with a value that it cannot have."""

    status = HTTPStatus.BAD_REQUEST


class LoadFailed(ServiceError):
    """A version that was to be loaded and could not be; the message says why."""

    status = HTTPStatus.BAD_REQUEST


class ModelNotFound(ServiceError):
    """A model or version that is not served here."""

    status = HTTPStatus.NOT_FOUND


class BodyTooSlow(ServiceError):
    """A body that did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class TooLarge(ServiceError):
    """More than a limit allows; the message names the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class NotReady(ServiceError):
    """A model that is still loading, or could not be loaded, or workers that cannot act as one."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class Overloaded(ServiceError):
    """More requests wait for a model than its queue may hold, or their bodies have more bytes than all may have."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class ShuttingDown(ServiceError):
    """A server that was told to stop."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class DeadlineExceeded(ServiceError):
    """A request that had less time than its answer would have taken."""

    status = HTTPStatus.GATEWAY_TIMEOUT


def shown(value: object) -> str:
    """Write a client's value as JSON has it, on one line of bounded length."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return cut(f"'{value}'" if isinstance(value, str) else _AS_JSON.get(repr(value), repr(value)))


def cut(text: str) -> str:
    """Return the text, or as much of it as a sentence repeats."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
