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

`models.errors.InvalidInput` answers 422. Before a request gets this far, `service.http.keys` answers 401 and 403, and
`service.http.origins` 403.
Misconfigured never meets a request: it stops the server from starting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from models.errors import InvalidInput, SpikeserveError
from service.faults import shown

RETRY_AFTER_SECONDS = 2


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


def error_body(sentence: str) -> bytes:
    """Return the one form that every error has, in UTF-8; only half a surrogate pair, which that lacks, is escaped."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode(errors="backslashreplace")


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in that form."""
    return Response(error_body(sentence), status, headers, media_type="application/json")


def install_handlers(app: FastAPI) -> None:
    """Have `app` answer each of the exceptions above, and the router's own, in that form."""
    for kind in (ServiceError, InvalidInput, HTTPException):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case ServiceError():
            return error_response(error.status, str(error), error.headers)
        case InvalidInput():
            return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case HTTPException():
            headers = dict(error.headers or {})
            if "Allow" in headers:
                headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))  # a route's methods are a set
            return error_response(error.status_code, _routing_fault(request, error, headers), headers)
    raise error


def _routing_fault(request: Request, error: HTTPException, headers: Mapping[str, str]) -> str:
    path = shown(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {path}; /docs lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "another method")
        return f"method {shown(request.method)} is not allowed on {path}, expected {allowed}"
    return error.detail
