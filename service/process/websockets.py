"""A WebSocket connection: uvicorn's, with bounds on what a client can make it hold.

uvicorn stops reading after each message until the application has taken it. It still parses all that one read from the
socket brought, which may be tens of thousands of empty messages or fragments; it answers pings without regard to
whether the client reads the answers; and it waits without end for a client that reads nothing. `WebSocketConnection`
feeds its parser a little at a time, and reads nothing from a client that does not read.

Like `service.process.connections`, this file uses private parts of uvicorn, which pyproject.toml bounds and
tests/service/process/test_private_parts.py holds: of `WebSocketsSansIOProtocol` the attributes `close_sent`, `conn`,
`curr_msg_data_type`, `frames`, `handshake_complete`, `handshake_initiated`, `logger`, `loop`, `read_paused`,
`transport` and `writable`, the method `handle_parser_exception`, and those that are overridden below.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from service.errors import Overloaded
from service.inference.memory import MemoryBudget, Reservation

MAX_MESSAGE_BYTES = 2**26  # of one message; the longest are states that clients bring
FEED_BYTES = 2**12  # given to the parser at once: some hundreds of the smallest messages
UNCOUNTED_BYTES = 2**16  # received of messages that the application has not taken; more count in the memory budget
MAX_FRAGMENTS = 256  # of one message

log = structlog.get_logger()
quiet = logging.getLogger("service.websockets")
quiet.setLevel(logging.WARNING)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which holds at most one message and one read from the socket.

    Its client may take `answer_seconds` to read; what was received and not parsed counts in `budget`.
    """

    answer_seconds: ClassVar[float]
    budget: ClassVar[MemoryBudget]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = quiet  # the service logs each session as it logs a request
        self.backlog = memoryview(b"")
        self.parsed = 0  # bytes that the parser was given since the last message was taken
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
        self.parsed = 0
        self._count()
        if not self.writable.is_set():
            self.transport.pause_reading()
        elif not self.read_paused and self.backlog:
            self.loop.call_soon(self._feed)
        return message

    async def send(self, message: Any) -> None:
        """Send a message; a handshake that was refused is complete, which uvicorn leaves out and then complains of.

        Once it is accepted, what came behind it is parsed.
        """
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
        elif message["type"] == "websocket.accept" and self.backlog and not self.read_paused:
            self.transport.resume_reading()
            self.loop.call_soon(self._feed)

    def send_receive_event_to_app(self) -> None:
        """Queue a message, and note that it waits.

        uvicorn pauses reading here and resumes it when the message is taken: two system calls for each message. `_feed`
        pauses it only where more has come.
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

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message; end the connection where there are too many."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has over {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

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
        if not self.read_paused:
            self.transport.resume_reading()
            self._feed()

    def _feed(self) -> None:
        while self.backlog and self._may_parse():
            part, self.backlog = self.backlog[:FEED_BYTES], self.backlog[FEED_BYTES:]
            self.parsed += len(part)
            super().data_received(bytes(part))
        if self.backlog and not self.transport.is_closing():
            self.transport.pause_reading()
        self._count()

    def _may_parse(self) -> bool:
        """Return whether no message waits, the client reads, and no handshake waits for its answer.

        A frame that came before that answer would be an error to the parser, which uvicorn does not expect there.
        """
        in_handshake = self.handshake_initiated and not self.handshake_complete
        return not (self.read_paused or in_handshake or self.transport.is_closing()) and self.writable.is_set()

    def _count(self) -> None:
        """Count what is held of messages in the memory budget, where it is much."""
        if self.transport.is_closing():
            self._drop_received()
            return
        held = len(self.backlog) + self.parsed
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
