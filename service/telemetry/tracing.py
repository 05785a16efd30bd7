"""OpenTelemetry spans: one for each request, session and RPC, with a child span for encoding and one for the run.

A stream of infer requests over gRPC has a child for each message.

A client's `traceparent` (W3C Trace Context) becomes the parent, and decides whether the request is sampled. They are
sent where OpenTelemetry's variable OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says. Without it nothing here runs and its SDK,
the extra `otel`, is not imported. Its other variables, such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER, have their
usual meaning.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from spikeserve.models.errors import install
from spikeserve.models.version import VERSION
from spikeserve.service.errors import Misconfigured
from spikeserve.service.telemetry.access import CLIENT_GONE
from spikeserve.service.telemetry.record import RequestRecord, Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    from spikeserve.service.telemetry.sampling import TraceIds

ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"  # the SDK reads it
EXPORT_SECONDS = 5  # how long one batch of spans may take to be sent
SERVER_ERROR = 500  # and above
LABELS = ("model", "version", "windows", "events", "late", "steps", "ended")  # of a request's record


@dataclass(frozen=True)
class Tracing:
    """The tracer, and the choice of its traces."""

    provider: TracerProvider
    tracer: Tracer
    chosen: TraceIds

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return the tracing that ENDPOINT asks for, or None; raises Misconfigured if the SDK is not installed."""
        if not os.environ.get(ENDPOINT):
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            from spikeserve.service.telemetry.sampling import TraceIds
        except ImportError as error:
            raise Misconfigured(
                f"{ENDPOINT}: is set, but '{error.name}' is not installed: {install('otel')}"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME") or "spikeserve"
        resource = Resource.create({"service.name": name, "service.version": VERSION})
        chosen = TraceIds()
        provider = TracerProvider(chosen, resource, shutdown_on_exit=False, id_generator=chosen)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_SECONDS)))
        return cls(provider, provider.get_tracer("spikeserve", VERSION), chosen)

    def begin(self, trace: Trace, name: str, started: float) -> RequestSpan:
        """Start the span of a request of a trace; it began when `perf_counter` said `started`."""
        from opentelemetry.trace import SpanKind

        before = self.chosen.now.set(trace)
        span = self.tracer.start_span(name, trace.parent, SpanKind.SERVER, start_time=time_of_day(started, zero()))
        self.chosen.now.reset(before)
        return RequestSpan(self.tracer, span)


def zero() -> int:
    """Return the time of day in nanoseconds when `perf_counter` said 0, which changes as the clock is set."""
    return time.time_ns() - time.perf_counter_ns()


def time_of_day(moment: float, zero: int) -> int:
    """Convert a moment by `perf_counter` to nanoseconds; another `zero` could change the order of moments."""
    return zero + round(moment * 1e9)


@dataclass(frozen=True)
class RequestSpan:
    """The span of one request."""

    tracer: Tracer
    span: Span

    def end(self, method: str, route: str | None, status: int, record: RequestRecord) -> None:
        """End the span of a request over HTTP, named by the route's template."""
        self.span.set_attribute("http.request.method", method)
        if status == CLIENT_GONE:
            self.span.set_attribute("error.type", "client_disconnect")
        else:
            self.span.set_attribute("http.response.status_code", status)
        if route is not None:  # an unknown path must not name a span
            self.span.update_name(f"{method} {route}")
            self.span.set_attribute("http.route", route)
        self._end(record, record.error or str(status) if status >= SERVER_ERROR else "")

    def message(self) -> RequestSpan:
        """Start a child for one message of an RPC."""
        from opentelemetry.trace import set_span_in_context

        return RequestSpan(self.tracer, self.tracer.start_span("message", set_span_in_context(self.span)))

    def end_rpc(self, method: str, code: str, record: RequestRecord, *, failed: bool) -> None:
        """End the span of an RPC, or of one of its messages, with the name of its status code."""
        self.span.set_attributes({"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": code})
        self._end(record, code if failed else "")

    def _end(self, record: RequestRecord, error: str) -> None:
        """End the span, with a child for encoding and one for the engine's run."""
        from opentelemetry.trace import StatusCode, set_span_in_context

        if error:
            self.span.set_status(StatusCode.ERROR)
            self.span.set_attribute("error.type", error)
        labels = record.labels
        self.span.set_attributes({f"spikeserve.{name}": labels[name] for name in LABELS if name in labels})
        if record.answer is not None and self.span.is_recording():
            self.span.set_attribute("spikeserve.samples", record.answer.samples)
            self.span.set_attribute("spikeserve.synaptic_operations", record.answer.synaptic_operations)
            times, at, here = record.answer.times, zero(), set_span_in_context(self.span)
            children = ("encode", times.encode_began, times.encode_ended), ("infer", times.run_began, times.run_ended)
            for name, began, ended in children:
                span = self.tracer.start_span(name, here, start_time=time_of_day(began, at))
                span.end(time_of_day(ended, at))
        self.span.end()
