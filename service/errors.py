"""The errors of a request, as one tree. Each carries its HTTP status; its message is the sentence in the answer.

ServiceError
├── MalformedBody     400  a body that is not JSON, or an object that names a field twice
├── MalformedHeader   400  a header with an invalid value
├── LoadFailed        400  a version that cannot be loaded
│   └── EngineFailed       … by this engine, which another one may load
├── ModelNotFound     404  an unknown model or version
├── BodyTooSlow       408  a body that takes longer to arrive than the settings allow
├── TooLarge          413  more bytes, samples or work than the limits allow
├── UnsupportedMedia  415  a Content-Type or Content-Encoding that the route does not take
├── Unexpected        500  an error of the server's own, which only the log tells
├── NotReady          503  a model that is loading or failed to load, or a worker that does not answer
├── Overloaded        503  a full queue, or a full memory budget
├── ShuttingDown      503  a server that drains
└── DeadlineExceeded  504  a request whose time ran out before its answer

`models.errors.InvalidInput` is answered 422. The middleware for keys answers 401 and 403, the one for origins 403.
Misconfigured is no request's error: it stops the server from starting.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from spikeserve.models.errors import SpikeserveError

RETRY_AFTER_SECONDS = 2
NOT_ENDED = "the server is shutting down and could not wait for this request to end"
MAX_SHOWN = 60  # characters of a client's value that a sentence repeats

_AS_JSON: Mapping[str, str] = {
    "None": "null", "True": "true", "False": "false", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"
}  # fmt: skip


class Misconfigured(SpikeserveError):
    """Settings that the server cannot start with."""


class ServiceError(SpikeserveError):
    """An error of a request, with its HTTP status."""

    status: ClassVar[HTTPStatus]
    headers: ClassVar[Mapping[str, str]] = {}


class MalformedBody(ServiceError):
    """A body that is not JSON, or in which an object names a field twice."""

    status = HTTPStatus.BAD_REQUEST


class MalformedHeader(ServiceError):
    """A header with an invalid value."""

    status = HTTPStatus.BAD_REQUEST


class LoadFailed(ServiceError):
    """A version that cannot be loaded; the message says why."""

    status = HTTPStatus.BAD_REQUEST


class EngineFailed(LoadFailed):
    """A version that these engines cannot run within the limits; another engine may."""


class ModelNotFound(ServiceError):
    """An unknown model or version."""

    status = HTTPStatus.NOT_FOUND


class BodyTooSlow(ServiceError):
    """A body that did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class TooLarge(ServiceError):
    """More than a limit allows; the message names the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMedia(ServiceError):
    """A Content-Type or Content-Encoding that the route does not take."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class NotReady(ServiceError):
    """A model that is loading or failed to load, or a worker that does not answer."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class Overloaded(ServiceError):
    """A model's queue is full, or the memory budget of all bodies is."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


def queue_full(model: str, waiting: int) -> Overloaded:
    """Return the error of a request that finds `waiting` others of its model before it."""
    return Overloaded(f"model '{model}' has {waiting} requests waiting, expected fewer than max_queue")


class ShuttingDown(ServiceError):
    """A server that drains: it finishes its requests and accepts no new ones."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class DeadlineExceeded(ServiceError):
    """A request whose time ran out before its answer."""

    status = HTTPStatus.GATEWAY_TIMEOUT


def late(model: str) -> DeadlineExceeded:
    """Return the error of a request that a model did not answer in time."""
    return DeadlineExceeded(f"model '{model}' did not answer within the time that the request had")


class Unexpected(ServiceError):
    """An error of the server's own, which only the log tells."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, request_id: bytes) -> None:
        super().__init__(f"something went wrong here; the log has it as request {request_id.decode()}")


def shown(value: object) -> str:
    """Write a client's value as JSON, on one line of bounded length."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return cut(f"'{value}'" if isinstance(value, str) else _AS_JSON.get(repr(value), repr(value)))


def cut(text: str) -> str:
    """Return the text, cut to MAX_SHOWN characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
