"""An HTTP connection outside of a request: before its headers are complete and after its answer was written.

uvicorn has no limit on the time or size of headers, reads a chunked body's trailers as headers, drops the body of a
request with an `Upgrade` header, misses that a client left if that client has already sent its next request, and keeps
an answer in memory for as long as the client does not read it. `Connection` adds these limits. A refused request gets
a JSON error, an id, a log line and a metric of its own (it never reached the application), and its connection closes.

This is the only file that uses uvicorn's private API, because uvicorn has no public one for any of this;
docs/server-choice.md explains why uvicorn is used all the same. pyproject.toml has an upper bound for uvicorn and
httptools, and tests/service/process/test_private_parts.py fails with a sentence if a version changes one of these:

- `HttpToolsProtocol`: the attributes `cycle` (the latest request), `flow`, `headers`, `loop`, `parser`, `transport` and
  `url`, the method `_unset_keepalive_if_required`, and the callbacks that are overridden below
- `RequestResponseCycle` (one request and its answer): the attributes `disconnected`, `keep_alive`, `message_event`,
  `more_body`, `response_complete` and `response_started`
- `FlowControl.resume_reading`
- `Server.server_state` with `connections` and `tasks`
- `httptools.HttpRequestParser`: `HttpParserUpgrade.args[0]` is the number of bytes that were read
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import Overloaded, shown
from service.http.errors import error_body
from service.http.middleware.requests import REQUEST_ID, request_id_of
from service.inference.memory import MemoryBudget, Reservation

MAX_HEADER_BYTES = 2**16  # request line and headers; also what may stand between two bytes of a chunked body
UNCOUNTED_BYTES = 2**18  # of an unread answer; one in pieces has fewer in the buffer, and is reserved as a whole
MAX_PIPELINED = 8  # requests that wait behind the one being answered before reading from the socket pauses
HTTP_VERSIONS = {"1.0", "1.1"}

log = structlog.get_logger()


@dataclass(frozen=True)
class ConnectionLimits:
    """How long the headers may take to arrive and an answer may take to be read, in seconds.

    The bytes of answers that are not read yet are reserved in `budget`; `count_refused` is called with the status of
    each refused request.
    """

    header_seconds: float
    answer_seconds: float
    budget: MemoryBudget
    count_refused: Callable[[int], None]


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with `limits`."""

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_headers = True  # also before the first request
        self.header_bytes = 0  # received since the headers began
        self.check_header_size = False  # whether this chunk may complete headers that are too long
        self.body_bytes = 0  # received on this connection
        self.non_body_bytes = 0  # chunk extensions and trailers received since the last byte of a body
        self.header_timer: asyncio.TimerHandle | None = None
        self.unanswered: deque[RequestResponseCycle] = deque()  # oldest first; some may be complete by now
        self.refused = False  # the connection is about to close, and what is received is ignored
        self.unread: Reservation | None = None  # the reserved bytes of an answer that the client reads slowly
        self.writing_paused = False
        self.answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first headers."""
        super().connection_made(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and tell every unanswered request that its client left; uvicorn tells only the latest."""
        self._stop_header_timer()
        self._release_unread()
        self._stop_answer_timer()
        super().connection_lost(exc)
        for cycle in self.unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse the data. Headers that arrive in one piece, as most do, start no timer."""
        if self.refused:
            return
        self._unset_keepalive_if_required()
        self.check_header_size = self.header_bytes + len(data) > MAX_HEADER_BYTES
        body_bytes = self.body_bytes
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
            return
        if self.in_headers:
            self.header_bytes += len(data)
            if self.header_bytes > MAX_HEADER_BYTES:
                self._refuse(*_too_long("headers", self.header_bytes))
            elif self.header_timer is None:
                self._start_header_timer()
        elif self.cycle is not None and self.cycle.more_body:
            self.non_body_bytes = self.non_body_bytes + len(data) if self.body_bytes == body_bytes else 0
            if self.non_body_bytes > MAX_HEADER_BYTES:
                self._refuse(*_too_long("chunk extensions and trailers", self.non_body_bytes))

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(data[upgrade.args[0] :])

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its `Upgrade` header, which RFC 9110 (7.8) lets a server ignore.

        The parser stopped after the headers and would take the body, in `rest`, for the next request.
        """
        start = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"%s %s HTTP/%s\r\n" % start + b"".join(b"%s: %s\r\n" % each for each in headers) + b"\r\n" + rest)

    def on_message_begin(self) -> None:
        """Expect headers."""
        super().on_message_begin()
        self.in_headers = True
        self.header_bytes = self.non_body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer, which proxies in front may have passed on unchecked, is dropped."""
        if self.in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse the request or start to answer it; for a refused one, raises ValueError, which stops the parser."""
        if error := self._header_error():
            self._refuse(*error)
            raise ValueError
        if self.parser.should_upgrade():
            return  # it is parsed again
        self.in_headers = False
        self._stop_header_timer()
        super().on_headers_complete()
        self._forget_answered()
        self.unanswered.append(self.cycle)
        if 1 < len(self.unanswered) <= MAX_PIPELINED + 1:
            self.flow.resume_reading()  # uvicorn paused it, and a socket that is not read from does not tell its end

    def _forget_answered(self) -> None:
        while self.unanswered and self.unanswered[0].response_complete:
            self.unanswered.popleft()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request, unless it is to be parsed again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _header_error(self) -> tuple[HTTPStatus, str] | None:
        """Return the status and the sentence if the complete headers are refused, else None."""
        if self.check_header_size:  # the chunk may hold a part of the body, so the headers are counted alone
            length = len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
            if length > MAX_HEADER_BYTES:
                return _too_long("headers", length)
        version = self.parser.get_http_version()
        if version not in HTTP_VERSIONS:
            return HTTPStatus.BAD_REQUEST, f"the HTTP version is {version}, expected 1.1 or 1.0"
        if self.parser.get_method() == b"CONNECT":
            return HTTPStatus.BAD_REQUEST, "CONNECT is not supported"
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                encoding = shown(value.decode("latin-1"))
                return HTTPStatus.BAD_REQUEST, f"Transfer-Encoding is {encoding}, expected 'chunked' or none"
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            return HTTPStatus.BAD_REQUEST, f"the request has {hosts} Host headers, expected one"
        return None

    def pause_writing(self) -> None:
        """Limit the time and the bytes of an answer that is written faster than the client reads it."""
        super().pause_writing()
        self.writing_paused = True
        if self.answer_timer is None:
            self.answer_timer = self.loop.call_later(self.limits.answer_seconds, self._drop_answer, "not read in time")
        size = self.transport.get_write_buffer_size()
        if size > UNCOUNTED_BYTES:
            self.unread = Reservation(self.limits.budget)
            try:
                self.unread.reserve(size)
            except Overloaded:
                self._drop_answer("too many bytes pending")

    def resume_writing(self) -> None:
        """Release the limits once the client has read enough of the answer; the time is that of the whole answer."""
        super().resume_writing()
        self.writing_paused = False
        self._release_unread()
        if not any(cycle.response_started and not cycle.response_complete for cycle in self.unanswered):
            self._stop_answer_timer()

    def on_response_complete(self) -> None:
        """Stop the timer of an answer that was written in pieces, unless the last of them is still to be read."""
        if not self.writing_paused:
            self._stop_answer_timer()
        super().on_response_complete()

    def _release_unread(self) -> None:
        if self.unread is not None:
            self.unread.release()
            self.unread = None

    def _stop_answer_timer(self) -> None:
        if self.answer_timer is not None:
            self.answer_timer.cancel()
            self.answer_timer = None

    def _drop_answer(self, why: str) -> None:
        log.warning("answer_dropped", bytes=self.transport.get_write_buffer_size(), why=why)
        self.transport.abort()

    def _start_header_timer(self) -> None:
        self.header_timer = self.loop.call_later(self.limits.header_seconds, self._headers_too_slow)

    def _stop_header_timer(self) -> None:
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def _headers_too_slow(self) -> None:
        self.header_timer = None
        sentence = f"the headers were incomplete after {self.limits.header_seconds:g} seconds, expected them by then"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, sentence)

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Close the connection; send the error first if the client cannot take it for the answer to another request."""
        self._stop_header_timer()
        if self.refused or self.transport.is_closing():
            return
        self.refused = True
        request_id = request_id_of(dict(self.headers or ()))
        self.limits.count_refused(status)
        log.info("connection_refused", request_id=request_id.decode(), status=int(status), error=sentence)
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.keep_alive = False  # an earlier request is being answered: uvicorn closes after that answer
            return
        self._forget_answered()
        own_body = cycle is not None and cycle.more_body and not cycle.response_started and len(self.unanswered) == 1
        if cycle is None or cycle.response_complete or own_body:
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
        f"the {what} have {length} bytes or more, expected at most {MAX_HEADER_BYTES}",
    )


def connection_class(limits: ConnectionLimits) -> type[Connection]:
    """Return the class of connections with these limits, for `uvicorn.Config(http=…)`."""
    return type("Connection", (Connection,), {"limits": limits})


def requests_in_progress(server: uvicorn.Server) -> set[asyncio.Task[None]]:
    """Return the tasks that are answering requests."""
    return set(server.server_state.tasks)


def abort_connections(server: uvicorn.Server) -> bool:
    """Close every connection at once, and return whether a part of an answer was lost with one."""
    lost = False
    for connection in server.server_state.connections:
        transport = connection.transport
        lost = lost or transport.get_write_buffer_size() > 0
        transport.abort()
    return lost
