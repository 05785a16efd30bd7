"""Middleware that records a trace span for each request and adds the trace's id to its log line."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spikeserve.service.http.access import METRICS, PROBES
from spikeserve.service.http.requests import EXCHANGE, Exchange
from spikeserve.service.telemetry.tracing import Tracing

UNTRACED = PROBES | {METRICS}  # machines read these every few seconds


class TraceMiddleware:
    """Traces every request but those for `UNTRACED` paths."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on in a span that ends with its answer."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        span = self.tracing.start(scope["method"], exchange.headers)
        exchange.record.labels["trace_id"] = span.trace_id

        async def record_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.answered(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        except ClientDisconnect:
            span.disconnected()
            raise
        except Exception as error:
            span.failed(error)
            raise
        finally:
            span.end(scope["method"], getattr(scope.get("route"), "path", None), exchange.record)
