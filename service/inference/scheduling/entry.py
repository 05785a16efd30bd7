"""An entry: one request or call that predicts, from its headers to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from spikeserve.service.inference.scheduling.answer import Content
from spikeserve.service.inference.scheduling.frames import Endpoint
from spikeserve.service.inference.scheduling.job import Job
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.telemetry.record import RequestRecord, Trace
from spikeserve.service.telemetry.tracing import Tracing


class Entry(Protocol):
    """A request whose body has arrived; see `Batcher`."""

    endpoint: Endpoint
    request_id: bytes
    body: bytes
    started: float  # when its headers were complete, by perf_counter
    trace: Trace | None
    job: Job | None  # once it waits for a thread
    is_over: bool  # whether it has its answer, or its client has left

    @property
    def sender(self) -> Sender:
        """Its sender."""
        ...

    def answer(self, content: Content, sent: Callable[[], object] | None = None) -> None:
        """Send the answer, and call `sent` once the last of its pieces is sent."""
        ...

    def refuse(self, error: Exception, status: int) -> None:
        """Send an error; with the status CLIENT_GONE, send nothing."""
        ...

    def end_span(self, tracing: Tracing, record: RequestRecord, status: int) -> None:
        """End its span, which is sampled."""
        ...
