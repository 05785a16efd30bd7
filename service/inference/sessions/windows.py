"""Windows: a stream's events, sorted by their time stamps into windows of equal length.

A window is closed by the first event, or the first word about the time, at or after its end. Nothing waits for the
clock on the wall. Within a window events may come in any order; an event of a window that is closed comes too late, and
is counted and dropped. Where events are missing, windows close without events: silence is an input too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventBinner, EventCoder, Inputs
from spikeserve.models.coding.records import RECORD, Records, Times, binner, records_of, unwrapped
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, Origin
from spikeserve.service.inference.sessions.messages import Counted

MAX_GAP = 100_000  # windows that one message may close, so that a wrong time stamp does not stand for days of silence
MAX_PENDING = 2**20  # events of windows that are not closed, in one session
PENDING_BYTES = 16  # of each of them


@dataclass(frozen=True)
class Window:
    """A closed window: its events (events,), in order of time, and when it began and ended.

    All times are microseconds of the stream. `late` events came since the window before, and were dropped.
    """

    number: int
    start: int
    end: int
    records: Records
    times: Times
    late: int
    steps: int
    binner: EventBinner

    @property
    def held(self) -> Counted:
        """What its line says of what it held."""
        return {"events": len(self.records), "late": self.late}

    def inputs(self, coder: EventCoder, behind: int, seed: int) -> Inputs:  # noqa: ARG002  (nothing is drawn of events)
        """Return it as a network's inputs. Raises InvalidInput for an event outside of the sensor."""
        where = f"window {self.number}"
        found = self.binner.between(self.records, self.times, self.start, self.steps, where, in_order=True)
        return coder.encode(found.t, found.unit, found.count, self.steps)


@dataclass
class Windows:
    """Closes the windows of one stream, of `steps` steps each.

    `start` is when the open window begins, and `now` the latest time heard of; both are None before the first event.
    """

    events: EventBinning
    steps: int
    start: int | None = None
    now: int | None = None
    number: int = 0
    received: int = 0  # events that came in time
    late: int = 0  # events that came after their window was closed
    late_told: int = 0  # of those, the ones that a window has told of
    pending: int = 0  # events of windows that are not closed
    _records: list[Records] = field(default_factory=list)
    _times: list[Times] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.binner = binner(self.events)
        self.length = self.events.step_us * self.steps  # of a window, in microseconds

    @property
    def held(self) -> Counted:
        """What all windows held."""
        return {"events": self.received, "late": self.late}

    @property
    def pending_bytes(self) -> int:
        """The bytes of the events that wait for their window to close."""
        return self.pending * PENDING_BYTES

    @property
    def max_numbers(self) -> int:
        """The most numbers of one message: t, x, y and p of as many events as may wait."""
        return 4 * MAX_PENDING

    @property
    def record(self) -> str:
        """What the smallest part of a binary message is."""
        return "event"

    @property
    def record_bytes(self) -> int:
        """The bytes of the smallest part of a binary message: an event."""
        return RECORD.itemsize

    def read(self, content: bytes) -> Records:
        """Return a binary message's events (events,); raises InvalidInput for a part of one at its end."""
        return records_of(content, "a message")

    def add(self, records: NDArray[Any]) -> None:
        """Add events (events,), in any order.

        Raises InvalidInput where one is so far ahead that too many windows would close, and where too many wait.
        """
        if not len(records):
            return
        times = unwrapped(records["t"], int(records["t"][0]) if self.now is None else self.now)
        start = self._begun(int(times[0]))
        if int(times.min()) < start:
            in_time = times >= start
            self.late += int(len(times) - np.count_nonzero(in_time))
            records, times = records[in_time], times[in_time]
        waiting = self.pending + len(times)
        if waiting > MAX_PENDING:
            raise InvalidInput(f"events: {waiting} wait for their windows to close, expected at most {MAX_PENDING}")
        if len(times):
            self.advance(int(times.max()))
            self._records.append(records)
            self._times.append(times)
            self.pending = waiting
            self.received += len(times)

    def advance(self, t: int) -> None:
        """Take note of the time `t`, so that all windows before it close. Raises InvalidInput where these are many."""
        ahead = (t - self._begun(t)) // self.length
        if ahead > MAX_GAP:
            raise InvalidInput(f"t: {t} would close {ahead} windows at once, expected at most {MAX_GAP}")
        self.now = t if self.now is None else max(self.now, t)

    def close(self) -> Window | None:
        """Return the next window that is closed, or None if none is."""
        if self.start is None or self.now is None or self.now < self.start + self.length:
            return None
        return self._take(self.start)

    def flush(self) -> Window | None:
        """Close the open window early, if it holds any event, as if nothing more came before its end."""
        return self._take(self.start) if self.pending and self.start is not None else None

    def go_on(self, number: int, start: int | None) -> None:
        """Begin with window `number`, which begins at `start`, in place of the first."""
        self.number, self.start, self.now = number, start, start

    def _begun(self, first: int) -> int:
        """Return when the open window begins; the first one of all does at `first`, or at 0 where the model says so."""
        if self.start is None:
            self.start = 0 if self.events.origin is Origin.ZERO else first
        return self.start

    def _take(self, start: int) -> Window:
        end = start + self.length
        records, times = self._in_order()
        count = int(times.searchsorted(end))
        self.pending = len(times) - count
        self._records, self._times = ([records[count:]], [times[count:]]) if self.pending else ([], [])
        late, self.late_told = self.late - self.late_told, self.late
        window = Window(self.number, start, end, records[:count], times[:count], late, self.steps, self.binner)
        self.start, self.number = end, self.number + 1
        self.now = end if self.now is None else max(self.now, end)
        return window

    def _in_order(self) -> tuple[Records, Times]:
        """Return the events that wait, by time."""
        if not self.pending:
            return np.empty(0, RECORD), np.empty(0, np.int64)
        records, times = self._records[0], self._times[0]
        if len(self._times) > 1:
            records, times = np.concatenate(self._records), np.concatenate(self._times)
        if (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            records, times = records[order], times[order]
        return records, times
