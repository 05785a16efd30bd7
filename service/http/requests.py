"""The outermost middleware: request id, limits on query and body, log line, metrics, span, 500 for an unexpected error.

When the grace period of a shutdown is over the remaining requests are cancelled; each is answered 503. An answer that
has begun is cut off where it is: the client did not take the rest in time, which is no error of the server.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping
from http import HTTPStatus
from time import perf_counter

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.errors import NOT_ENDED, ShuttingDown, unexpected
from spikeserve.service.http.access import METRICS, PROBES, Access
from spikeserve.service.http.answers import error_response
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES, Body, BodyLimits
from spikeserve.service.telemetry.access import CLIENT_GONE, REQUEST_ID, AccessLog, request_id_of
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import TIMING, TIMING_WANTED, RequestRecord
from spikeserve.service.telemetry.tracing import RequestSpan, Tracing

EXCHANGE = "spikeserve.exchange"  # where a request's scope holds its exchange
SERVER_FAILED, REASON_BYTES = 1011, 123  # WebSocket's code for an error of the server, and its longest reason
UNMATCHED = "unmatched"  # the route's label where no route matches the path


class Exchange:
    """One request and its answer. Where a header is sent twice, `headers` has the last."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits, catalog: Catalog, access: Access
    ) -> None:
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.refused, lines = access.admit(scope, self.headers)
        self.body = Body(self.headers, receive, limits)
        self.record = RequestRecord(request_id_of(self.headers))
        self.status: int | None = None
        self.closes = False  # whether the answer has `Connection: close`
        self._lines = (*lines, (REQUEST_ID, self.record.request_id))
        self._catalog = catalog
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the request's id.

        An answer that is sent before the whole body was read closes the connection; otherwise the server would have to
        read and drop the rest of the body. One of a server that drains does, so that its client goes elsewhere.
        """
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            answer = self.record.answer if TIMING_WANTED in self.headers else None
            timing = () if answer is None else ((TIMING, answer.times.timing(perf_counter())),)
            message["headers"] = [*message.get("headers", ()), *timing, *self._lines]
            if not self.body.complete:
                await self._end_connection(message)
            if self._catalog.draining and not self.closes:
                message["headers"].append((b"connection", b"close"))
        elif message["type"] in ("websocket.accept", "websocket.http.response.start"):
            self.status = int(message.get("status", HTTPStatus.SWITCHING_PROTOCOLS))
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID, self.record.request_id)]
        elif self.closes and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self.body.drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _end_connection(self, message: Message) -> None:
        """Add `Connection: close`, unless the rest of the body is short and can be drained."""
        if not (self.body.refused or self.body.streamed) and 0 < self.body.length <= UNRESERVED_BYTES:
            await self.body.drain()
        if not self.body.complete:
            self.closes = True
            message["headers"].append((b"connection", b"close"))


def exchange_of(request: HTTPConnection) -> Exchange:
    """Return a request's exchange."""
    exchange: Exchange = request.scope[EXCHANGE]
    return exchange


class RequestMiddleware:
    """The outermost middleware: it sees a request first and its answer last.

    `tracing` traces requests but those that machines send every few seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        metrics: Metrics,
        catalog: Catalog,
        limits: BodyLimits,
        tracing: Tracing | None = None,
    ) -> None:
        self.app = app
        self.who = access
        self.tracing = tracing
        self.metrics = metrics
        self.catalog = catalog
        self.limits = limits
        self.access = AccessLog(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with an Exchange in its scope."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(scope, receive, send, self.limits, self.catalog, self.who)
        started, span = perf_counter(), None
        if self.tracing and scope["path"] not in PROBES | {METRICS}:
            span = self.tracing.start(scope.get("method", "GET"), exchange.headers)
            exchange.record.labels["trace_id"] = span.trace_id
        self.metrics.requests.in_flight += 1
        try:
            await (exchange.refused or self.app)(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_GONE
        except CancelledError:
            if not self.catalog.draining:
                raise
            if exchange.status is not None:  # part of the answer was sent, and the server closes the connection soon
                await exchange.body.wait_for_disconnect()
                return
            answer = error_response(ShuttingDown.status, NOT_ENDED, ShuttingDown.headers)
            await answer(scope, receive, exchange.send)
        except Exception as error:
            request_id, exchange.record.error = exchange.record.request_id.decode(), type(error).__qualname__
            self.access.log.exception("request_failed", request_id=request_id, **exchange.record.labels)
            sentence = unexpected(request_id)
            if exchange.status == HTTPStatus.SWITCHING_PROTOCOLS:
                await send({"type": "websocket.close", "code": SERVER_FAILED, "reason": sentence[:REASON_BYTES]})
                return
            if exchange.status is not None:
                raise  # part of the answer was sent: the server can only cut it off
            answer = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)
            await answer(scope, receive, exchange.send)
        finally:
            exchange.body.release()
            self.metrics.requests.in_flight -= 1
            self._finish(scope, exchange, perf_counter() - started, span)
            # Else the scope and the exchange refer to each other, and only a garbage collection frees both.
            del scope[EXCHANGE]

    def _finish(self, scope: Scope, exchange: Exchange, seconds: float, span: RequestSpan | None) -> None:
        """Log the request, count it, and end its span."""
        route, status = getattr(scope.get("route"), "path", None), exchange.status or CLIENT_GONE
        method, streamed = scope.get("method", "GET"), exchange.body.streamed
        self.access.finish(exchange.record, method, route or UNMATCHED, status, seconds, streamed=streamed)
        if span is not None:
            span.end(method, route, status, exchange.record)
