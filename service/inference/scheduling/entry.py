"""An entry: one request or call that predicts, from its headers to the last byte of its answer."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from starlette.requests import ClientDisconnect

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedHeader, ServiceError, shown
from spikeserve.service.inference.decoding.media import Unpack
from spikeserve.service.inference.scheduling.answer import Content
from spikeserve.service.inference.scheduling.frames import Endpoint
from spikeserve.service.inference.scheduling.job import Job
from spikeserve.service.inference.scheduling.query import SMALL_BODY, Codec, Query, Sender
from spikeserve.service.telemetry.access import METHOD, AccessLog
from spikeserve.service.telemetry.record import RequestRecord, Trace
from spikeserve.service.telemetry.tracing import Tracing

TIMEOUT = b"x-request-timeout-ms"
MAX_DIGITS = 9  # of that header; a longer number exceeds any setting


@dataclass(slots=True, eq=False)
class Entry:
    """A request whose body has arrived; see `Batcher`. Subclasses know its client.

    By `perf_counter`, its headers were complete at `started`, and its body at `arrived`. It has a `job` while it waits
    for a thread, and `is_over` once it has its answer, or its client has left.
    """

    endpoint: Endpoint
    request_id: bytes
    trace: Trace | None
    body: bytes = b""
    started: float = field(default_factory=perf_counter)
    arrived: float = 0.0
    job: Job | None = None
    is_over: bool = False

    @property
    def sender(self) -> Sender:
        """The key and address of its client."""
        raise NotImplementedError

    def answer(self, content: Content, sent: Callable[[], object] | None = None) -> None:
        """Send the answer, and call `sent` once the last of its pieces is sent."""
        raise NotImplementedError

    def refuse(self, error: Exception, status: int) -> None:
        """Send an error; with the status CLIENT_GONE, send nothing."""
        raise NotImplementedError

    def log(self, access: AccessLog, record: RequestRecord, status: int) -> None:
        """Log and count it."""
        access.finish(record, METHOD, self.endpoint.route, status, perf_counter() - self.started)

    def end_span(self, tracing: Tracing, record: RequestRecord, status: int) -> None:
        """Make its span, which is sampled."""
        if self.trace is not None:
            tracing.begin(self.trace, METHOD, self.started).end(METHOD, self.endpoint.route, status, record)


class Asker(Protocol):
    """A task that awaits the answer of an entry: of a request to the application, or of a call of gRPC."""

    @property
    def sender(self) -> Sender:
        """Its sender."""

    def why_cancelled(self, model: str) -> ServiceError | ClientDisconnect:
        """Return why its task, which waits for an answer of `model`, is cancelled."""


@dataclass(eq=False, kw_only=True)
class AwaitedEntry(Entry):
    """An entry whose answer its `asker` awaits; `holds` is closed once that is sent."""

    asker: Asker
    holds: ExitStack
    answered: Future[Content] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def sender(self) -> Sender:
        """Its sender."""
        return self.asker.sender

    def answer(self, content: Content, sent: Callable[[], object] | None = None) -> None:
        """Give the answer; `sent` is called at the end of the request."""
        self.is_over = True
        if sent is not None:
            self.holds.callback(sent)
        if not self.answered.done():
            self.answered.set_result(content)

    def refuse(self, error: Exception, _: int) -> None:
        """Give an error."""
        self.is_over = True
        if not self.answered.done():
            self.answered.set_exception(error)

    async def content(self, end: Callable[[Entry, Exception], None]) -> Content:
        """Wait for the answer; where this task is cancelled, call `end` with the reason. Raises what ends the entry."""
        try:
            return await self.answered
        except CancelledError:
            end(self, self.asker.why_cancelled(self.endpoint.model.name))
            raise
        except Exception:
            del self.answered  # else the error and the entry refer to each other, and stay until a garbage collection
            raise


class OneEndpoint(Endpoint):
    """The endpoint of one request, which `decoder` decodes."""

    def __init__(self, route: str, model: LoadedModel, decoder: Codec) -> None:
        super().__init__(route, model)
        self.decoder = decoder

    def codec(self, unpack: Unpack | None = None) -> Codec:  # noqa: ARG002  (the decoder unpacks)
        """Return the decoder."""
        return self.decoder

    def find(self, body: bytes) -> Query | None:
        """Decode a short body; return None where that may take long. Raises what the decoder raises."""
        return self.decoder.decode_small(body) if len(body) <= SMALL_BODY else None


def milliseconds_of(headers: Mapping[bytes, bytes]) -> int:
    """Return the milliseconds that X-Request-Timeout-Ms asks for; 0 for none. Raises MalformedHeader."""
    value = headers.get(TIMEOUT)
    if value is None:
        return 0
    if not value.isdigit() or not value.strip(b"0"):
        text = shown(value.decode("latin-1"))
        raise MalformedHeader(f"X-Request-Timeout-Ms is {text}, expected whole milliseconds, at least 1")
    return int(value) if len(value) <= MAX_DIGITS else 0
