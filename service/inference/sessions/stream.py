"""A stream: what a client sends, in order, and the lines that answer it, over whatever carries them.

One message is read, and all that it closes is answered, before the next is read. So a client that sends faster than the
network runs, or does not read its lines, is read from more slowly, and nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from spikeserve.models.errors import InvalidInput
from spikeserve.service.errors import ServiceError
from spikeserve.service.inference.scheduling.queue import Price
from spikeserve.service.inference.scheduling.scheduler import SHORT_BODY
from spikeserve.service.inference.sessions import messages
from spikeserve.service.inference.sessions.batches import Results
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.table import WHY, EndReason, OpenSession, Sessions
from spikeserve.service.inference.sessions.values import ValueWindow, ValueWindows
from spikeserve.service.inference.sessions.windows import Window

Receive: TypeAlias = Callable[[], Awaitable[bytes | str | None]]
Send: TypeAlias = Callable[[Sequence[bytes]], Awaitable[None]]  # of lines of JSON: all, or none if it is cancelled

SHORT = 2**15  # bytes or characters of one that is answered at once: fewer events than are sorted at once
LONG_TEXT = 2**16  # characters; a longer message is read on a codec thread, since it takes several times its bytes
SLICE_EVENTS = 2**13  # sorted into windows at once
LONG_WAIT = 0.02  # seconds; a client that is ahead of its rate by less is not slowed down


class Stream:
    """Serves one open session.

    Its task receives messages. Of our own `socket`, `take` answers short ones without it: it leaves to the task what
    fails or may take long, and then the task receives an empty message.
    """

    def __init__(self, opened: OpenSession, sessions: Sessions, blobs: Blobs, send: Send, socket: Any = None) -> None:
        self.opened = opened
        self.session = opened.session
        self.sessions = sessions
        # The metrics that each window changes: looking one up takes longer than counting.
        metrics, model = sessions.places.metrics.sessions, self.session.model.name
        self.answered, self.lag = metrics.windows.of(model), metrics.lag.of(model)
        self.events, self.late = metrics.events.of(model), metrics.late.of(model)
        self.blobs = blobs
        self.send = send
        self.socket = socket
        if socket is not None:
            socket.take = self.take
        self.arrived = 0.0  # when the last short message came
        self.running: Sequence[Window | ValueWindow] = ()  # the windows that it closed, until they are answered
        self.left: Sequence[Window | ValueWindow] = ()  # those that the task will answer
        self.error: Exception | None = None  # the task will raise it
        self.begun = False  # whether any message has come
        windows = self.session.windows
        self.axes = len(windows.task.input.shape) if isinstance(windows, ValueWindows) else None
        self.idle_since: float | None = None  # since when it has waited for a message
        self.idle_timer: asyncio.TimerHandle | None = None
        self.rate = sessions.settings.session_events
        self.free_at = perf_counter()  # when the events so far would have come at the greatest rate

    async def serve(self, receive: Receive) -> None:
        """Answer messages until the session ends.

        `receive` returns event records, or values of float32, as bytes, a message as text, and None at the end. Raises
        ClientDisconnect where the client has left; every other end has its lines.
        """
        self._watch()
        try:
            await self.answer(receive)
        except asyncio.CancelledError:
            self.running = ()
            ended, task = self.opened.ended, asyncio.current_task()
            if ended is None or task is None:
                raise
            task.uncancel()
            why = WHY[ended].format(seconds=self.sessions.settings.session_idle_seconds)
            await self.tell(await self.blobs.line(self.session, why))
        except (ServiceError, InvalidInput) as error:
            self.opened.ended = EndReason.ERROR
            await self.tell(await self.blobs.line(self.session, "an error ended the session"))
            await self.tell({"type": "error", "error": str(error)})
        finally:
            if self.idle_timer is not None:
                self.idle_timer.cancel()

    async def answer(self, receive: Receive) -> None:
        """Answer messages as `serve` does, however long it is silent; raises what ends it."""
        while True:
            self.idle_since = perf_counter()
            content, arrived = await receive(), perf_counter()
            self.idle_since = None
            await self._close_windows(arrived)  # those that `take` left
            if self.error is not None:
                raise self.error
            if (ahead := self.free_at - arrived) > LONG_WAIT:
                await asyncio.sleep(ahead)  # since its events come faster than one session may send them
            if not await self._handle(content, arrived):
                return
            del content  # it may be long, and the client silent from now on

    def take(self, content: bytes | str) -> bool:
        """Answer a short message at once; return False to leave it to the session's task."""
        session, windows, self.arrived = self.session, self.session.windows, perf_counter()
        if self.running or self.opened.ended or len(content) > SHORT or self.free_at - self.arrived > LONG_WAIT:
            return False
        try:
            message = windows.read(content) if isinstance(content, bytes) else messages.read_message(content, self.axes)
            if not isinstance(message, np.ndarray | messages.TimeMessage):
                return False
            self.idle_since, self.begun = self.arrived, True
            self._put(message)
            self.opened.reserve(windows.pending_bytes)
            self.running = session.closed()
            if self.running and session.most > 1:
                self.sessions.batches.add(session, self.running, session.at.state, self)
            elif self.running:
                self.set_exception()
        except Exception as error:
            self.error = error
        return self.error is None

    def done(self) -> bool:
        """Return whether the session has ended meanwhile."""
        return not self.running

    def set_exception(self, _: Exception | None = None) -> None:
        """Leave the windows to the task, and what is closed behind them; it meets an error again in its order."""
        self.running, self.left = (), self.running
        self.socket.queue_message(b"")

    def set_result(self, results: Results) -> Callable[[], object]:
        """Make the lines of the windows and a function that writes them."""
        lines = self.session.lines(self.running, results, self.arrived)
        self.running = ()
        self._count(lines, self.arrived)
        if len(lines) == self.session.most:
            self.set_exception()
        self.opened.reserve(self.session.windows.pending_bytes)
        return partial(self.socket.write_texts, lines)

    def _watch(self) -> None:
        """End the session once it has been silent for too long: one timer, since one for each message takes longer."""
        idle = self.sessions.settings.session_idle_seconds
        left = idle if self.idle_since is None else self.idle_since + idle - perf_counter()
        if left > 0:
            self.idle_timer = asyncio.get_running_loop().call_later(left, self._watch)
        else:
            self.opened.end(EndReason.IDLE)

    async def _handle(self, content: bytes | str | None, arrived: float) -> bool:
        """Handle a message, and return whether the session goes on."""
        windows = self.session.windows
        match await self._read(content) if isinstance(content, str) else content:
            case bytes() as sent:
                await self._add(windows.read(sent), arrived)
            case np.ndarray() as read:
                await self._add(read, arrived)
            case messages.TimeMessage() as time:
                self._put(time)
            case messages.StateMessage(state=None):
                await self.tell(await self.blobs.line(self.session))
            case messages.StateMessage(state=str() as state):
                if self.begun:
                    raise InvalidInput("state: only the first message may bring one")
                await self.blobs.restore(self.session, state)
            case messages.EndMessage() | None:
                while (window := windows.flush()) is not None:
                    await self._answer([window], arrived)
                await self.tell({"type": "end", "windows": windows.number, **windows.counts})
                return False
        self.begun = True
        await self._close_windows(arrived)
        return True

    async def _add(self, sent: NDArray[Any], arrived: float) -> None:
        """Add events or values; the windows that each slice of events closes are answered before the next is sorted."""
        size = SLICE_EVENTS if self.axes is None else max(1, len(sent))
        for start in range(0, len(sent), size):
            self._put(sent[start : start + size])
            if start + size < len(sent):
                await self._close_windows(arrived)
                await asyncio.sleep(0)  # so that others run, also where a slice closes no window

    def _put(self, message: NDArray[Any] | messages.TimeMessage) -> None:
        """Put events or values into their windows, or the time, and count them."""
        windows: Any = self.session.windows
        if isinstance(message, messages.TimeMessage):
            windows.advance(message.t)
            return
        self.free_at = max(perf_counter(), self.free_at) + message.size / self.rate
        received, late = windows.received, windows.late
        windows.add(message)
        self.events.inc(windows.received - received)
        self.late.inc(windows.late - late)

    async def _close_windows(self, arrived: float) -> None:
        """Answer every window that is closed."""
        self.opened.reserve(self.session.windows.pending_bytes)
        while windows := self.left or self.session.closed():
            self.left = ()
            await self._answer(windows, arrived)
            if len(windows) < self.session.most:
                break
            await asyncio.sleep(0)  # since hours of silence may be closed, and a run need not wait
        self.opened.reserve(self.session.windows.pending_bytes)

    async def _answer(self, windows: Sequence[Window | ValueWindow], arrived: float) -> None:
        """Answer closed windows; one by one where any of them fails."""
        session = self.session
        before = session.at
        try:
            results = await self.sessions.batches.run(session, windows)
        except InvalidInput:
            if len(windows) == 1:
                raise
            for window in windows:
                await self._answer([window], arrived)
            return
        lines = session.lines(windows, results, arrived)
        self._count(lines, arrived)
        try:
            await self.send(lines)
        except asyncio.CancelledError:  # the session ends; its state must not be ahead of the client's lines
            session.at = before
            raise

    def _count(self, lines: Sequence[bytes], arrived: float) -> None:
        self.answered.inc(len(lines))
        self.lag.observe_all([perf_counter() - arrived] * len(lines))

    async def tell(self, line: dict[str, Any]) -> None:
        """Send a line that is no window's."""
        await self.send([to_json(line)])

    async def _read(self, text: str) -> messages.Message:
        if len(text) <= LONG_TEXT:
            return messages.read_message(text, self.axes)
        commas, most = text.count(","), self.session.windows.max_numbers
        if commas > most:
            raise InvalidInput(
                f"a message has {commas} commas, expected at most {most}, as it may have as many numbers"
            )
        lane = Price.SHORT if len(text) <= SHORT_BODY else Price.LONG
        return await self.sessions.batches.scheduler.code(lane, messages.read_message, text, self.axes)
