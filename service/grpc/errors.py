"""Errors as gRPC has them: the sentence that HTTP would answer, with a status code for its status.

A client that should try again later is told after how many milliseconds, by the trailing metadata that gRPC's own
retries follow.
"""

from __future__ import annotations

from http import HTTPStatus

from grpc import StatusCode

from spikeserve.models.errors import InvalidInput, SpikeserveError
from spikeserve.service.errors import ServiceError

RETRY = "grpc-retry-pushback-ms"

CODES = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
}


class Refused(ServiceError):
    """A request without the key that it needs."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status  # type: ignore[misc]  # one class for 401 and 403, which HTTP's middleware answers itself


def status_of(error: SpikeserveError) -> HTTPStatus:
    """Return the HTTP status of an error of a request; where native routes say 422, the protocol says 400."""
    if isinstance(error, InvalidInput):
        return HTTPStatus.BAD_REQUEST
    return error.status if isinstance(error, ServiceError) else HTTPStatus.INTERNAL_SERVER_ERROR


def trailers(error: SpikeserveError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of an error: when to try again, if its HTTP headers say so."""
    seconds = error.headers.get("Retry-After") if isinstance(error, ServiceError) else None
    return () if seconds is None else ((RETRY, str(1000 * int(seconds))),)
