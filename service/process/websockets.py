"""A WebSocket connection: uvicorn's, with bounds on its memory and its work.

uvicorn stops reading after each message until the application has taken it. While one message takes long, it answers no
ping and counts no pong behind a message that waits: either side's keepalive then ends the connection. It parses at once
all that one read of the socket brought: tens of thousands of empty messages, fragments or pings. It answers pings even
if the client does not read the answers, and it waits without end for a client that reads nothing.

`WebSocketConnection` parses a few frames in each turn. It reads ahead of the application so that pings are answered,
and reads nothing from a client that does not read.

The library reports nothing of an opening request that it cannot parse; such a connection would stay open, unanswered.
So this file checks the request before.

Like `service.process.connections`, this file uses private parts of uvicorn. pyproject.toml bounds its version, and
tests/service/process/test_private_parts.py checks the parts:

- `WebSocketsSansIOProtocol`: the attributes `close_sent`, `conn`, `curr_msg_data_type`, `frames`, `handshake_complete`,
  `handshake_initiated`, `logger`, `loop`, `ping_timeout`, `pong_timer`, `queue`, `transport` and `writable`, the method
  `handle_parser_exception`, and the methods that are overridden below
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from sys import getsizeof
from typing import Any, ClassVar, cast

import structlog
from starlette.requests import ClientDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, apply_mask  # type: ignore[attr-defined]  # of C, where that is built

from spikeserve.service.errors import Overloaded, shown
from spikeserve.service.http.stream import SOCKET
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.process.turns import MAX_TURNS, TimedSelector, Turns

MAX_FRAMES = 64  # of one part: parsing and answering as many pings takes some milliseconds

MASKED, LENGTH = 0x80, 0x7F  # the bits of a frame's second byte
LONG_LENGTHS = {126: 2, 127: 8}  # the bytes of a length that does not fit into these bits
MASK_BYTES = 4
WHOLE: dict[int, Any] = {0x81: "text", 0x82: "bytes"}  # the first byte of a frame that is a message of its own


def frame_bytes(data: bytes, at: int) -> int:
    """Return the bytes of the frame that begins there, or 0 where its header is not complete."""
    if len(data) - at < 2:
        return 0
    second = data[at + 1]
    length = second & LENGTH
    long = LONG_LENGTHS.get(length, 0)
    header = 2 + long + (MASK_BYTES if second & MASKED else 0)
    if len(data) - at < header:
        return 0
    return header + (int.from_bytes(data[at + 2 : at + 2 + long]) if long else length)


def _text_head(size: int) -> bytes:
    """Return the head of a server's frame with a text of this size, in bytes."""
    if size < 126:
        return bytes((0x81, size))
    return b"\x81\x7e" + size.to_bytes(2) if size < 2**16 else b"\x81\x7f" + size.to_bytes(8)


MAX_HEADERS, MAX_LINE_BYTES = 128, 8190  # of the library, which also counts a line's end
KEY_BYTES = 16
BASE64 = re.compile(rb"[A-Za-z0-9+/]{22}==")  # of KEY_BYTES
TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
VERSION, KEY = b"sec-websocket-version", b"sec-websocket-key"


def handshake_error(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[HTTPStatus, str] | None:
    """Return the status and the sentence with which a request to open a WebSocket is refused, else None."""
    opening = "the request to open a WebSocket"
    if len(headers) > MAX_HEADERS:
        return TOO_LARGE, f"{opening} has {len(headers)} headers, expected at most {MAX_HEADERS}"
    lines = [len(b"GET  HTTP/1.1") + len(url), *(len(name) + len(b": ") + len(value) for name, value in headers)]
    if max(lines) > MAX_LINE_BYTES:
        return TOO_LARGE, f"a line of {opening} has {max(lines)} bytes, expected at most {MAX_LINE_BYTES}"
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and int(value)):
            return HTTPStatus.BAD_REQUEST, f"{opening} has a body, expected none"
    versions, keys = ([value for each, value in headers if each == name] for name in (VERSION, KEY))
    if versions != [b"13"]:
        return HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Version is {_listed(versions)}, expected '13'"
    if len(keys) != 1 or not BASE64.fullmatch(keys[0]):
        return HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Key is {_listed(keys)}, expected base64 of {KEY_BYTES} bytes"
    return None


def _listed(values: Sequence[bytes]) -> str:
    return shown(", ".join(value.decode("latin-1") for value in values)) if values else "missing"


MAX_MESSAGE_BYTES = 2**26  # of one message; the longest are states that clients bring
UNCOUNTED_BYTES = 2**16  # of a client that its connection holds; more count in the memory budget
MAX_FRAGMENTS = 256  # of one message
AHEAD_BYTES = 2**18  # of messages that wait for the application, beyond which no more are parsed
AHEAD_MESSAGES = 256  # the same
AT_ONCE = 2  # messages of one part that are answered without a turn: some events, and the time that closes their window

