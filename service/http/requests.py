"""The outermost middleware: request id, limits on query and body, log line, metrics, span, 500 for an unexpected error.

When the grace period of a shutdown is over the remaining requests are cancelled; each is answered 503. An answer that
has begun is cut off: the client did not take the rest in time, which is no error of the server.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping
from contextlib import ExitStack
from http import HTTPStatus
from time import perf_counter

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.errors import NOT_ENDED, ServiceError, ShuttingDown, Unexpected
from spikeserve.service.http.access import METRICS, PROBES, Access, sender_of
from spikeserve.service.http.answers import error_response
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES, Body, BodyLimits
from spikeserve.service.telemetry.access import CLIENT_GONE, REQUEST_ID, AccessLog, request_id_of
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import RequestRecord, Trace
from spikeserve.service.telemetry.tracing import Tracing

EXCHANGE = "spikeserve.exchange"  # where a request's scope holds its exchange
SERVER_FAILED, REASON_BYTES = 1011, 123  # WebSocket's code for an error of the server, and its longest reason
UNMATCHED = "unmatched"  # the route's label where no route matches the path


class Exchange:
    """One request and its answer. Where a header is sent twice, `headers` has the last.

    `holds` gives back what is held until the end of the answer.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits, catalog: Catalog, access: Access
    ) -> None:
        self.started = perf_counter()
        self.sender = sender_of(scope)
        self.trace: Trace | None = None
        self.is_logged = False  # or will be: the batcher logs what it answers
        self.holds = ExitStack()
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
            message["headers"] = [*message.get("headers", ()), *self._lines]
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

    def why_cancelled(self, _: str) -> ServiceError | ClientDisconnect:
        """Return why the task of the request is cancelled."""
        return ShuttingDown(NOT_ENDED) if self._catalog.draining else ClientDisconnect()

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
        if self.tracing and scope["path"] not in PROBES | {METRICS}:
            exchange.trace = self.tracing.chosen.choose(scope.get("method", "GET"), exchange.headers)
            exchange.record.labels["trace_id"] = exchange.trace.id
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
            request_id, exchange.record.error = exchange.record.request_id, type(error).__qualname__
            self.access.log.exception("request_failed", request_id=request_id.decode(), **exchange.record.labels)
            sentence = str(Unexpected(request_id))
            if exchange.status == HTTPStatus.SWITCHING_PROTOCOLS:
                await send({"type": "websocket.close", "code": SERVER_FAILED, "reason": sentence[:REASON_BYTES]})
                return
            if exchange.status is not None:
                raise  # part of the answer was sent: the server can only cut it off
            answer = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)
            await answer(scope, receive, exchange.send)
        finally:
            exchange.body.release()
            exchange.holds.close()
            self.metrics.requests.in_flight -= 1
            if not exchange.is_logged:
                self._finish(scope, exchange)
            # Else the scope and the exchange refer to each other, and only a garbage collection frees both.
            del scope[EXCHANGE]

    def _finish(self, scope: Scope, exchange: Exchange) -> None:
        """Log the request, count it, and make its span."""
        route, status = getattr(scope.get("route"), "path", None), exchange.status or CLIENT_GONE
        method, record, trace, began = scope.get("method", "GET"), exchange.record, exchange.trace, exchange.started
        seconds, streamed = perf_counter() - began, exchange.body.streamed
        self.access.finish(record, method, route or UNMATCHED, status, seconds, streamed=streamed)
        if self.tracing and trace and trace.sampled:
            self.tracing.begin(trace, method, began).end(method, route, status, record)
