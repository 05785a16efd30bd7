"""Responses: an answer in one or more pieces, and every error as one JSON object, `{"error": "<one sentence>"}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spikeserve.models.errors import InvalidInput
from spikeserve.service.errors import ServiceError, shown
from spikeserve.service.inference.scheduling.answer import Content


class PiecesResponse(Response):
    """Sends each piece once the client has read most of those before, so that the connection buffers one at a time.

    Starlette's own response would encode the headers again for every answer.
    """

    def __init__(self, content: Content) -> None:
        self.pieces = [content.body, *content.more]
        length = b"content-length: %d" % sum(map(len, self.pieces))
        lines = [*content.headers.splitlines(), length, *content.lines.splitlines()]
        self.raw_headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        self.background = None  # FastAPI looks for it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the answer."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        pieces, self.pieces = self.pieces[::-1], []
        while pieces:
            piece = pieces.pop()  # a sent piece is freed
            await send({"type": "http.response.body", "body": piece, "more_body": bool(pieces)})


def error_body(sentence: str) -> bytes:
    """Return an error's JSON in UTF-8; a lone surrogate, which UTF-8 cannot hold, is escaped."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode(errors="backslashreplace")


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with that JSON."""
    return Response(error_body(sentence), status, headers, media_type="application/json")


def install_handlers(app: FastAPI) -> None:
    """Have `app` answer our exceptions and the router's with that JSON."""
    for kind in (ServiceError, InvalidInput, HTTPException):
        app.add_exception_handler(kind, _answer)


def invalid_at(path: str) -> HTTPStatus:
    """Return the status of an invalid input: where the native routes say 422, the protocol v2 says 400."""
    return HTTPStatus.BAD_REQUEST if path.startswith("/v2/") else HTTPStatus.UNPROCESSABLE_ENTITY


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case ServiceError():
            return error_response(error.status, str(error), error.headers)
        case InvalidInput():
            return error_response(invalid_at(request.url.path), str(error))
        case HTTPException():
            headers = dict(error.headers or {})
            if "Allow" in headers:
                headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))  # a route's methods are a set
            return error_response(error.status_code, _routing_error(request, error, headers), headers)
    raise error


def _routing_error(request: Request, error: HTTPException, headers: Mapping[str, str]) -> str:
    path = shown(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {path}; /docs lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "another method")
        return f"method {shown(request.method)} is not allowed on {path}, expected {allowed}"
    return error.detail
