"""The conversation of a session: what is sent, what was answered, and how it goes on after a lost connection.

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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.answers import SessionState, Summary, Window
from spikeserve.errors import ConnectionLost, InvalidEvents, SessionError, Unavailable
from spikeserve.flow import Connect, Flow, Lost, Pause, Receive, Send, Step
from spikeserve.records import CLOCK, MAX_TIME, Events
from spikeserve.requests import model_path, with_query
from spikeserve.values import Entry, Values

MESSAGE_EVENTS = 2**13  # in one message: 64 KiB, which the server works on at once
MESSAGE_VALUES = 2**14  # the same
NEAR = 2**31  # microseconds between two events from which on the clock of a record leaves open which way it went
KEPT_EVENTS = 2**19  # (4 MiB) that are kept before a state is asked for early
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the second try, and between tries at most
END = json.dumps({"type": "end"})
ASK = json.dumps({"type": "state"})


@dataclass
class PendingMessage:
    """A message that may have to be sent again: events or values, or without them a time or the end."""

    content: bytes | str
    events: Events | None = None
    t: int | None = None
    values: Values | None = None

    @property
    def size(self) -> int:
        """How much memory it takes, in events: those of 8 bytes."""
        return len(self.events or ()) + (len(self.content) // 8 if self.values is not None else 0)

    def after(self, t: int, entry: int) -> PendingMessage | None:
        """Return the part behind a state at time `t`, which is before the entry `entry` of a stream of values."""
        if self.values is not None:
            rest = self.values.from_entry(entry)
            if rest is self.values:
                return self
            return PendingMessage(rest.content, values=rest) if len(rest) else None
        if self.events is None:
            return None if self.t is not None and self.t <= t else self
        left = self.events[self.events.t >= t]
        if len(left) == len(self.events):
            return self
        return PendingMessage(left.records.tobytes(), left) if len(left) else None


class Conversation:
    """One session, over as many connections as it takes.

    `options` are the query's; `state` is that of another session to go on from. A state is asked for every
    `state_every` windows, and `retries` connections in a row are tried without hearing of a new window.
    """

    def __init__(
        self,
        model: str,
        version: int | None,
        options: Mapping[str, str],
        state: SessionState | None,
        state_every: int,
        retries: int,
    ) -> None:
        self.model, self.version, self.options = model, version, dict(options)
        self.path = with_query(f"{model_path(model, version)}/stream", options)
        self.state = state
        self.state_every, self.retries = state_every, retries
        self.kept: deque[PendingMessage] = deque()
        self.kept_events = 0
        self.sent = 0  # of the messages that are kept, those that this connection was sent
        self.connected = False
        self.connections = 0
        self.asked: deque[int] = deque()  # for each state to come, how many of those messages were sent before it
        self.windows_since = 0  # the last state
        self.failures = 0  # connections in a row that brought nothing new
        self.next = state.window if state else 0  # the number of the next window to give
        self.until = state.t if state else None  # the end of the last window that this connection answered
        self.length: int | None = None  # of a window, in microseconds, once it is known
        self.lateness = int(self.options.get("lateness_us", 0))
        self.watermark = self.until  # every window before it is closed
        self.clock = self.until  # the time that was sent last
        self.behind: int | None = 0  # states to come until no window is outstanding; None: one is to be asked for
        self.ready: deque[Window] = deque()
        self.ending = False
        self.entry: Entry | None = None  # of a session of values
        self.entries = 0  # of values that were sent, since the stream began
        self.events_given = self.late_given = self.late_heard = 0
        self.summary: Summary | None = None

    def send(self, given: Events) -> Flow[None]:
        """Send events."""
        self._require_open()
        if self.entry is not None:
            raise InvalidEvents("the session was sent values before, expected values")
        for part in _cut(given, self.clock, self.lateness):
            if isinstance(part, int):
                self._keep_time(part)
            else:
                self.kept.append(PendingMessage(part.records.tobytes(), part))
                self.kept_events += len(part)
                self.clock = int(part.t[-1])
                self._pass(int(part.t.max()) - self.lateness)
        yield from self._send_kept()

    def send_values(self, array: NDArray[np.float32], entry: Entry) -> Flow[None]:
        """Send values (entries, *shape). The first are those from the state's step or window on, where there is one."""
        self._require_open()
        if self.entry is None:
            if self.clock is not None and self.kept:
                raise InvalidEvents("the session was sent events before, expected events")
            self.entry = entry
            self.entries = self._entry_of(self.state)
            self.until = self.until or 0
        at_once = max(1, MESSAGE_VALUES // max(1, math.prod(entry.shape)))
        for start in range(0, len(array), at_once):
            part = Values(array[start : start + at_once], self.entries)
            self.kept.append(PendingMessage(part.content, values=part))
            self.kept_events += self.kept[-1].size
            self.entries += len(part)
        yield from self._send_kept()

    def advance(self, t: int) -> Flow[None]:
        """Say that no event comes before `t`, so that all windows before it close."""
        self._require_open()
        if self.entry is not None:
            raise InvalidEvents(f"t is {t}, but the session was sent values, whose number is its time")
        if not 0 <= t < MAX_TIME:
            raise InvalidEvents(f"t is {t}, expected microseconds of the stream, from 0")
        self._keep_time(t)
        yield from self._send_kept()

    def next_window(self) -> Flow[Window | None]:
        """Return the next window of those that close by what was sent, or None after them."""
        self.failures = 0
        while not self.ready:
            if not self._is_outstanding():
                return None
            yield from self._receive()
        return self.ready.popleft()

    def take_state(self) -> Flow[SessionState]:
        """Return the state at the end of the last window."""
        self._require_open()
        yield from self._send_kept()
        while True:
            connection = self.connections
            yield from self._ask()
            while self.asked and self.connections == connection:
                yield from self._receive()
            if self.connections == connection and self.state is not None:
                return self.state

    def end(self) -> Flow[None]:
        """End the session: an open window that holds events closes."""
        if not self.ending:
            self.ending = True
            self.kept.append(PendingMessage(END))
            yield from self._send_kept()

    def rest(self) -> Flow[list[Window]]:
        """Return the windows that are to come until the end; where an error comes first, those before it are unread."""
        self.failures = 0
        while self._is_outstanding():
            yield from self._receive()
        return self.unread()

    def unread(self) -> list[Window]:
        """Return the windows that have come and were not given, without waiting for more."""
        found = list(self.ready)
        self.ready.clear()
        return found

    def interrupted(self, step: Step) -> None:
        """Take note of a step that was cut off by an exception of another kind, such as the end of an awaiting task.

        A line that did not come changes nothing; but of a message nobody knows how much of it was sent.
        """
        if not isinstance(step, Receive):
            self.connected = False

    def _require_open(self) -> None:
        if self.ending:
            raise InvalidEvents("the session has ended, expected another one")
        self.failures = 0

    def _keep_time(self, t: int) -> None:
        self.kept.append(PendingMessage(json.dumps({"type": "time", "t": t}), t=t))
        self.clock = t if self.clock is None else max(self.clock, t)
        self._pass(t)

    def _pass(self, t: int) -> None:
        """Take note of a watermark."""
        self.watermark = t if self.watermark is None else max(self.watermark, t)

    def _is_outstanding(self) -> bool:
        """Return whether a window is to come that what was sent closes."""
        if self.ending:
            return self.summary is None
        now = self.watermark
        if self.entry is not None and self.length is not None:
            now = self.entries * (1 if self.entry.per_step else self.length)
        if self.length is not None and self.until is not None and now is not None:
            return self.until + self.length <= now
        return self.behind != 0

    def _entry_of(self, state: SessionState | None) -> int:
        """Return the first entry of values that a state does not have behind it."""
        if state is None or self.entry is None:
            return 0
        return (state.t or 0) if self.entry.per_step else state.window

    def _send_kept(self) -> Flow[None]:
        """Send what this connection was not sent yet, over another one if need be."""
        self.behind = None
        while not (self.connected and self.sent >= len(self.kept)):
            try:
                if not self.connected:
                    yield from self._connect()
                while self.sent < len(self.kept):
                    while (line := (yield Receive(wait=False))) is not None:
                        yield from self._heard(line)
                    yield Send(self.kept[self.sent].content)
                    self.sent += 1
            except Lost as lost:
                yield from self._recover(lost)

    def _connect(self) -> Flow[None]:
        try:
            yield Connect(self.path)
        except Unavailable as error:
            raise Lost(str(error)) from error
        self.connected = True
        self.connections += 1
        self.sent = self.late_heard = self.windows_since = 0
        self.asked.clear()
        self.until = self.state.t if self.state else None
        if self.entry is not None:
            self.until = self.until or 0
        if self.state is not None:
            yield Send(json.dumps({"type": "state", "state": self.state.state}))

    def _receive(self) -> Flow[None]:
        """Wait for a line, over another connection if need be."""
        try:
            if self.length is None and self.behind is None and not self.ending:
                yield Send(ASK)  # its answer comes after all windows that are outstanding
                self.asked.append(self.sent)
                self.behind = len(self.asked)
            if (line := (yield Receive(wait=True))) is not None:
                yield from self._heard(line)
        except Lost as lost:
            yield from self._recover(lost)
            yield from self._send_kept()

    def _ask(self) -> Flow[None]:
        """Ask for the state; one that is lost with its connection is asked for again by those who wait for it."""
        try:
            yield Send(ASK)
            self.asked.append(self.sent)
        except Lost as lost:
            yield from self._recover(lost)
            yield from self._send_kept()

    def _heard(self, text: str) -> Flow[None]:
        """Take note of a line."""
        line = json.loads(text)
        match line["type"]:
            case "window":
                self._heard_window(line)
                due = self.windows_since >= self.state_every or self.kept_events > KEPT_EVENTS
                if due and not self.asked and not self.ending:
                    yield Send(ASK)
                    self.asked.append(self.sent)
            case "state":
                self._heard_state(line)
            case "end":
                late = self.late_given + line.get("late", 0) - self.late_heard
                self.summary = Summary(line["windows"], self.events_given, late)
            case "error":
                self.ending, self.connected = True, False
                self.summary = Summary(self.next, self.events_given, self.late_given)
                raise SessionError(line["error"], self.state)

    def _heard_window(self, line: Mapping[str, Any]) -> None:
        window = Window.of(line)
        if self.until is not None:
            self.length = window.t - self.until
        self.until = window.t
        self.windows_since += 1
        self.late_heard += window.late
        if window.window >= self.next:
            self.ready.append(window)
            self.next, self.failures = window.window + 1, 0
            self.events_given += window.events
            self.late_given += window.late

    def _heard_state(self, line: Mapping[str, Any]) -> None:
        # A state that was asked for has all behind it that was sent before. What a server has read that ends a session
        # by itself, nobody knows; late events among it that no window told of are lost to the count.
        before = self.sent
        if "reason" not in line and self.asked:
            before = self.asked.popleft()
            self.behind = self.behind and self.behind - 1
        had, t = self.state, line["t"]
        is_older = had is not None and (line["window"] < had.window or (t is None and had.t is not None))
        if is_older or line["window"] > self.next:
            # A server that leaves may not have read the state that it was to go on from, or not have sent all windows
            # that its own state has behind it. Those are computed again.
            return
        self.state = SessionState(line["state"], line["window"], t, self.model, self.version, self.options)
        self.windows_since = 0
        if t is None:
            return
        entry = self._entry_of(self.state)
        rest = list(self.kept)
        again = [left for each in rest[:before] if (left := each.after(t, entry)) is not None]
        self.kept = deque([*again, *rest[before:]])
        self.sent -= before - len(again)
        self.asked = deque(each - before + len(again) for each in self.asked)
        self.kept_events = sum(each.size for each in self.kept)

    def _recover(self, lost: Lost) -> Flow[None]:
        """Read what came before the end of a connection, and wait before the next one. Raises ConnectionLost."""
        while self.connected:
            try:
                if (line := (yield Receive(wait=True))) is not None:
                    yield from self._heard(line)
            except Lost:
                self.connected = False
        if self.summary is not None:
            self.connected, self.sent = True, len(self.kept)  # it ended as it should
            return
        self.failures += 1
        if self.failures > self.retries:
            raise ConnectionLost(f"the session could not go on after {self.retries} tries: {lost}") from lost
        if self.failures > 1:
            pause = min(FIRST_PAUSE * 2 ** (self.failures - 2), LONGEST_PAUSE)
            yield Pause(pause * random.uniform(0.5, 1))  # noqa: S311  (so that not all clients come back at once)


def _cut(given: Events, clock: int | None, lateness: int) -> list[Events | int]:
    """Return events as messages, with the times between that their clock of 32 bits does not tell.

    Raises InvalidEvents for an event so far before the one before it that its clock would tell another time.
    """
    if not len(given):
        return []
    if int(given.t.max()) >= MAX_TIME:
        raise InvalidEvents(f"events: t is {given.t.max()}, expected less than {MAX_TIME}")
    steps = np.diff(given.t, prepend=given.t[0] if clock is None else clock)
    if int(steps.min()) <= -NEAR:
        at = int(steps.argmin())
        raise InvalidEvents(
            f"events: t is {given.t[at]}, which is {-steps[at] / 1e6:.0f} seconds before the time before it, expected "
            f"less than {NEAR / 1e6:.0f}"
        )
    jumps = set(np.flatnonzero(steps >= NEAR).tolist())
    if clock is None and int(given.t[0]) >= CLOCK:
        jumps.add(0)
    starts = sorted({*jumps, *range(0, len(given), MESSAGE_EVENTS)})
    parts: list[Events | int] = []
    for start, end in zip(starts, [*starts[1:], len(given)], strict=True):
        if start in jumps:
            parts.append(max(0, int(given.t[start]) - lateness))
        parts.append(given[start:end])
    return parts
