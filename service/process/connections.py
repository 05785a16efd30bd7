"""An HTTP connection: bytes in, requests one at a time, bytes out.

Headers and bodies, what a client sends ahead of its answers and answers that it does not read are limited in bytes and
time. A refused request gets a JSON error, an id, a log line and a metric of its own (it never reached the application),
and its connection closes. The batcher (`service.inference.scheduling.batcher`) answers the requests that the gate
(`service.http.gate`) admits. The application answers all others (`service.process.cycle`).

`Connection` is an `asyncio.Protocol` on httptools, given to uvicorn by its public `Config(http=…)`. No page of uvicorn
describes the interface of such a class. tests/service/process/test_private_parts.py checks that this file uses only the
following parts, and that uvicorn has them:

- `Class`: the arguments `config`, `server_state`, `app_state` and `_loop`, and the method `shutdown`
- `Config`: the attributes `app` and `timeout_keep_alive`
- `ServerState`: the attributes `connections`, `default_headers` (the date) and `tasks`

httptools accepts CR LF alone as the end of a line. `service.process.backlog` relies on that; a test checks it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Any, ClassVar, cast
from urllib.parse import unquote

import httptools
import structlog
import uvicorn
from starlette.requests import ClientDisconnect

from spikeserve.service.errors import NOT_ENDED, Overloaded, ShuttingDown, shown
from spikeserve.service.http.answers import error_body
from spikeserve.service.http.gate import Gate
from spikeserve.service.inference.decoding.body import late_body
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.scheduling.answer import JSON_LINE, Content
from spikeserve.service.inference.scheduling.batcher import Batcher
from spikeserve.service.process.backlog import Backlog
from spikeserve.service.process.cycle import CLOSE, CONTINUE, SCOPE, Cycle
from spikeserve.service.process.entry import HttpEntry
from spikeserve.service.process.turns import MAX_TURNS, TimedSelector, Turns
from spikeserve.service.process.websockets import WebSocketConnection, handshake_error
from spikeserve.service.telemetry.access import REQUEST_ID, request_id_of

MAX_HEADER_BYTES = 2**16  # request line and headers; also what may stand between two bytes of a chunked body
UNCOUNTED_BYTES = 2**18  # of an unread answer; one in pieces has fewer in the buffer, and is reserved as a whole
MAX_BACKLOG_BYTES = 2**16  # not parsed, or not asked for by the application, before reading from the socket pauses
WORK_PER_TURN = 512  # chunks of a body, and the rest of a part, before other connections have a turn
WORK_OF_A_PART = 8  # in chunks; a body full of empty lines has a part for each
IDLE_SECONDS = 0.05  # a connection stays open at the end, for a request that lies in its socket's buffer
PROBE_SECONDS = 0.5  # between the probes of a client that has closed its sending half, and may have left
START_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
STREAM_PATH = re.compile(rb"/models/[^/?]+(/versions/[^/?]+)?/stream(\?.*)?")  # where WebSockets are accepted

log = structlog.get_logger()


@dataclass(frozen=True)
class ConnectionLimits:
    """How long the headers may take to arrive and an answer may take to be read, in seconds.

    The bytes of unread answers are reserved in `budget`. `count_refused` is called with the status of each refused
    request, and `lost` with the address and port of each client at the end of its connection.
    """

    header_seconds: float
    client_seconds: float
    budget: MemoryBudget
    count_refused: Callable[[int], None]
    lost: Callable[[tuple[str, int]], None] = lambda _: None


class Connection(asyncio.Protocol):
    """A connection with `limits`.

    It parses one request at a time: the next one once this one is answered and its client reads the answers. Meanwhile
    received bytes stay in the backlog, so that a request sent ahead costs no more than its bytes.
    """

    limits: ClassVar[ConnectionLimits]
    gate: ClassVar[Gate | None] = None  # without one, the application answers every request
    batcher: ClassVar[Batcher | None] = None  # the same
    websocket: ClassVar[type[WebSocketConnection] | None] = None  # without one, there are no streams
    selector: ClassVar[TimedSelector]
    turns: ClassVar[Turns]  # of requests that were sent ahead
    first_turns: ClassVar[Turns]  # of those that came to an idle connection in a long iteration of the event loop
    transport: asyncio.Transport
    client: tuple[str, int] | None  # its address and port; None if it left before it was seen

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.config, self.server_state, self.app_state = config, server_state, app_state
        self.loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.backlog = Backlog(self.limits.budget)
        self.request: HttpEntry | Cycle | None = None  # the one without an answer
        self.rest: list[bytes] = []  # pieces of its answer that are not written yet, the next one last
        self.sent: Callable[[], object] | None = None  # called after the last piece
        # Whether it waits for a turn, closes after the answer, closes soon and ignores what it receives, and whether
        # its client sends no more.
        self.waits_for_turn = self.closes = self.refused = self.at_end = False
        self.url, self.head = b"", b""  # the second is empty where the headers came in more than one piece
        self.headers: list[tuple[bytes, bytes]] = []  # of the request that is not answered yet
        self.in_headers = True  # from the end of a request to the end of the next one's headers
        # The bytes to come of a body with a Content-Length. Those of headers, or of chunk extensions and trailers since
        # the last byte of a body. The work of parsing in this turn.
        self.body_left = self.non_body_bytes = self.work = 0
        self.writable = asyncio.Event()  # while the client reads
        self.writable.set()
        self.unread = Reservation(self.limits.budget)  # the bytes of an answer that the client reads slowly
        self.late: Callable[[], None] | None = None  # called at the deadline
        self.deadline, self.timer = 0.0, self.loop.call_at(0.0, self._ring)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time for the first headers."""
        self.transport = cast(asyncio.Transport, transport)
        server, client = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        self.client = client and client[:2]
        self.ends = {"server": server[:2], "client": self.client}
        self.server_state.connections.add(self)
        self._watch(self.limits.header_seconds, self._refuse_late)

    def connection_lost(self, _: Exception | None) -> None:
        """End the request whose client has left, and drop what was received."""
        self.server_state.connections.discard(self)
        self.end_entry(ClientDisconnect())
        self._drop_rest()
        if isinstance(self.request, Cycle):
            self.request.end()
        self.writable.set()
        self.timer.cancel()
        self.unread.release()
        self.backlog.clear()
        if self.client is not None:
            self.limits.lost(self.client)
        del self.parser  # it refers to this connection

    def eof_received(self) -> bool:
        """Answer the complete requests of a client that closes its sending half; return whether there are any."""
        self.at_end = True
        self._watch(PROBE_SECONDS, self._probe)
        return not self._is_over()

    def _is_over(self) -> bool:
        """Return whether the client sends no more, and its complete requests are answered."""
        waits = not (self.writable.is_set() if self.request is None else self.request.more_body)
        return self.at_end and not (waits or self.waits_for_turn)

    def _probe(self) -> None:
        """Send 100 Continue where the answer has not begun: only writing tells whether the client has left."""
        request = self.request
        has_begun = request.is_over if isinstance(request, HttpEntry) else request is None or request.head is not None
        if not has_begun and self.parser.get_http_version() == "1.1":
            self.transport.write(CONTINUE)
            self._watch(PROBE_SECONDS, self._probe)

    def _watch(self, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` after that time, unless the connection goes on before: then `late` is another one, or None.

        A deadline is moved by far more often than it passes, so the timer of an earlier one is kept.
        """
        now = self.loop.time()
        self.late, self.deadline = late, now + seconds
        if not now < self.timer.when() <= self.deadline:
            self.timer.cancel()
            self.timer = self.loop.call_at(self.deadline, self._ring)

    def _ring(self) -> None:
        late = self.late
        if late is not None and self.loop.time() < self.deadline:
            self.timer = self.loop.call_at(self.deadline, self._ring)
        elif late is not None:
            self.late = None
            late()

    def data_received(self, data: bytes) -> None:
        """Parse the data, or keep it while an earlier request is being answered."""
        if self.refused:
            return
        is_long, gate = self.selector.is_long, self.gate
        if gate is not None and not is_long and self._is_idle() and (known := gate.known(data)):
            self._set_entry(HttpEntry(*known, connection=self, more_body=False))
            self._settle(alone=True)
            return
        self.backlog.add(data)
        if is_long:
            self._wait_for_turn(self.first_turns)
        elif not self.waits_for_turn:
            self._parse(alone=True)
        self.pace()

    def pace(self) -> None:
        """Read on, unless the backlog or the body is long; a long backlog counts in the budget."""
        is_long = len(self.backlog) > MAX_BACKLOG_BYTES
        if is_long or (self.request is not None and len(self.request.body) > MAX_BACKLOG_BYTES):
            self.transport.pause_reading()
        elif not self.refused:
            self.transport.resume_reading()
        if is_long:
            try:
                self.backlog.reserve()
            except Overloaded:
                sentence = "the requests sent ahead on all connections exceed the memory budget, expected fewer of them"
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        elif self.backlog.reserved.size:
            self.backlog.release()

    def _wait_for_turn(self, turns: Turns) -> None:
        if not self.waits_for_turn:
            self.waits_for_turn = True
            turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self.waits_for_turn = False
        if not self.refused and not self.transport.is_closing():
            self._parse(alone=False)
            self.pace()

    def _parse(self, *, alone: bool) -> None:
        """Parse the received bytes, at most to the end of a request, and have a complete entry answered."""
        backlog, self.work = self.backlog, 0
        while backlog.data and not self.refused:
            if self.in_headers and not self.non_body_bytes and self._must_wait():
                break  # the next request may not begin yet
            if self.work >= WORK_PER_TURN:
                self._wait_for_turn(self.turns)
                break
            if not (part := backlog.take(self.body_left)):
                break
            self._parse_part(part)
            self.work += WORK_OF_A_PART
        self._settle(alone=alone)
        # Headers have their time from their first byte on; those that arrive in one piece, as most do, need none.
        has_begun = self.non_body_bytes or (backlog.data and not self._must_wait())
        if self.in_headers and has_begun and self.late != self._refuse_late:
            self._watch(self.limits.header_seconds, self._refuse_late)
        if self._is_over():
            self.transport.close()

    def _settle(self, *, alone: bool) -> None:
        """Have an entry answered, or wait for the rest of its body."""
        entry = self.request
        if self.batcher is None or not isinstance(entry, HttpEntry) or entry.settled:
            return
        if not entry.more_body:
            entry.settled, self.late = True, None
            self.batcher.add(entry, alone=alone)
            if self.at_end and not entry.is_over:
                self._watch(PROBE_SECONDS, self._probe)
        elif self.late is None:
            milliseconds = entry.endpoint.extras.milliseconds
            self._watch(min(self.limits.client_seconds, milliseconds / 1000 or math.inf), self._end_late)

    def _end_late(self) -> None:
        """End an entry whose body does not come in time."""
        entry, seconds = self.request, self.limits.client_seconds
        if isinstance(entry, HttpEntry):
            is_expired = perf_counter() - entry.started < seconds
            self.end_entry(late_body(len(entry.body), seconds, expired=is_expired))

    def end_entry(self, error: Exception) -> None:
        """End the request by an error, if the batcher answers it and has not yet."""
        if self.batcher is not None and isinstance(self.request, HttpEntry):
            self.batcher.end(self.request, error)

    def _is_idle(self) -> bool:
        """Return whether the next request may begin, and no byte of it was received."""
        waits = self.waits_for_turn or self._must_wait()
        return self.in_headers and not (self.non_body_bytes or self.backlog.data or waits)

    def _must_wait(self) -> bool:
        """Return whether the answer before is not complete, or its client does not read."""
        return self.request is not None or not self.writable.is_set()

    def _set_entry(self, entry: HttpEntry | None) -> None:
        self.request, self.late = entry, None
        if self.gate is not None:
            self.gate.metrics.requests.in_flight += 1 if entry else -1

    def _parse_part(self, part: bytes | memoryview) -> None:
        self.head = bytes(part) if self.in_headers and not self.non_body_bytes else b""
        self.non_body_bytes += len(part)
        try:
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade:
                self._upgrade()
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
        self._check_length()

    def _check_length(self) -> None:
        if self.non_body_bytes > MAX_HEADER_BYTES:
            what = "headers" if self.in_headers else "chunk extensions and trailers"
            sentence = f"the {what} have {self.non_body_bytes} bytes or more, expected at most {MAX_HEADER_BYTES}"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)

    def _upgrade(self) -> None:
        """Give the connection to a stream's protocol. Elsewhere `Upgrade` is ignored, which RFC 9110 (7.8) allows.

        The headers are parsed again without it: the parser stopped after them, and would take the body for the next
        request.
        """
        method, headers, stream = self.parser.get_method(), self.headers, None
        if method == b"GET" and STREAM_PATH.fullmatch(self.url) and dict(headers)[b"upgrade"].lower() == b"websocket":
            stream = self.websocket
        if stream is None:
            headers = [header for header in headers if header[0] != b"upgrade"]
        start = (method, self.url, self.parser.get_http_version().encode())
        request = b"%s %s HTTP/%s\r\n%s\r\n" % (*start, self.lines_of(headers))
        if stream is None:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(request)
        elif error := handshake_error(self.url, headers):
            self._refuse(*error)
        else:
            protocol: Any = stream(self.config, self.server_state, self.app_state)
            self.server_state.connections.discard(self)
            protocol.connection_made(self.transport)
            protocol.data_received(request)
            self.transport.set_protocol(protocol)
            if not protocol.handshake_initiated:  # its library did not take the headers, and would leave it at that
                self._refuse(HTTPStatus.BAD_REQUEST, "the headers are not a valid handshake of a WebSocket")
            elif rest := bytes(self.backlog.take(len(self.backlog))):
                protocol.data_received(rest)
            self.backlog.clear()
            self.refused, self.late = True, None  # nothing else is parsed here

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url, self.headers = b"", []

    def on_url(self, url: bytes) -> None:
        """Keep a part of the URL."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer, which proxies in front may have passed on unchecked, is dropped."""
        if self.in_headers:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Refuse the request or start to answer it; for a refused one, raises ValueError, which stops the parser."""
        self._check_length()
        if error := self._header_error():
            self._refuse(HTTPStatus.BAD_REQUEST, error)
        if self.refused:
            raise ValueError
        if self.parser.should_upgrade():
            return  # it is parsed again
        self.in_headers, self.non_body_bytes = False, 0
        gate = self.gate
        may_be = self.parser.get_method() == b"POST" and self.parser.get_http_version() == "1.1"
        if gate is not None and may_be and (admitted := gate.admit(self.url, self.headers, self.body_left)):
            self._set_entry(HttpEntry(*admitted, connection=self))
            self.closes |= not self.parser.should_keep_alive()
            if self.head and not self.closes:
                gate.learn(self.head, self.headers, admitted[0], self.body_left)
        else:
            self._ask()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, unless the request has its answer."""
        self.non_body_bytes = 0
        self.work += 1
        self.body_left = max(0, self.body_left - len(body))
        if self.request is not None:
            self.request.feed(body, more=True)

    def on_message_complete(self) -> None:
        """Complete the request, unless it is to be parsed again."""
        if self.parser.should_upgrade():
            return
        if self.request is not None:
            self.request.feed(b"", more=False)
        self.in_headers, self.non_body_bytes = True, 0

    def _ask(self) -> Cycle:
        """Ask the application; an invalid URL raises one of several exceptions, each of which stops the parser."""
        method, version, self.late = self.parser.get_method().decode(), self.parser.get_http_version(), None
        url = httptools.parse_url(self.url)
        path = {"path": unquote(url.path.decode("ascii")), "raw_path": url.path, "query_string": url.query or b""}
        request = {"method": method, "http_version": version, "headers": self.headers, "state": self.app_state.copy()}
        scope = {**SCOPE, **self.ends, **path, **request}
        self.closes = self.closes or version == "1.0" or not self.parser.should_keep_alive()
        self.request = Cycle(self, scope)
        if self.at_end:
            self._watch(PROBE_SECONDS, self._probe)
        task = self.loop.create_task(self.request.run(self.config.app, scope))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)
        return self.request

    def answer(self, status: int, content: Content | None, sent: Callable[[], object] | None = None) -> None:
        """Answer the entry as its client reads, and then call `sent`; of no content, send nothing."""
        self.closes = self.closes or (self.gate is not None and self.gate.catalog.draining)
        entry, self.sent = cast(HttpEntry, self.request), sent
        if content is None or self.transport.is_closing():
            self._drop_rest()
            self._set_entry(None)
            return
        self.rest = list(reversed(content.more))
        self.write(status, content, entry.request_id)
        self._write_rest()

    def _write_rest(self) -> None:
        """Write pieces of the answer while the client reads; go on after the last one."""
        while self.rest and self.writable.is_set():
            self.transport.write(self.rest.pop())
        if not self.rest:
            self._drop_rest()
            self._set_entry(None)
            self.over()

    def _drop_rest(self) -> None:
        """Give back what is held for the answer."""
        self.rest, sent, self.sent = [], self.sent, None
        if sent is not None:
            sent()

    def write(self, status: int, content: Content, request_id: bytes) -> None:
        """Write an answer that is not the application's."""
        length = len(content.body) + sum(map(len, content.more))
        own = b"content-length: %d\r\n%s%s: %s\r\n" % (length, content.lines, REQUEST_ID, request_id)
        lines = (content.headers, own, CLOSE if self.closes else b"")
        self.transport.write(self.head_of(status, *lines) + content.body)

    def head_of(self, status: int, *lines: bytes) -> bytes:
        """Write the head of an answer: the line of its status, the date, then the other headers."""
        return b"".join((START_LINES[status], self.lines_of(self.server_state.default_headers), *lines, b"\r\n"))

    @staticmethod
    def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return headers as they are sent."""
        return b"".join([b"%s: %s\r\n" % header for header in headers])

    def over(self) -> None:
        """Close after an answer, or go on with the next request."""
        self.request, self.headers = None, []
        if not self.transport.is_reading():
            self.pace()
        if self.backlog.data and not self.closes:
            self._wait_for_turn(self.turns)
        if self.closes or self._is_over():
            self.transport.close()
        elif self.writable.is_set():
            self._watch(self.config.timeout_keep_alive, self._close_idle)

    def shutdown(self) -> None:
        """Close the connection soon, unless something has come by then: while a server drains, answers close theirs."""
        self.loop.call_later(IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self.waits_for_turn:
            self.shutdown()
        elif self.request is None:
            self.transport.close()
        else:
            self.closes = True

    def _header_error(self) -> str | None:
        """Return the error of the complete headers, or None, and note the length of the body."""
        version, headers = self.parser.get_http_version(), self.headers
        self.body_left = int(dict(headers).get(b"content-length", 0))  # the parser takes one, of digits
        hosts = [name for name, _ in headers].count(b"host")
        encodings = [value for name, value in headers if name == b"transfer-encoding" and value.lower() != b"chunked"]
        if version not in ("1.0", "1.1"):
            return f"the HTTP version is {version}, expected 1.1 or 1.0"
        if self.parser.get_method() == b"CONNECT":
            return "CONNECT is not supported"
        if encodings:
            return f"Transfer-Encoding is {shown(encodings[0].decode('latin-1'))}, expected 'chunked' or none"
        if hosts > 1 or (not hosts and version == "1.1"):
            return f"the request has {hosts} Host headers, expected one"
        return None

    def pause_writing(self) -> None:
        """Limit the time and the bytes of an answer whose client reads slowly."""
        self.writable.clear()
        if self.late in (None, self._probe):
            self._watch(self.limits.client_seconds, self._drop_answer)
        size = self.transport.get_write_buffer_size()
        try:
            self.unread.resize(size if size > UNCOUNTED_BYTES else 0)
        except Overloaded:
            self._drop_answer("too many bytes pending")

    def resume_writing(self) -> None:
        """Release the limit of bytes once the client has read enough, and go on; the limit of time stays."""
        self.writable.set()
        self.unread.resize(0)
        if self.rest:
            self._write_rest()
        elif self.request is None:
            self.over()

    def _drop_answer(self, why: str = "not read in time") -> None:
        log.warning("answer_dropped", bytes=self.transport.get_write_buffer_size(), why=why)
        self.transport.abort()

    def _refuse_late(self) -> None:
        sentence = f"the headers were incomplete after {self.limits.header_seconds:g} seconds, expected them by then"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, sentence)

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Close the connection; send the error first if the client cannot take it for the answer to another request."""
        if self.refused or self.transport.is_closing():
            return
        self.refused = self.closes = True
        request_id = request_id_of(dict(self.headers))
        self.limits.count_refused(status)
        log.info("connection_refused", request_id=request_id.decode(), status=int(status), error=sentence)
        self.backlog.clear()
        if self.request is not None and not self.request.more_body:
            return  # after the answer to the request before
        self.end_entry(ClientDisconnect())
        if not isinstance(self.request, Cycle) or self.request.head is None:
            self.write(status, Content(error_body(sentence), JSON_LINE), request_id)
        self.transport.close()


def connection_class(limits: ConnectionLimits, selector: TimedSelector, *shared: Any) -> type[Connection]:
    """Return the class of connections with these limits, for `uvicorn.Config(http=…)`, on the selector's event loop.

    `shared` are a gate, the batcher that answers what it admits, and the class of WebSockets.
    """
    members = dict(zip(("gate", "batcher", "websocket"), shared, strict=False))
    turns = {"turns": Turns(selector), "first_turns": Turns(selector, MAX_TURNS)}
    return type("Connection", (Connection,), {"limits": limits, "selector": selector, **members, **turns})


def requests_in_progress(server: uvicorn.Server) -> set[object]:
    """Return the entries that are not answered, and the tasks that answer other requests."""
    connections: Iterable[object] = server.server_state.connections
    entries = {each.request for each in connections if isinstance(each, Connection)}
    return {*server.server_state.tasks, *(each for each in entries if isinstance(each, HttpEntry))}


async def cancel_requests(server: uvicorn.Server, seconds: float) -> None:
    """End the requests that are not answered, each with a 503, and wait for that up to `seconds`."""
    for connection in list(server.server_state.connections):
        if isinstance(connection, Connection):
            connection.end_entry(ShuttingDown(NOT_ENDED))
    await asyncio.sleep(0)  # a task that has not begun would be gone without an answer
    tasks = set(server.server_state.tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def abort_connections(server: uvicorn.Server) -> bool:
    """Close every connection at once, and return whether a part of an answer was lost with one."""
    transports = [connection.transport for connection in server.server_state.connections]
    lost = any(transport.get_write_buffer_size() for transport in transports)
    for transport in transports:
        transport.abort()
    return lost
