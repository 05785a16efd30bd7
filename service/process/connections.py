"""A connection up to the end of a request's headers, and from its answer on: what no application gets to see.

Uvicorn bounds neither the time nor the size of headers, takes what comes behind a chunked body for more of them, drops
the body of a request that asks for another protocol, does not see that a client has left that has sent its next request
already, and holds answers for as long as nobody reads them. What is refused here is answered in the one form that every
error has, with an id and a line in the log, and the connection ends. It is counted apart, for there was no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import Overloaded, shown
from service.http.errors import error_body
from service.http.middleware.requests import REQUEST_ID, request_id_of
from service.inference.memory import MemoryBudget, Reservation

MOST_BYTES = 2**16  # of a request's first line and headers; and of what comes between two bytes of a chunked body
MOST_AHEAD = 8  # requests that a client may send before the answer to an earlier one, without being made to wait
VERSIONS = {"1.0", "1.1"}

log = structlog.get_logger()


@dataclass(frozen=True)
class Terms:
    """What connections are held to: how long headers may take to arrive and an answer to be taken, in seconds.

    What is not taken counts among the bytes that are `pending`; the status of a refusal is told to `refused`.
    """

    header_seconds: float
    answer_seconds: float
    pending: MemoryBudget
    refused: Callable[[int], None]


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, held to its `terms`."""

    terms: ClassVar[Terms]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_headers = True  # or before them, on a connection that has not said anything yet
        self.header_bytes = 0
        self.many_bytes = False  # whether those that arrived may be too many for headers
        self.body_bytes = 0
        self.other_bytes = 0  # of a chunked body, since its last byte
        self.too_slow: asyncio.TimerHandle | None = None
        self.answering: RequestResponseCycle | None = None  # `cycle` is the latest
        self.refusing = False  # what comes from now on is not looked at
        self.unsent: Reservation | None = None  # what the client has not taken yet of an answer, if that is much
        self.not_taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first headers."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, and tell each request that its client has left."""
        self._stop_waiting()
        self._has_taken()
        super().connection_lost(exc)
        for cycle in (self.answering, *(ahead for ahead, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take the bytes that arrived. Most headers arrive whole, and for those no timer is set."""
        if self.refusing:
            return
        self._unset_keepalive_if_required()
        self.many_bytes = self.header_bytes + len(data) > MOST_BYTES
        body_bytes = self.body_bytes
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP as it should be")
            return
        if self.in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > MOST_BYTES:
                self._refuse(*_too_long("headers", self.header_bytes))
            elif self.too_slow is None:
                self._wait()
        elif self.cycle is not None and self.cycle.more_body:
            self.other_bytes = self.other_bytes + len(data) if self.body_bytes == body_bytes else 0
            if self.other_bytes > MOST_BYTES:
                self._refuse(*_too_long("chunks' extensions and trailers", self.other_bytes))

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_again(data[upgrade.args[0] :])

    def _read_again(self, rest: bytes) -> None:
        """Read a message that asks for another protocol, up to its body, as one that does not.

        RFC 9110 (7.8) lets a server ignore that; the parser stops there, and would take the body for the next request.
        """
        first = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"%s %s HTTP/%s\r\n" % first + b"".join(b"%s: %s\r\n" % each for each in kept) + b"\r\n" + rest)

    def on_message_begin(self) -> None:
        """Note that headers begin."""
        super().on_message_begin()
        self.in_headers = True
        self.header_bytes = self.other_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none that comes behind a body: whoever stands before this server has not seen it there."""
        if self.in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that they are all there, and have the request answered."""
        if fault := self._fault():
            self._refuse(*fault)
            raise ValueError  # so that the parser stops
        if self.parser.should_upgrade():
            return  # it is read again
        self.in_headers = False
        if self.too_slow is not None:
            self._stop_waiting()
        super().on_headers_complete()
        if self.pipeline and len(self.pipeline) <= MOST_AHEAD:
            self.flow.resume_reading()  # else nobody sees it leave

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the body is all there."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _fault(self) -> tuple[HTTPStatus, str] | None:
        """Return what is wrong with the headers, which are all there."""
        if self.many_bytes:  # of which some may be a body's
            length = len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
            if length > MOST_BYTES:
                return _too_long("headers", length)
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if version not in VERSIONS:
            return HTTPStatus.BAD_REQUEST, f"the version of HTTP is {version}, expected 1.1"
        if method == b"CONNECT":
            return HTTPStatus.BAD_REQUEST, "method 'CONNECT' is for proxies, which this is none of"
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                encoding = shown(value.decode("latin-1"))
                return HTTPStatus.BAD_REQUEST, f"Transfer-Encoding is {encoding}, expected 'chunked' or none"
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            return HTTPStatus.BAD_REQUEST, f"the request has {hosts} headers Host, expected one"
        return None

    def pause_writing(self) -> None:
        """Note that the client takes an answer slower than it is written, for which it has some time and bytes."""
        super().pause_writing()
        self.not_taken = self.loop.call_later(self.terms.answer_seconds, self._end, "not taken in time")
        self.unsent = Reservation(self.terms.pending)
        try:
            self.unsent.reserve(self.transport.get_write_buffer_size())
        except Overloaded:
            self._end("too much together with all that is pending")

    def resume_writing(self) -> None:
        """Note that it has taken enough."""
        super().resume_writing()
        self._has_taken()

    def _has_taken(self) -> None:
        if self.unsent is not None:
            self.unsent.release()
            self.unsent = None
        if self.not_taken is not None:
            self.not_taken.cancel()
            self.not_taken = None

    def _end(self, why: str) -> None:
        log.warning("answer_dropped", bytes=self.transport.get_write_buffer_size(), why=why)
        self.transport.abort()

    def _wait(self) -> None:
        self.too_slow = self.loop.call_later(self.terms.header_seconds, self._time_is_over)

    def _stop_waiting(self) -> None:
        if self.too_slow is not None:
            self.too_slow.cancel()
            self.too_slow = None

    def _time_is_over(self) -> None:
        self.too_slow = None
        seconds = self.terms.header_seconds
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT, f"the headers had not arrived after {seconds:g} seconds, expected them all"
        )

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer, unless that would mix with the answer of another request, and end the connection."""
        self._stop_waiting()
        if self.refusing or self.transport.is_closing():
            return
        self.refusing = True
        request_id = request_id_of(dict(self.headers or ()))
        self.terms.refused(status)
        log.info("connection_refused", request_id=request_id.decode(), status=int(status), error=sentence)
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.keep_alive = False  # the request before is whole: its answer is the last
            return
        own = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or own:  # own: it is this one's body that is at fault
            content = error_body(sentence)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s: %s\r\n"
                b"connection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(content), REQUEST_ID, request_id, content)
            )
        self.transport.close()


def _too_long(what: str, length: int) -> tuple[HTTPStatus, str]:
    return (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"the {what} have {length} bytes or more, expected at most {MOST_BYTES}",
    )


def connections(terms: Terms) -> type[Connection]:
    """Return the kind of connection that is held to `terms`."""
    return type("Connection", (Connection,), {"terms": terms})