log = structlog.get_logger()
quiet = logging.getLogger("spikeserve.websockets")
quiet.setLevel(logging.WARNING)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which holds one message or some short ones, and one read from the socket.

    Its client may take `client_seconds` to read. The bytes of a message count in `budget`, from the socket until the
    application asks for the next one.
    """

    client_seconds: ClassVar[float]
    budget: ClassVar[MemoryBudget]
    selector: ClassVar[TimedSelector]
    turns: ClassVar[Turns]  # of all WebSockets

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = quiet  # the service logs each session as it logs a request
        self.backlog = b""
        self.start = 0  # the bytes of the backlog before it were given to the parser
        self.begun = 0  # the bytes so far of a frame that is not complete
        self.left = 0  # the bytes of it that are still to come
        self.waits_for_turn = False
        self.waiting: deque[int] = deque()  # the bytes of each message that waits for the application
        self.ahead = 0  # their sum
        self.taken = 0  # the bytes of the message that the application works on
        self.is_asked = False  # whether the application waits for a message
        self.take: Callable[[bytes | str], bool] | None = None  # answers a short message at once, or returns False
        self.reserved = Reservation(self.budget)
        self.answer_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what no message was made of."""
        self._stop_answer_timer()
        self.backlog, self.start, self.frames, self.begun, self.left = b"", 0, [], 0, 0
        self.conn.receive_eof()  # the parser drops a frame that is not complete
        self._count()
        super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Drop the messages that the application did not take."""
        super().on_task_complete(task)
        self.take = None
        self.queue = asyncio.Queue()
        self.waiting.clear()
        self.ahead = self.taken = 0
        self._count()

    def data_received(self, data: bytes) -> None:
        """Parse a few frames, unless a turn is waited for, and keep the rest."""
        self.backlog, self.start = self.backlog[self.start :] + data, 0
        if self.waits_for_turn or (self.handshake_initiated and self.selector.is_long):
            self._wait_for_turn()
            self._pace()
        else:
            self._feed()

    async def run_asgi(self) -> None:
        """Offer our extension of ASGI, and run the application in a turn."""
        self.scope["extensions"][SOCKET] = {"connection": self}
        await self.turns.begin()
        await super().run_asgi()

    async def send_texts(self, texts: Sequence[bytes]) -> None:
        """Write texts once the client reads: all, or none if it is cancelled. Raises ClientDisconnect."""
        if await self.writable.wait() and not self.write_texts(texts):
            raise ClientDisconnect

    def write_texts(self, texts: Sequence[bytes]) -> bool:
        """Write texts at once, or none where the connection closes; return whether it does not."""
        if self.close_sent or self.transport.is_closing():
            return False
        self.transport.write(b"".join([part for text in texts for part in (_text_head(len(text)), text)]))
        return True

    async def receive(self) -> Any:
        """Return the next message, in a turn if it has waited, and give the bytes of the one before back."""
        self.taken = 0
        self._count()
        if self.waiting:
            await self.turns.turn()
        self.is_asked = True
        message = await self.queue.get()
        self.is_asked = False
        if message["type"] == "websocket.receive" and self.waiting:
            self.taken = self.waiting.popleft()
            self.ahead -= self.taken
            if self.start < len(self.backlog):
                self._go_on()
        return message

    async def send(self, message: Any) -> None:
        """Send a message; a handshake that was refused is complete, which uvicorn leaves out and then complains of.

        Received bytes are parsed once the connection is accepted, and once it closes, up to the client's own close.
        """
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
        elif message["type"] in ("websocket.accept", "websocket.close"):
            self._go_on()

    def handle_events(self) -> None:
        """Handle frames; the parser holds on to its last one, whose bytes would stay until the next frame."""
        last = self.conn.events[-1:]
        super().handle_events()
        for event in last:
            if isinstance(event, Frame):
                event.data = b""

    def send_receive_event_to_app(self) -> None:
        """Queue a message that came as some frames, or as a frame in parts."""
        frames, self.frames = self.frames, []
        self._come(b"".join(frames), self.curr_msg_data_type)

    def _come(self, content: Any, kind: Any, *, at_once: bool = False) -> None:
        """Have a message answered `at_once`, or else queue it; it is dropped once the connection closes."""
        if self.close_sent:
            return
        if kind == "text":
            try:
                content = content.decode()
            except UnicodeDecodeError:  # uvicorn logs this as an error of its own
                self.conn.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")
                self.handle_parser_exception()
                return
        if not (at_once and self.is_asked and self.writable.is_set() and self.take and self.take(content)):
            self.queue_message(content, kind)

    def queue_message(self, content: bytes | str, kind: str = "bytes") -> None:
        """Queue a message with its size, which uvicorn does without."""
        self.is_asked = False
        self.waiting.append(getsizeof(content))  # of a text, up to four bytes for each character
        self.ahead += self.waiting[-1]
        self.queue.put_nowait(cast("Any", {"type": "websocket.receive", kind: content}))

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message; end the connection where there are too many."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has over {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Do nothing: `_feed` writes the answers to all pings at once."""

    def keepalive_timeout(self) -> None:
        """End a connection whose client has not answered a ping, unless bytes wait to be parsed."""
        if self._has_part() or self._is_ahead() or not self.writable.is_set():
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def pause_writing(self) -> None:
        """Read no further from a client that does not read, and end the connection if that lasts."""
        super().pause_writing()
        self.transport.pause_reading()
        self.answer_timer = self.loop.call_later(self.client_seconds, self._drop, "not read in time")

    def resume_writing(self) -> None:
        """Go on reading."""
        super().resume_writing()
        self._stop_answer_timer()
        self._go_on()

    def _feed(self) -> None:
        """Take a few of the received frames, and wait for a turn if there are more."""
        if self._may_parse():
            if not self.handshake_initiated:
                head, self.start = self.backlog[self.start :], len(self.backlog)
                super().data_received(head)
            for place in range(MAX_FRAMES):
                size = self.left or frame_bytes(self.backlog, self.start)
                if not size or self.start == len(self.backlog) or self.transport.is_closing():
                    break
                self._take_frame(size, at_once=place < AT_ONCE)
            if (output := b"".join(self.conn.data_to_send())) and not self.transport.is_closing():
                self.transport.write(output)
        holds = len(self.backlog) > self.start or self.begun or self.frames or self.reserved.size
        if self.is_asked and not holds and self.transport.is_reading():
            self.backlog, self.start = b"", 0  # as most often: all was answered, and nothing is held
        else:
            self._go_on()

    def _has_part(self) -> bool:
        """Return whether there is more to parse than the beginning of a header."""
        return self.start < len(self.backlog) and (self.left > 0 or frame_bytes(self.backlog, self.start) > 0)

    def _take_frame(self, size: int, *, at_once: bool) -> None:
        """Take a message that is one frame, as most are; have the parser read any other frame, or a part of it.

        The library's parser makes objects that nothing here needs, which takes most of the time of a short message.
        """
        data, at = self.backlog, self.start
        self.start = end = min(at + size, len(data))
        self.left = at + size - end
        is_whole = not (self.begun or self.left or self.frames)
        if is_whole and data[at] in WHOLE and data[at + 1] >= MASKED:
            key = at + 2 + LONG_LENGTHS.get(data[at + 1] & LENGTH, 0)
            content = apply_mask(data[key + MASK_BYTES : end], data[key : key + MASK_BYTES])
            self._come(content, WHOLE[data[at]], at_once=at_once)
        else:
            self.begun = self.begun + end - at if self.left else 0
            super().data_received(data[at:end])

    def _go_on(self) -> None:
        """Have the next part parsed in its turn, if there is one that may be, and read on unless something waits."""
        if self._has_part() and self._may_parse():
            self._wait_for_turn()
        self._pace()

    def _wait_for_turn(self) -> None:
        if not self.waits_for_turn:
            self.waits_for_turn = True
            self.turns.add(self._take_turn)

    def _take_turn(self) -> None:
        self.waits_for_turn = False
        if not self.transport.is_closing():
            self._feed()

    def _pace(self) -> None:
        """Read on, unless something waits to be parsed or the client does not read; and count what is held."""
        waits = self._has_part()
        if not waits:  # the rest begins a header, and should not hold the bytes before it
            self.backlog, self.start = self.backlog[self.start :], 0
        if waits or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        self._count()

    def _may_parse(self) -> bool:
        """Return whether few messages wait, the client reads, and no handshake waits for its answer.

        Before that answer, the parser would take a frame for an error, which uvicorn does not expect there.
        """
        in_handshake = self.handshake_initiated and not self.handshake_complete
        return not (self._is_ahead() or in_handshake or self.transport.is_closing()) and self.writable.is_set()

    def _is_ahead(self) -> bool:
        """Return whether as many messages wait as may; those behind a close are dropped."""
        return not self.close_sent and (self.ahead >= AHEAD_BYTES or len(self.waiting) >= AHEAD_MESSAGES)

    def _count(self) -> None:
        """Count the client's bytes in the memory budget, if they are many."""
        size = len(self.backlog) + self.begun + sum(map(len, self.frames)) + self.ahead + self.taken
        try:
            self.reserved.resize(size, UNCOUNTED_BYTES)
        except Overloaded:
            self._drop("too many bytes pending")

    def _stop_answer_timer(self) -> None:
        if self.answer_timer is not None:
            self.answer_timer.cancel()

    def _drop(self, why: str) -> None:
        log.warning("stream_dropped", bytes=self.transport.get_write_buffer_size(), why=why)
        self.transport.abort()


def websocket_class(client_seconds: float, budget: MemoryBudget, selector: TimedSelector) -> type[WebSocketConnection]:
    """Return the class of WebSocket connections with these limits, for `uvicorn.Config(ws=…)`."""
    shared = {"client_seconds": client_seconds, "budget": budget, "selector": selector}
    return type("WebSocketConnection", (WebSocketConnection,), {**shared, "turns": Turns(selector, MAX_TURNS)})
