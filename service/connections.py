"""A connection up to the end of a request's headers: what no application gets to see.

Uvicorn bounds neither the time nor the size of headers. What is refused here is answered in the one form that every
error has, and the connection ends; there is no line in the log and no metric, for there was no request.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 2**16  # of a request's first line and headers


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, which ends where headers take too many bytes or too long, `seconds`, to arrive."""

    seconds: ClassVar[float]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_headers = True  # or before them, on a connection that has not said anything yet
        self.header_bytes = 0
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
        super().data_received(data)
        if self.in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > MOST_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the headers have {self.header_bytes} bytes or more, expected at most {MOST_BYTES}",
                )
            elif self.too_slow is None:
                self._wait()

    def on_message_begin(self) -> None:
        """Note that headers begin."""
        super().on_message_begin()
        self.in_headers = True
        self.header_bytes = 0

    def on_headers_complete(self) -> None:
        """Note that they are all there."""
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
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(content), content)
            )
        self.transport.close()


def connections(header_seconds: float) -> type[Connection]:
    """Return the kind of connection whose headers may take so long."""
    return type("Connection", (Connection,), {"seconds": header_seconds})
