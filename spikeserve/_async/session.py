"""A session: what is sent, what was answered, and how it goes on after a lost connection.

What was sent is kept until the server has given a state that has it behind it; a state is asked for every so many
windows. After a lost connection another is opened, with the same server or with another that serves the same bundle,
and is sent that state and all that was kept, in the messages in which it was sent before. So the server computes the
same windows again, and those that were given already are left out. Where a server ends a session by itself, because it
shuts down or nothing was sent for long, it gives the state first, and the session goes on in the same way.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from spikeserve._async.websocket import AsyncWebSocket
from spikeserve.answers import Json, SessionState, Summary, Window
from spikeserve.connection import Lost
from spikeserve.errors import ConnectionLost, InvalidEvents, SessionError, Unavailable
from spikeserve.messages import Entry, Message, Outbox, Values, ValuesLike, cut_events, is_values, values
from spikeserve.options import RETRIES, STATE_EVERY, SessionOptions, check_names, query_of
from spikeserve.records import MAX_TIME, Events, EventsLike, events
from spikeserve.requests import Call, model_path, with_query

if TYPE_CHECKING:
    from spikeserve._async.client import AsyncClient

MESSAGE_VALUES = 2**14  # in one message, which the server works on at once
KEPT_EVENTS = 2**19  # (4 MiB) that are kept before a state is asked for early
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the second try, and between tries at most
END = json.dumps({"type": "end"})
ASK = json.dumps({"type": "state"})


class AsyncSession:
    """A session in its `async with` block. It goes on by itself after a lost connection, and each window is given once.

    One thread, or one task, uses it at a time. Leaving its block without `end` abandons it.
    """

    def __init__(self, client: AsyncClient, options: SessionOptions) -> None:
        check_names(options)
        state = options.get("state")
        self.now = state.t if state else None  # the time that was sent last, in microseconds; None before the first
        self.last_state = state  # the last that was heard of, which is there even where no server is
        self.summary: Summary | None = None  # what the session was, once it has ended
        self._client = client
        self._socket = AsyncWebSocket(client.url, client.key, client.timeout)
        self._model = options.get("model") or (state.model if state else "")
        self._version = options.get("version") or (state.version if state else None)
        self._options = query_of(options)
        self._lateness = int(self._options.get("lateness_us", 0))
        self._state_every = options.get("state_every", STATE_EVERY)  # windows
        self._retries = options.get("retries", RETRIES)  # connections in a row that bring no new window
        self._path = ""  # of the WebSocket, in the block
        self._outbox = Outbox()
        self._connected = False
        self._connections = 0
        self._failures = 0  # connections in a row that brought nothing new
        self._ready: deque[Window] = deque()
        self._next = state.window if state else 0  # the number of the next window to give
        self._until = self.now  # the end of the last window that this connection answered
        self._length: int | None = None  # of a window, in microseconds, once it is known
        self._watermark = self.now  # every window before it is closed
        self._windows_since = 0  # the last state
        self._behind: int | None = 0  # states to come until no window is outstanding; None: one is to be asked for
        self._ending = False
        self._entry: Entry | None = None  # of a session of values
        self._entries = 0  # of values that were sent, since the stream began
        self._events_given = self._late_given = self._late_heard = 0

    async def send(self, chunk: EventsLike | ValuesLike) -> None:
        """Send events, in microseconds (see `events` for what they may be), or values.

        Values are an array of the input's shape, or several of them: one for each step with `current` coding, else one
        for each window. A session that goes on from a state is sent those from step `state.t`, or window
        `state.window`, on.
        """
        self._require_open()
        if is_values(chunk):
            await self._add_values(chunk)
        else:
            self._add_events(events(chunk, self.now))  # type: ignore[arg-type]
        await self._send_pending()

    async def advance(self, t: int) -> None:
        """Say that no event comes before `t` any more: all windows before it close, with or without events."""
        self._require_open()
        if self._entry is not None:
            raise InvalidEvents(f"t is {t}, but the session was sent values, whose number is its time")
        if not 0 <= t < MAX_TIME:
            raise InvalidEvents(f"t is {t}, expected microseconds of the stream, from 0")
        self._add_time(t)
        await self._send_pending()

    async def __aiter__(self) -> AsyncIterator[Window]:
        """Yield the windows that were closed by what has been sent so far; there may be more after the next `send`."""
        self._failures = 0
        while self._ready or self._is_outstanding():
            if self._ready:
                yield self._ready.popleft()
            else:
                await self._receive()

    async def state(self) -> SessionState:
        """Return the state at the end of the last window that is closed, to go on from on any server of the bundle."""
        self._require_open()
        await self._send_pending()
        while True:
            connection = self._connections
            try:
                await self._ask()
            except Lost as error:
                await self._recover(error)
                await self._send_pending()
            while self._outbox.asked and self._connections == connection:
                await self._receive()
            if self._connections == connection and self.last_state is not None:
                return self.last_state

    async def end(self) -> list[Window]:
        """End the session, and return the windows that were not read; an open window that holds events is the last.

        Where an error comes first, the windows before it are left to `unread`.
        """
        if not self._ending:
            self._require_open()
            self._ending = True
            self._outbox.add(Message(END))
        self._failures = 0
        while self._is_outstanding():
            await self._receive()
        return self.unread()

    def unread(self) -> list[Window]:
        """Return the windows that have come and were not read, without waiting for more."""
        windows = list(self._ready)
        self._ready.clear()
        return windows

    async def __aenter__(self) -> Self:
        self._model = self._model or await self._client.default_model()
        self._path = with_query(f"{model_path(self._model, self._version)}/stream", self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    def _require_open(self) -> None:
        if not self._path:
            raise InvalidEvents("the session is not open, expected it to be used in a `with` block")
        if self._ending:
            raise InvalidEvents("the session has ended, expected another one")
        self._failures = 0

    def _add_events(self, chunk: Events) -> None:
        if self._entry is not None:
            raise InvalidEvents("the session was sent values before, expected values")
        for part in cut_events(chunk, self.now, self._lateness):
            if isinstance(part, int):
                self._add_time(part)
            else:
                self._outbox.add(Message(part.records.tobytes(), part))
                self.now = int(part.t[-1])
                self._pass(int(part.t.max()) - self._lateness)

    async def _add_values(self, chunk: ValuesLike) -> None:
        entry = self._entry or Entry.of(await self._client._answer(Call(model_path(self._model, self._version))))
        array = values(chunk, entry)
        if self._entry is None:
            if self.now is not None and self._outbox.messages:
                raise InvalidEvents("the session was sent events before, expected events")
            self._entry = entry
            self._entries = self._entry_of(self.last_state)
            self._until = self._until or 0
        at_once = max(1, MESSAGE_VALUES // max(1, math.prod(entry.shape)))
        for start in range(0, len(array), at_once):
            part = Values(array[start : start + at_once], self._entries)
            self._outbox.add(Message(part.content, values=part))
            self._entries += len(part)

    def _add_time(self, t: int) -> None:
        self._outbox.add(Message(json.dumps({"type": "time", "t": t}), t=t))
        self.now = t if self.now is None else max(self.now, t)
        self._pass(t)

    def _pass(self, t: int) -> None:
        """Take note of a watermark."""
        self._watermark = t if self._watermark is None else max(self._watermark, t)

    def _is_outstanding(self) -> bool:
        """Return whether a window is to come that what was sent closes."""
        if self._ending:
            return self.summary is None
        now = self._watermark
        if self._entry is not None and self._length is not None:
            now = self._entries * (1 if self._entry.per_step else self._length)
        if self._length is not None and self._until is not None and now is not None:
            return self._until + self._length <= now
        return self._behind != 0

    def _entry_of(self, state: SessionState | None) -> int:
        """Return the first entry of values that a state does not have behind it."""
        if state is None or self._entry is None:
            return 0
        return (state.t or 0) if self._entry.per_step else state.window

    async def _send_pending(self) -> None:
        """Send what this connection was not sent yet, over another one if need be."""
        while not self._connected or self._outbox.pending:
            self._behind = None
            try:
                if not self._connected:
                    await self._connect()
                while self._outbox.pending:
                    while (line := await self._socket.receive(wait=False)) is not None:
                        await self._hear(line)
                    await self._send(self._outbox.messages[self._outbox.sent].content)
                    self._outbox.sent += 1
            except Lost as error:
                await self._recover(error)

    async def _connect(self) -> None:
        try:
            await self._socket.connect(self._path)
        except Unavailable as error:
            raise Lost(str(error)) from error
        self._connected = True
        self._connections += 1
        self._outbox.sent = self._late_heard = self._windows_since = 0
        self._outbox.asked.clear()
        self._until = self.last_state.t if self.last_state else None
        if self._entry is not None:
            self._until = self._until or 0
        if self.last_state is not None:
            await self._send(json.dumps({"type": "state", "state": self.last_state.state}))

    async def _send(self, content: bytes | str) -> None:
        try:
            await self._socket.send(content)
        except BaseException as error:
            # Of a message that something else cut off, such as the end of an awaiting task, nobody knows how much was
            # sent. After Lost, lines that came before it can still be read.
            self._connected = isinstance(error, Lost)
            raise

    async def _ask(self) -> None:
        """Ask for the state. Its answer comes after all windows that are outstanding."""
        await self._send(ASK)
        self._outbox.asked.append(self._outbox.sent)

    async def _receive(self) -> None:
        """Wait for a line, over another connection if need be."""
        await self._send_pending()  # the end, or what a call left that was cancelled
        try:
            if self._length is None and self._behind is None and not self._ending:
                await self._ask()
                self._behind = len(self._outbox.asked)
            if (line := await self._socket.receive(wait=True)) is not None:
                await self._hear(line)
        except Lost as error:
            await self._recover(error)
            await self._send_pending()

    async def _recover(self, lost: Lost) -> None:
        """Read what came before the end of a connection, and wait before the next one. Raises ConnectionLost."""
        while self._connected:
            try:
                if (line := await self._socket.receive(wait=True)) is not None:
                    await self._hear(line)
            except Lost:
                self._connected = False
        if self.summary is not None:
            self._connected, self._outbox.sent = True, len(self._outbox.messages)  # it ended as it should
            return
        self._failures += 1
        if self._failures > self._retries:
            raise ConnectionLost(f"the session could not go on after {self._retries} tries: {lost}") from lost
        if self._failures > 1:
            pause = min(FIRST_PAUSE * 2 ** (self._failures - 2), LONGEST_PAUSE)
            await self._socket.pause(pause * random.uniform(0.5, 1))  # noqa: S311  (not all clients at once)

    async def _hear(self, text: str) -> None:
        """Take note of a line."""
        line = json.loads(text)
        match line["type"]:
            case "window":
                self._hear_window(line)
                due = self._windows_since >= self._state_every or self._outbox.size > KEPT_EVENTS
                if due and not self._outbox.asked and not self._ending:
                    await self._ask()
            case "state":
                self._hear_state(line)
            case "end":
                self._require_next(line["windows"])
                late = self._late_given + line.get("late", 0) - self._late_heard
                self.summary = Summary(line["windows"], self._events_given, late)
            case "error":
                raise self._failed(line["error"])

    def _failed(self, sentence: str) -> SessionError:
        self._ending, self._connected = True, False
        self.summary = Summary(self._next, self._events_given, self._late_given)
        return SessionError(sentence, self.last_state)

    def _require_next(self, window: int) -> None:
        if window > self._next:  # one before it is computed again
            raise self._failed(f"windows {self._next} to {window - 1} were lost between the server and this client")

    def _hear_window(self, line: Json) -> None:
        window = Window.of(line)
        self._require_next(window.window)
        if self._until is not None:
            self._length = window.t - self._until
        self._until = window.t
        self._windows_since += 1
        self._late_heard += window.late
        if window.window >= self._next:
            self._ready.append(window)
            self._next, self._failures = window.window + 1, 0
            self._events_given += window.events
            self._late_given += window.late

    def _hear_state(self, line: Json) -> None:
        # A state that was asked for has all behind it that was sent before. What a server has read that ends a session
        # by itself, nobody knows; late events among it that no window told of are lost to the count.
        before = self._outbox.sent
        if "reason" not in line and self._outbox.asked:
            before = self._outbox.asked.popleft()
            self._behind = self._behind and self._behind - 1
        had, t = self.last_state, line["t"]
        is_older = had is not None and (line["window"] < had.window or (t is None and had.t is not None))
        if is_older or line["window"] > self._next:
            # A server that leaves may not have read the state that it was to go on from, or not have sent all windows
            # that its own state has behind it. Those are computed again.
            return
        self.last_state = SessionState(line["state"], line["window"], t, self._model, self._version, self._options)
        self._windows_since = 0
        if t is not None:
            self._outbox.forget(before, t, self._entry_of(self.last_state))
