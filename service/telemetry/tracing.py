"""Spans of requests for OpenTelemetry: one for a request, and below it one for encoding and one for the engine's run.

A client's `traceparent` (W3C Trace Context) becomes the parent, and decides whether the request is sampled. Without
the setting nothing here runs and OpenTelemetry's SDK, the extra `otel`, is not imported. OpenTelemetry's own variables,
such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER, mean what they mean everywhere.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.version import VERSION
from service.errors import Misconfigured
from service.http.access import ANSWERED, LOGGED
from service.http.keys import METRICS, OPEN
from service.inference.jobs import Answer
from service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

UNTRACED = OPEN | {METRICS}  # what machines ask every few seconds
EXPORT_SECONDS = 5  # how long one batch of spans may take to be sent
SERVER_ERROR = 500


@dataclass(frozen=True)
class Tracing:
    """Where spans come from, and what reads a client's trace context."""

    provider: TracerProvider
    tracer: Tracer
    propagator: TextMapPropagator

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return what the settings ask for, or None; raises Misconfigured where the SDK is not installed."""
        if settings.trace_endpoint is None:
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise Misconfigured(
                f"trace_endpoint: is set, but '{error.name}' is not installed; it comes with the extra 'otel'"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME") or "spikeserve"
        resource = Resource.create({"service.name": name, "service.version": VERSION})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=settings.trace_endpoint, timeout=EXPORT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, provider.get_tracer("spikeserve", VERSION), TraceContextTextMapPropagator())

    def shut_down(self) -> None:
        """Send what has not been sent yet; it takes a while where nobody listens."""
        self.provider.shutdown()


@dataclass(frozen=True)
class Clock:
    """The two clocks read together, once: moments that are read against different pairs may change their order."""

    time_of_day: int  # nanoseconds
    counter: float  # seconds, as `perf_counter` counts

    @classmethod
    def now(cls) -> Self:
        """Read both."""
        return cls(time.time_ns(), time.perf_counter())

    def nanoseconds(self, moment: float) -> int:
        """Return the time of day of a moment as `perf_counter` counts."""
        return self.time_of_day - round((self.counter - moment) * 1e9)


class TraceRequests:
    """Middleware that makes a span of each request; its log line names the trace."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        from opentelemetry.trace import SpanKind

        self.app = app
        self.tracing = tracing
        self.kind = SpanKind.SERVER

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and end its span with its answer."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        span = self.tracing.tracer.start_span(method, self._parent(scope), self.kind)
        scope[LOGGED]["trace_id"] = format(span.get_span_context().trace_id, "032x")

        async def noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= SERVER_ERROR:
                    _fail(span, str(message["status"]))
            await send(message)

        try:
            await self.app(scope, receive, noting_status)
        except ClientDisconnect:
            span.set_attribute("error.type", "client_disconnect")
            raise
        except Exception as error:
            span.set_attribute("http.response.status_code", SERVER_ERROR)
            _fail(span, type(error).__qualname__)
            raise
        finally:
            self._describe(span, scope)
            span.end()

    def _parent(self, scope: Scope) -> Context:
        wanted = self.tracing.propagator.fields
        headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        return self.tracing.propagator.extract({name: value for name, value in headers if name in wanted})

    def _describe(self, span: Span, scope: Scope) -> None:
        span.set_attribute("http.request.method", scope["method"])
        route = getattr(scope.get("route"), "path", None)
        if route is not None:  # a path that there is not shall name no span
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        logged = scope[LOGGED]
        span.set_attributes({f"spikeserve.{name}": logged[name] for name in ("model", "version") if name in logged})
        answer: Answer[Any] | None = scope.get(ANSWERED)
        if answer is None or not span.is_recording():
            return
        span.set_attribute("spikeserve.samples", answer.samples)
        if answer.synaptic_operations is not None:
            span.set_attribute("spikeserve.synaptic_operations", answer.synaptic_operations)
        times, clock = answer.times, Clock.now()
        self._child(span, "encode", clock.nanoseconds(times.encode_began), clock.nanoseconds(times.encode_ended))
        self._child(span, "infer", clock.nanoseconds(times.run_began), clock.nanoseconds(times.run_ended))

    def _child(self, parent: Span, name: str, began: int, ended: int) -> None:
        from opentelemetry.trace import set_span_in_context

        self.tracing.tracer.start_span(name, set_span_in_context(parent), start_time=began).end(ended)


def _fail(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)
