"""Around every request: its id, its line in the log, its metrics, and a 500 where nobody caught what went wrong.

A server whose grace period is over cancels the requests that are left: each is answered 503.
"""

from __future__ import annotations

import re
import uuid
from asyncio import CancelledError
from http import HTTPStatus
from time import perf_counter

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.catalog.registry import Registry
from service.errors import ShuttingDown, error_response
from service.telemetry.metrics.app import Metrics

REQUEST_ID = b"x-request-id"
LOGGED = "spikeserve.logged"  # where a request's scope holds what its line in the log shall also say
ANSWERED = "spikeserve.answered"  # where a request's scope holds the answer that a model gave
UNMATCHED = "unmatched"  # the route of a path that there is not
CLIENT_GONE = 499  # as nginx logs a client that hung up; nobody is left to be told

_PLAIN_WORD = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Access:
    """Middleware that sees a request first and its answer last."""

    def __init__(self, app: ASGIApp, metrics: Metrics, registry: Registry) -> None:
        self.app = app
        self.requests, self.models = metrics.requests, metrics.models
        self.registry = registry
        self.log = structlog.get_logger().bind()  # now, since it would look up its configuration at every line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a dict in its scope for what the log shall say of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope[LOGGED] = {}
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
            await send(message)

        started = perf_counter()
        self.requests.in_flight += 1
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_GONE
        except CancelledError:
            if status is not None or not self.registry.draining:
                raise
            fault = error_response(
                ShuttingDown.status,
                "the server is shutting down and could not wait for this request to end",
                {**ShuttingDown.headers, "Connection": "close"},  # its body may not have been read
            )
            await fault(scope, receive, send_with_id)
        except Exception:
            self.log.exception("request_failed", request_id=request_id.decode(), **scope[LOGGED])
            if status is not None:
                raise  # the answer had begun: the server can only cut it off
            fault = error_response(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"something went wrong here; the log has it as request {request_id.decode()}",
            )
            await fault(scope, receive, send_with_id)
        finally:
            self.requests.in_flight -= 1
            self._finish(scope, request_id, status or CLIENT_GONE, perf_counter() - started)

    def _finish(self, scope: Scope, request_id: bytes, status: int, seconds: float) -> None:
        method = scope["method"]
        route = getattr(scope.get("route"), "path", UNMATCHED)
        logged = scope[LOGGED]
        self.requests.count_request(method, route, status, seconds)
        if "model" in logged:
            self.models.count_request(logged["model"], logged["version"], status, seconds)
        self.log.info(
            "request",
            request_id=request_id.decode(),
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            **logged,
        )


def request_id_of(scope: Scope) -> bytes:
    """Return the client's X-Request-ID where it is a plain word of at most 128 characters, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            if _PLAIN_WORD.fullmatch(value):
                return bytes(value)
            break
    return uuid.uuid4().hex.encode()
