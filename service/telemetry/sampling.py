"""The sampler of OpenTelemetry's variables, asked once for a request: before its span begins, if that begins at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import SamplingResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spikeserve.service.telemetry.record import PARENT, STATE, Trace

PROPAGATOR = TraceContextTextMapPropagator()
_PLAIN = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class TraceIds(RandomIdGenerator):  # type: ignore[misc]  # of a package without types
    """Gives a span the number and the decision of the trace in `now`; without one, new ones of the environment's."""

    def __init__(self) -> None:
        self.sampler = TracerProvider(shutdown_on_exit=False).sampler
        self.now: ContextVar[Trace | None] = ContextVar("now", default=None)

    def choose(self, name: str, headers: Mapping[bytes, bytes]) -> Trace:
        """Return the trace of a request that has these headers, and whether it is sampled."""
        parent, number = None, getrandbits(128)
        if PARENT in headers:
            parent = _parent(headers)
            number = get_current_span(parent).get_span_context().trace_id or number
        return Trace(number, parent, self.sampler.should_sample(parent, number, name, SpanKind.SERVER))

    def generate_trace_id(self) -> int:
        """Return a trace's number."""
        trace = self.now.get()
        return trace.number if trace else int(super().generate_trace_id())

    def should_sample(self, *asked: Any) -> SamplingResult:
        """Return the decision on a span; see the SDK."""
        trace = self.now.get()
        return trace.decision if trace else self.sampler.should_sample(*asked)


def _parent(headers: Mapping[bytes, bytes]) -> Context:
    """Read the context of the span that a request names: by the SDK where it says more than usual."""
    if STATE not in headers and (plain := _PLAIN.fullmatch(headers[PARENT])):
        trace, span, flags = (int(part, 16) for part in plain.groups())
        context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags))
        return set_span_in_context(NonRecordingSpan(context), Context())
    return PROPAGATOR.extract({name: headers.get(name.encode(), b"").decode("latin-1") for name in PROPAGATOR.fields})
