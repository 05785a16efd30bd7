"""An HTTP connection outside of a request: before its headers are complete and after its answer was written.

uvicorn has no limit on the time or size of headers, reads a chunked body's trailers as headers, drops the body of a
request with an `Upgrade` header, parses every request that a client sends ahead, misses that a client left if that
client has already sent its next request, and keeps an answer in memory for as long as the client does not read it.
`Connection` adds these limits. A refused request gets a JSON error, an id, a log line and a metric of its own (it never
reached the application), and its connection closes. An ordinary request (`service.http.gate`) does not reach it either:
the tick (`service.inference.ordinary.tick`) answers it, or declines, and then the application is asked as if it had
come first.

This file and `service.process.websockets` alone use uvicorn's private API, because uvicorn has no public one for any of
this; docs/server-choice.md explains why uvicorn is used all the same. pyproject.toml has an upper bound for uvicorn and
httptools, and tests/service/process/test_private_parts.py fails with a sentence if a version changes one of these:

- `HttpToolsProtocol`: the attributes `client`, `cycle` (the latest request), `expect_100_continue`, `flow`, `headers`,
  `loop`, `parser`, `server_state`, `timeout_keep_alive`, `timeout_keep_alive_task`, `transport`, `scope` and `url`, the
  methods `_should_upgrade`, `_unset_keepalive_if_required` and `handle_websocket_upgrade`, and the callbacks that are
  overridden below
- `RequestResponseCycle` (one request and its answer): the attributes `keep_alive`, `more_body`, `response_complete` and
  `response_started`
- `FlowControl`: the attribute `write_paused`, and the methods `pause_reading` and `resume_reading`
- `Server.server_state` with `connections`, `default_headers`, `tasks` and `total_requests`

httptools accepts CR LF alone as the end of a line; `service.process.backlog` relies on that, and a test holds it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import Any, ClassVar

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spikeserve.service.errors import Overloaded, shown
from spikeserve.service.http.answers import error_body
from spikeserve.service.http.gate import Gate
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.ordinary.frames import JSON_LINE, Content, Endpoint
from spikeserve.service.inference.ordinary.tick import Tick
from spikeserve.service.process.backlog import Backlog
from spikeserve.service.process.turns import MAX_TURNS, TimedSelector, Turns
from spikeserve.service.process.websockets import handshake_error
from spikeserve.service.telemetry.access import REQUEST_ID, request_id_of

MAX_HEADER_BYTES = 2**16  # request line and headers; also what may stand between two bytes of a chunked body
UNCOUNTED_BYTES = 2**18  # of an unread answer; one in pieces has fewer in the buffer, and is reserved as a whole
MAX_BACKLOG_BYTES = 2**16  # received behind the request being answered, before reading from the socket pauses
PARTS_PER_TURN = 64  # of a body full of empty lines, each of which ends a part, before other connections have a turn
CHUNKS_PER_TURN = 512  # of a body; the rest of a part are some more
IDLE_SECONDS = 0.05  # that a connection stays open at the end, so that what lies in its socket's buffer is answered
BODY_SECONDS = 0.05  # for the body of an ordinary request; the application waits for one that takes longer
HTTP_VERSIONS = {"1.0", "1.1"}
STREAM_PATH = re.compile(rb"/models/[^/?]+(/versions/[^/?]+)?/stream(\?.*)?")  # where WebSockets are accepted

CLOSE = b"connection: close\r\n"
PHRASES = {status: status.phrase.encode() for status in HTTPStatus}

log = structlog.get_logger()


@dataclass(frozen=True)
class ConnectionLimits:
    """How long the headers may take to arrive and an answer may take to be read, in seconds.

    The bytes of answers that are not read yet are reserved in `budget`; `count_refused` is called with the status of
    each refused request, `lost` with the address and port of each client whose connection has ended.
    """

    header_seconds: float
    client_seconds: float
    budget: MemoryBudget
    count_refused: Callable[[int], None]
    lost: Callable[[tuple[str, int]], None] = lambda _: None


@dataclass(slots=True, eq=False)
class OrdinaryRequest:
    """An ordinary request, until it is answered or goes the full way."""

    connection: Connection
    endpoint: Endpoint
    request_id: bytes
    data: bytes = b""  # all of it, where the parser has seen nothing of it
    body: bytes = b""
    complete: bool = False  # its body
    settled: bool = False  # the tick has it
    withdrawn: bool = False  # the application has it
    started: float = field(default_factory=perf_counter)

    def answer(self, content: Content) -> None:
        """Send the answer."""
        self.connection.answer(self.request_id, content)

    def decline(self) -> None:
        """Send it the full way."""
        self.connection.ask_application()

    def refuse(self, error: Overloaded) -> None:
        """Send an error."""
        lines = [f"{name.lower()}: {value}\r\n" for name, value in error.headers.items()]
        content = Content(error_body(str(error)), "".join(lines).encode() + JSON_LINE)
        self.connection.answer(self.request_id, content, error.status)


class Flow(FlowControl):
    """uvicorn's flow control, which pauses reading for a long body, with a second reason to pause: the backlog."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.body_is_long = False
        self.backlog_is_long = False

    def pause_reading(self) -> None:
        """Pause because of the body."""
        self.body_is_long = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """Resume unless the backlog is long."""
        self.body_is_long = False
        if self.read_paused and not self.backlog_is_long:
            super().resume_reading()

    def pause_for_backlog(self) -> None:
        """Pause because of the backlog."""
        self.backlog_is_long = True
        super().pause_reading()

    def resume_after_backlog(self) -> None:
        """Resume unless the body is long."""
        self.backlog_is_long = False
        if not self.body_is_long:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with `limits`.

    It parses one request at a time: the next one once this one is answered and its client reads the answers. What is
    received meanwhile stays as bytes in the backlog, so that a request sent ahead costs no more than its bytes.
    """

    limits: ClassVar[ConnectionLimits]
    gate: ClassVar[Gate | None]  # without one, every request goes the full way
    tick: ClassVar[Tick | None]
    selector: ClassVar[TimedSelector]
    turns: ClassVar[Turns]  # of requests that were sent ahead
    first_turns: ClassVar[Turns]  # of those that came to an idle connection in a long iteration of the event loop
    flow: Flow

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backlog = Backlog(self.limits.budget)
        self.waits_for_turn = False
        self.ordinary: OrdinaryRequest | None = None  # the request that is not answered yet, if it is one
        self.body_timer: asyncio.TimerHandle | None = None  # of its body
        self.idle_since = -math.inf  # when the last ordinary request was answered
        self.closes = False  # after its answer
        self.declined = False  # while the request is parsed that is to go the full way
        self.head: bytes | memoryview = b""
        self.in_headers = True  # from the end of a request to the end of the next one's headers
        self.body_left = 0  # the bytes to come of a body with a Content-Length
        self.chunks = 0  # of a body, in this turn
        self.non_body_bytes = 0  # of headers, or of chunk extensions and trailers since the last byte of a body
        self.header_timer: asyncio.TimerHandle | None = None
        self.refused = False  # the connection is about to close, and what is received is ignored
        self.unread: Reservation | None = None  # the reserved bytes of an answer that the client reads slowly
        self.answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first headers."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and drop the backlog."""
        self._stop_header_timer()
        self.ask_application()  # it tells the log and the metrics that the client has left
        self._unset_keepalive_if_required()
        self._release_unread()
        self._stop_answer_timer()
        self.backlog.clear()
        if self.client is not None:
            self.limits.lost(self.client)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, or keep it while an earlier request is being answered."""
        if self.refused:
            return
        is_long, known = self.selector.is_long, None
        if self.gate is not None and not is_long and self._is_idle():
            known = self.gate.known(data)
        if known is not None:
            self._stop_header_timer()
            self.headers = []  # which are those of a request before
            self._begin(OrdinaryRequest(self, known[0], request_id_of({}), data, known[1], complete=True))
        else:
            self._unset_keepalive_if_required()
            self.backlog.add(data)
        if self.waits_for_turn:
            pass
        elif is_long:
            self._wait_for_turn(self.first_turns)
        else:
            self._parse()
            self._settle(alone=True)
        if self.backlog.data or self.flow.backlog_is_long:
            self._limit_backlog()

    def on_response_complete(self) -> None:
        """Go on with what was received meanwhile; the timer of the answer runs on while its last piece is unread."""
        if self.answer_timer is not None and not self.flow.write_paused:
            self._stop_answer_timer()
        super().on_response_complete()
        if self.backlog.data:
            self._parse_later()

    def _parse_later(self) -> None:
        if self.backlog.data and not self.waits_for_turn:
            self._unset_keepalive_if_required()
            self._wait_for_turn(self.turns)

    def _wait_for_turn(self, turns: Turns) -> None:
        self.waits_for_turn = True
        turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self.waits_for_turn = False
        if not self.refused and not self.transport.is_closing():
            self._parse()
            self._settle(alone=False)
            self._limit_backlog()

    def _parse(self) -> None:
        """Parse to the end of a request, or what was received of it."""
        backlog, parts, self.chunks = self.backlog, 0, 0
        while backlog.data:
            if self.in_headers and not self.non_body_bytes and self._must_wait():
                return  # the next request may not begin yet
            if parts == PARTS_PER_TURN or self.chunks >= CHUNKS_PER_TURN:
                self._parse_later()
                break
            part = backlog.take(self.body_left)
            if not part:
                break
            self._parse_part(part)
            if self.refused:
                return
            parts += 1
        # Headers that arrive in one piece, as most do, start no timer.
        if self.in_headers and (self.non_body_bytes or backlog.data) and self.header_timer is None:
            self._start_header_timer()

    def _settle(self, *, alone: bool) -> None:
        """Have an ordinary request answered, or wait for the rest of its body."""
        ordinary = self.ordinary
        if ordinary is None or ordinary.settled or self.tick is None:
            return
        if ordinary.complete:
            ordinary.settled = True
            self._stop_body_timer()
            self.tick.add(ordinary, alone=alone)
        elif self.body_timer is None:
            self.body_timer = self.loop.call_later(BODY_SECONDS, self.ask_application)

    def _is_idle(self) -> bool:
        """Return whether the next request may begin, and nothing was received of it."""
        return self.in_headers and not (
            self.non_body_bytes or self.backlog.data or self.waits_for_turn or self._must_wait()
        )

    def _begin(self, ordinary: OrdinaryRequest) -> None:
        self.ordinary = ordinary
        if self.gate is not None:
            self.gate.metrics.requests.in_flight += 1

    def _must_wait(self) -> bool:
        """Return whether the answer before is not complete, or its client does not read."""
        if self.flow.write_paused or self.ordinary is not None:
            return True
        return not (self.cycle is None or self.cycle.response_complete)

    def _parse_part(self, part: bytes | memoryview) -> None:
        self.head = b"" if self.non_body_bytes else part  # where the headers come in one piece, these
        self.non_body_bytes += len(part)
        try:
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade:
                if self._opens_stream():
                    self._open_stream()
                else:
                    self._parse_without_upgrade()
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
            return
        if self.non_body_bytes > MAX_HEADER_BYTES:
            what = "headers" if self.in_headers else "chunk extensions and trailers"
            self._refuse(*_too_long(what, self.non_body_bytes))

    def _opens_stream(self) -> bool:
        """Return whether the headers ask for a WebSocket where there is one; elsewhere `Upgrade` is ignored."""
        return self.parser.get_method() == b"GET" and bool(STREAM_PATH.fullmatch(self.url)) and self._should_upgrade()

    def _open_stream(self) -> None:
        """Give the connection to the WebSocket's protocol, with what was received behind the headers."""
        if error := handshake_error(self.url, self.headers):
            self._refuse(*error)
            return
        rest = bytes(self.backlog.take(len(self.backlog)))
        self._make_scope()
        self.scope["method"] = "GET"  # which uvicorn sets once headers are complete, and these went no further
        self.handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        if not protocol.handshake_initiated:  # its library did not take the headers, and would leave it at that
            self._refuse(HTTPStatus.BAD_REQUEST, "the headers are not a valid handshake of a WebSocket")
            return
        self._stop_header_timer()
        self.backlog.clear()
        self.refused = True  # nothing else is parsed here
        if rest:
            protocol.data_received(rest)

    def _parse_without_upgrade(self) -> None:
        """Parse headers again without `Upgrade`, which RFC 9110 (7.8) lets a server ignore.

        The parser stopped after them, and would take the body for the next request.
        """
        start = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%s %s HTTP/%s\r\n" % start, *(b"%s: %s\r\n" % header for header in headers), b"\r\n"]
        self.parser.feed_data(b"".join(lines))

    def _limit_backlog(self) -> None:
        """Read no further while much is waiting, and count it in the memory budget."""
        is_long = len(self.backlog) > MAX_BACKLOG_BYTES
        if is_long == self.flow.backlog_is_long or self.refused:
            return
        if is_long:
            self.flow.pause_for_backlog()
            try:
                self.backlog.reserve()
            except Overloaded:
                sentence = "the requests sent ahead on all connections exceed the memory budget, expected fewer of them"
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        else:
            self.backlog.release()
            self.flow.resume_after_backlog()

    def on_message_begin(self) -> None:
        """Begin a request; its scope is made once the application is asked."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

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
        self.non_body_bytes = 0
        if self.header_timer is not None:
            self._stop_header_timer()
        gate = None if self.declined else self.gate
        if gate is not None and self.parser.get_method() == b"POST" and self.parser.get_http_version() == "1.1":
            admitted = gate.admit(self.url, self.headers, self.body_left)
            if admitted is not None:
                self._begin(OrdinaryRequest(self, *admitted))
                if self.head:
                    gate.learn(bytes(self.head), self.headers, admitted[0], self.body_left)
                return
        self._make_scope()
        super().on_headers_complete()

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.non_body_bytes = 0
        self.chunks += 1
        if self.body_left:
            self.body_left -= len(body)
        if self.ordinary is None:
            super().on_body(body)
        else:
            self.ordinary.body += body

    def on_message_complete(self) -> None:
        """Complete the request, unless it is to be parsed again."""
        if self.parser.should_upgrade():
            return
        if self.ordinary is None:
            super().on_message_complete()
        else:
            self.ordinary.complete = True
        self.in_headers = True
        self.non_body_bytes = 0

    def answer(self, request_id: bytes, content: Content, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Answer the ordinary request, with the bytes that the application would send."""
        self._end_ordinary()
        if self.transport.is_closing():
            return
        closes = self.closes or (self.gate is not None and self.gate.catalog.draining)
        defaults = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n%s%scontent-length: %d\r\n%s: %s\r\n%s\r\n%s"
            % (
                *(status, PHRASES[status], defaults, content.headers, len(content.body), REQUEST_ID, request_id),
                *(CLOSE if closes else b"", content.body),
            )
        )
        self.server_state.total_requests += 1
        if closes:
            self.transport.close()
            return
        self.idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)
        if self.backlog.data:
            self._parse_later()

    def _wait_for_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for all the time: a request that is known does not stop the timer."""
        self.timeout_keep_alive_task = None
        left = self.idle_since + self.timeout_keep_alive - self.loop.time()
        if self.ordinary is None and left > 0:
            self._wait_for_next(left)
        elif self.ordinary is None:
            super().timeout_keep_alive_handler()

    def ask_application(self) -> None:
        """Give the ordinary request to the application, with what has come of its body."""
        ordinary = self.ordinary
        if ordinary is None:
            return
        self._end_ordinary()
        ordinary.withdrawn = True
        self._unset_keepalive_if_required()
        if ordinary.data:
            self.declined = True
            self._parse_part(ordinary.data)
            self.declined = False
        else:
            self._make_scope()
            super().on_headers_complete()
            if ordinary.body:
                super().on_body(ordinary.body)
            if ordinary.complete:
                super().on_message_complete()
        self.cycle.keep_alive = not self.closes

    def _end_ordinary(self) -> None:
        self.ordinary = None
        if self.gate is not None:
            self.gate.metrics.requests.in_flight -= 1
        self._stop_body_timer()

    def _stop_body_timer(self) -> None:
        if self.body_timer is not None:
            self.body_timer.cancel()
            self.body_timer = None

    def shutdown(self) -> None:
        """Close the connection soon, unless something has come by then: while a server drains, answers close theirs."""
        self.loop.call_later(IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self.waits_for_turn:
            self.shutdown()
        elif self.ordinary is None:
            super().shutdown()

    def _header_error(self) -> tuple[HTTPStatus, str] | None:
        """Return the status and the sentence if the complete headers are refused, else None; note the body's length."""
        if self.non_body_bytes > MAX_HEADER_BYTES:
            return _too_long("headers", self.non_body_bytes)
        version = self.parser.get_http_version()
        if version not in HTTP_VERSIONS:
            return HTTPStatus.BAD_REQUEST, f"the HTTP version is {version}, expected 1.1 or 1.0"
        if self.parser.get_method() == b"CONNECT":
            return HTTPStatus.BAD_REQUEST, "CONNECT is not supported"
        hosts = self.body_left = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self.body_left = int(value)  # the parser takes one, of digits
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                encoding = shown(value.decode("latin-1"))
                return HTTPStatus.BAD_REQUEST, f"Transfer-Encoding is {encoding}, expected 'chunked' or none"
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            return HTTPStatus.BAD_REQUEST, f"the request has {hosts} Host headers, expected one"
        return None

    def pause_writing(self) -> None:
        """Limit the time and the bytes of an answer that is written faster than the client reads it."""
        super().pause_writing()
        if self.answer_timer is None:
            self.answer_timer = self.loop.call_later(self.limits.client_seconds, self._drop_answer, "not read in time")
        size = self.transport.get_write_buffer_size()
        if size > UNCOUNTED_BYTES:
            self.unread = Reservation(self.limits.budget)
            try:
                self.unread.reserve(size)
            except Overloaded:
                self._drop_answer("too many bytes pending")

    def resume_writing(self) -> None:
        """Release the limits once the client has read enough, and go on; the time is that of the whole answer."""
        super().resume_writing()
        self._release_unread()
        if self.cycle is None or self.cycle.response_complete:
            self._stop_answer_timer()
        self._parse_later()

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
        self.backlog.clear()
        if self.ordinary is not None and self.ordinary.complete:
            self.closes = True  # after the answer to the request before
            return
        self.ask_application()
        cycle = self.cycle
        is_answered = cycle is None or cycle.response_complete
        if not is_answered and not cycle.more_body:
            cycle.keep_alive = False  # uvicorn closes after the answer to the request before
            return
        if is_answered or not cycle.response_started:
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


def connection_class(
    limits: ConnectionLimits, selector: TimedSelector, gate: Gate | None = None, tick: Tick | None = None
) -> type[Connection]:
    """Return the class of connections with these limits, for `uvicorn.Config(http=…)`, on the selector's event loop.

    Ordinary requests that `gate` admits are answered by `tick`.
    """
    shared = {
        "limits": limits,
        "gate": gate,
        "tick": tick,
        "selector": selector,
        "turns": Turns(selector),
        "first_turns": Turns(selector, MAX_TURNS),
    }
    return type("Connection", (Connection,), shared)


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
