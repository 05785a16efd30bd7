"""Around every request: its id, its line in the log, its metrics, and a 500 where nobody caught what went wrong."""

from __future__ import annotations

import re
import uuid
from http import HTTPStatus
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import error_response
from service.metrics import Metrics

log = structlog.get_logger()

REQUEST_ID = "X-Request-ID"
UNMATCHED = "unmatched"  # the route of a path that there is not
CLIENT_GONE = 499  # as nginx logs a client that hung up; nobody is left to be told

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Access:
    """Middleware that sees a request first and its answer last."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; what the route binds to structlog's context is logged with it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            log.exception("request_failed")
            if status is not None:
                raise  # the answer had begun: the server can only cut it off
            fault = error_response(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"something went wrong here; the log has it as request {request_id}"
            )
            await fault(scope, receive, send_with_id)
        finally:
            self._finish(scope, status or CLIENT_GONE, perf_counter() - started)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self.metrics.count_request(scope["method"], route, status, seconds)
        log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 3))


def request_id_of(scope: Scope) -> str:
    """Return the client's X-Request-ID where it is a plain word of at most 128 characters, else a new one."""
    sent = Headers(scope=scope).get(REQUEST_ID, "")
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
