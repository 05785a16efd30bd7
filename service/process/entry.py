"""One request that the batcher answers (`service.inference.scheduling.batcher`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from spikeserve.service.errors import ServiceError
from spikeserve.service.http.answers import error_body
from spikeserve.service.inference.scheduling.answer import JSON_LINE, Content
from spikeserve.service.inference.scheduling.frames import Endpoint
from spikeserve.service.inference.scheduling.job import Job
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.telemetry.access import CLIENT_GONE, METHOD, STATUS
from spikeserve.service.telemetry.record import RequestRecord, Trace
from spikeserve.service.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from spikeserve.service.process.connections import Connection


@dataclass(slots=True, eq=False)
class HttpEntry:
    """A request of a connection, until all of its answer is sent."""

    connection: Connection
    endpoint: Endpoint
    request_id: bytes
    trace: Trace | None
    body: bytes = b""
    more_body: bool = True  # is to come
    settled: bool = False  # the batcher has it
    is_over: bool = False
    job: Job | None = None
    started: float = field(default_factory=perf_counter)

    @property
    def sender(self) -> Sender:
        """Its client."""
        return Sender(self.endpoint.extras.key, *(self.connection.client or ()))

    def feed(self, body: bytes, *, more: bool) -> None:
        """Take a part of the body."""
        self.body += body
        self.more_body = more

    def answer(self, content: Content, sent: Callable[[], object] | None = None) -> None:
        """Send the answer, and call `sent` once the last of its pieces is sent."""
        self.is_over = True
        self.connection.answer(STATUS, content, sent)

    def refuse(self, error: Exception, status: int) -> None:
        """Send an error, after which the connection closes where the body is not complete."""
        self.is_over = True
        headers = error.headers.items() if isinstance(error, ServiceError) else ()
        lines = self.connection.lines_of((name.lower().encode(), value.encode()) for name, value in headers)
        content = Content(error_body(str(error)), lines, JSON_LINE + self.endpoint.extras.lines)
        self.connection.closes |= self.more_body
        self.connection.answer(status, None if status == CLIENT_GONE else content)

    def end_span(self, tracing: Tracing, record: RequestRecord, status: int) -> None:
        """Make its span, which is sampled."""
        if self.trace is not None:
            tracing.begin(self.trace, METHOD, self.started).end(METHOD, self.endpoint.route, status, record)
