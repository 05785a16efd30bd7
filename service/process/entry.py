"""One request of a connection that the batcher answers (`service.inference.scheduling.batcher`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikeserve.service.errors import ServiceError
from spikeserve.service.http.answers import error_body
from spikeserve.service.inference.scheduling.answer import JSON_LINE, Content
from spikeserve.service.inference.scheduling.entry import Entry
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.telemetry.access import CLIENT_GONE, STATUS

if TYPE_CHECKING:
    from spikeserve.service.process.connections import Connection


@dataclass(slots=True, eq=False, kw_only=True)
class HttpEntry(Entry):
    """A request of a connection, until all of its answer is sent."""

    connection: Connection
    more_body: bool = True  # is to come
    settled: bool = False  # the batcher has it

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
