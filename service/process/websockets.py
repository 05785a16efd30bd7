"""A WebSocket connection: uvicorn's, with bounds on what a client can make it hold.

uvicorn stops reading after each message until the application has taken it. So a ping behind a message that waits is
not answered, and a pong there does not count, while one message takes long: either side's keepalive then ends the
connection. It still parses all that one read from the socket brought, which may be tens of thousands of empty messages
or fragments; it answers pings without regard to whether the client reads the answers; and it waits without end for a
client that reads nothing. `WebSocketConnection` feeds its parser a little at a time, reads ahead of the application so
that pings are answered, and reads nothing from a client that does not read.

Like `service.process.connections`, this file uses private parts of uvicorn, which pyproject.toml bounds and
tests/service/process/test_private_parts.py holds: of `WebSocketsSansIOProtocol` the attributes `close_sent`, `conn`,
`curr_msg_data_type`, `frames`, `handshake_complete`, `handshake_initiated`, `logger`, `loop`, `ping_timeout`,
`pong_timer`, `read_paused`, `transport` and `writable`, the method `handle_parser_exception`, and those that are
overridden below.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from spikeserve.service.errors import Overloaded
from spikeserve.service.inference.memory import MemoryBudget, Reservation

MAX_MESSAGE_BYTES = 2**26  # of one message; the longest are states that clients bring
FEED_BYTES = 2**12  # given to the parser at once: some hundreds of the smallest messages
UNCOUNTED_BYTES = 2**16  # received of messages that the application has not taken; more count in the memory budget
MAX_FRAGMENTS = 256  # of one message
AHEAD_BYTES = 2**18  # of messages that wait for the application, beyond which no more are parsed
AHEAD_MESSAGES = 256  # the same

log = structlog.get_logger()
quiet = logging.getLogger("spikeserve.websockets")
quiet.setLevel(logging.WARNING)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which holds one message or some short ones, and one read from the socket.

    Its client may take `answer_seconds` to read; what was received and not parsed counts in `budget`.
    """

    answer_seconds: ClassVar[float]
    budget: ClassVar[MemoryBudget]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = quiet  # the service logs each session as it logs a request
        self.backlog = memoryview(b"")
        self.parsed = 0  # bytes that the parser was given of a message that is not complete
        self.waiting: deque[int] = deque()  # the bytes of each message that waits for the application
        self.ahead = 0  # their sum
        self.reserved: Reservation | None = None
        self.answer_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was not parsed."""
        self._stop_answer_timer()
        self._drop_received()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse up to the end of a message, and keep the rest."""
        self.backlog = memoryview(b"".join((self.backlog, data))) if self.backlog else memoryview(data)
        self._feed()

    async def receive(self) -> Any:
        """Return the next message, and go on with what was received behind it."""
        message = await super().receive()
        self.ahead -= self.waiting.popleft() if self.waiting else 0
        self._count()
        if not self.writable.is_set():
            self.transport.pause_reading()
        elif self.backlog and not self._is_ahead():
            self.loop.call_soon(self._feed)
        return message

    async def send(self, message: Any) -> None:
        """Send a message; a handshake that was refused is complete, which uvicorn leaves out and then complains of.

        What has come is parsed once the connection is accepted, and once it closes, up to the client's own close.
        """
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
        elif message["type"] in ("websocket.accept", "websocket.close") and self.backlog:
            self.loop.call_soon(self._feed)

    def send_receive_event_to_app(self) -> None:
        """Queue a message, and note that it waits.

        uvicorn pauses reading here and resumes it when the message is taken: two system calls for each message. `_feed`
        pauses it only where more has come than may wait.
        """
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.conn.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")  # uvicorn logs this as an error of its own
            self.handle_parser_exception()
            return
        waits = self.read_paused
        self.read_paused = True
        super().send_receive_event_to_app()
        if self.close_sent:  # it was dropped
            self.read_paused = waits
        else:
            self.waiting.append(self.parsed)
            self.ahead += self.parsed
        self.parsed = 0

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message; end the connection where there are too many."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has over {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        """End a connection whose client has not answered a ping; while nothing is read, the answer may lie unread."""
        if self._is_ahead() or not self.writable.is_set():
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def pause_writing(self) -> None:
        """Read no further from a client that does not read, and end the connection if that lasts."""
        super().pause_writing()
        self.transport.pause_reading()
        if self.answer_timer is None:
            self.answer_timer = self.loop.call_later(self.answer_seconds, self._drop, "not read in time")

    def resume_writing(self) -> None:
        """Go on reading."""
        super().resume_writing()
        self._stop_answer_timer()
        self._feed()

    def _feed(self) -> None:
        while self.backlog and self._may_parse():
            part, self.backlog = self.backlog[:FEED_BYTES], self.backlog[FEED_BYTES:]
            self.parsed += len(part)
            super().data_received(bytes(part))
        if self.backlog and not self.transport.is_closing():
            self.transport.pause_reading()
        elif self.writable.is_set():
            self.transport.resume_reading()
        self._count()

    def _may_parse(self) -> bool:
        """Return whether few messages wait, the client reads, and no handshake waits for its answer.

        A frame that came before that answer would be an error to the parser, which uvicorn does not expect there.
        """
        in_handshake = self.handshake_initiated and not self.handshake_complete
        return not (self._is_ahead() or in_handshake or self.transport.is_closing()) and self.writable.is_set()

    def _is_ahead(self) -> bool:
        """Return whether as many messages wait as may; those behind a close are dropped."""
        return not self.close_sent and (self.ahead >= AHEAD_BYTES or len(self.waiting) >= AHEAD_MESSAGES)

    def _count(self) -> None:
        """Count what is held of messages in the memory budget, where it is much."""
        if self.transport.is_closing():
            self._drop_received()
            return
        held = len(self.backlog) + self.parsed + self.ahead
        counted = 0 if self.reserved is None else self.reserved.size
        if held <= UNCOUNTED_BYTES:
            self._release()
        elif held > counted:
            self.reserved = self.reserved or Reservation(self.budget)
            try:
                self.reserved.reserve(held - counted)
            except Overloaded:
                self._drop("too many bytes pending")

    def _release(self) -> None:
        if self.reserved is not None:
            self.reserved.release()
            self.reserved = None

    def _drop_received(self) -> None:
        self.backlog = memoryview(b"")
        self._release()

    def _stop_answer_timer(self) -> None:
        if self.answer_timer is not None:
            self.answer_timer.cancel()
            self.answer_timer = None

    def _drop(self, why: str) -> None:
        log.warning("stream_dropped", bytes=self.transport.get_write_buffer_size(), why=why)
        self.transport.abort()


def _is_utf8(parts: Sequence[bytes]) -> bool:
    try:
        b"".join(parts).decode()
    except UnicodeDecodeError:
        return False
    return True


def websocket_class(answer_seconds: float, budget: MemoryBudget) -> type[WebSocketConnection]:
    """Return the class of WebSocket connections with these limits, for `uvicorn.Config(ws=…)`."""
    members = {"answer_seconds": answer_seconds, "budget": budget}
    return type("WebSocketConnection", (WebSocketConnection,), members)
