"""A connection up to the end of a request's headers: what no application gets to see.

Uvicorn bounds neither the time nor the size of headers. What is refused here is answered in the one form that every
error has, with an id and a line in the log, and the connection ends. It is counted apart, for there was no request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.access import REQUEST_ID, request_id_of

MOST_BYTES = 2**16  # of a request's first line and headers

log = structlog.get_logger()


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, which ends where headers take too many bytes or too long, `seconds`, to arrive."""

    seconds: ClassVar[float]

    @staticmethod
    def refused(status: int) -> None:
        """Count a refusal; which is for whoever makes the connections to say."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_headers = True  # or before them, on a connection that has not said anything yet
        self.header_bytes = 0
        self.many_bytes = False  # whether those that arrived may be too many for headers
        self.too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first headers."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the bytes that arrived. Most headers arrive whole, and for those no timer is set."""
        self.many_bytes = self.header_bytes + len(data) > MOST_BYTES
        super().data_received(data)
        if self.in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > MOST_BYTES:
                self._refuse_headers(self.header_bytes)
            elif self.too_slow is None:
                self._wait()

    def on_message_begin(self) -> None:
        """Note that headers begin."""
        super().on_message_begin()
        self.in_headers = True
        self.header_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that they are all there."""
        if self.many_bytes:  # of which some may be a body's
            length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if length > MOST_BYTES:
                self._refuse_headers(length)
                raise ValueError  # so that the parser stops
        self.in_headers = False
        if self.too_slow is not None:
            self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, f"this is not HTTP as it should be: {msg}")

    def _wait(self) -> None:
        self.too_slow = self.loop.call_later(self.seconds, self._time_is_over)

    def _stop_waiting(self) -> None:
        if self.too_slow is not None:
            self.too_slow.cancel()
            self.too_slow = None

    def _time_is_over(self) -> None:
        self.too_slow = None
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT, f"the headers had not arrived after {self.seconds:g} seconds, expected them all"
        )

    def _refuse_headers(self, length: int) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the headers have {length} bytes or more, expected at most {MOST_BYTES}",
        )

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer, unless that would mix with the answer of another request, and end the connection."""
        self._stop_waiting()
        self.in_headers = False
        if self.transport.is_closing():
            return
        cycle = self.cycle
        own = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or own:  # own: it is this one's body that is at fault
            content = json.dumps({"error": sentence}).encode()
            request_id = request_id_of({"headers": self.headers or ()})
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s: %s\r\n"
                b"connection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(content), REQUEST_ID, request_id, content)
            )
            self.refused(status)
            log.info("connection_refused", request_id=request_id.decode(), status=int(status), error=sentence)
        self.transport.close()


def connections(header_seconds: float, refused: Callable[[int], None]) -> type[Connection]:
    """Return the kind of connection whose headers may take so long; a refusal's status is told to `refused`."""
    return type("Connection", (Connection,), {"seconds": header_seconds, "refused": staticmethod(refused)})
