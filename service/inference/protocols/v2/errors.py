"""The error that only this protocol has. Where the native routes answer 422, the protocol answers 400."""

from __future__ import annotations

from http import HTTPStatus

from spikeserve.service.errors import ServiceError


class InvalidRequest(ServiceError):
    """A request that breaks the protocol, or does not fit the model."""

    status = HTTPStatus.BAD_REQUEST
