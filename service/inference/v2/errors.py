"""What only a request of this protocol can fail with; where the native routes say 422, it says 400."""

from __future__ import annotations

from http import HTTPStatus

from service.errors import ServiceError


class InvalidRequest(ServiceError):
    """A request that does not keep to the protocol, or that the model does not take."""

    status = HTTPStatus.BAD_REQUEST


class UnknownEncoding(ServiceError):
    """A body that is compressed in a way that is not known here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
