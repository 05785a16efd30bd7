"""Windows: a stream's events, sorted by their time stamps into windows of equal length.

A window is closed by the watermark: the latest time of any event so far less `lateness`, or a later time that a message
said. An event of a window that is closed is late: it is counted and dropped. Within a window events may come in any
order. Each event is judged by those that came before it alone, so where messages are cut changes nothing. Nothing waits
for the clock on the wall. Where events are missing, windows close without events: silence is an input too.

The first window begins at the earliest event that came before the watermark reached it: without lateness the first
event, and with it the one that would have been first in order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventCoder, Inputs
from spikeserve.models.coding.records import RECORD, Records, Times, binner, records_of
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, Origin

if TYPE_CHECKING:
    from spikeserve.service.inference.decoding.binning import WindowBinner

MAX_GAP = 100_000  # windows that one event may close, so that a wrong time stamp does not stand for days of silence
TOLD = 128  # windows back, all have been answered: more than run at once
MAX_PENDING = 2**20  # events of windows that are not closed, in one session
WAITING = np.dtype([("time", "<i8"), ("record", RECORD)])  # an event that waits for its window to close

WINDOW_BYTES = 512  # of the objects that hold the events of one window


class Window(NamedTuple):
    """A closed window: the bytes of its events, as they came, and when it began and ended.

    All times are microseconds of the stream. `late` events came since the window before, and were dropped.
    """

    number: int
    start: int
    end: int
    content: bytearray
    late: int
    steps: int
    binner: WindowBinner

    @property
    def events(self) -> NDArray[Any]:
        """Its events (events,) of `WAITING`."""
        return np.frombuffer(self.content, WAITING)

    @property
    def members(self) -> bytes:
        """Its content, as members of its line."""
        return b'"events":%d,"late":%d' % (len(self.content) // WAITING.itemsize, self.late)

    def in_order(self) -> tuple[Records, Times]:
        """Return its events (events,) in order of time, and their times."""
        events = self.events[np.argsort(self.events["time"], kind="stable")]
        return np.ascontiguousarray(events["record"]), np.ascontiguousarray(events["time"])

    def inputs(self, coder: EventCoder, behind: int, seed: int) -> Inputs:  # noqa: ARG002  (nothing is drawn of events)
        """Return it as a network's inputs. Raises InvalidInput for more events of an input than its range allows."""
        inputs = self.binner.inputs(coder, [self.content], [self.start], self.steps)
        if inputs is not None:
            return inputs
        events = self.binner.events.between(*self.in_order(), self.start, self.steps, in_order=True)
        return coder.encode(events.t, events.unit, events.count, self.steps)


@dataclass
class Windows:
    """Closes the windows of one stream, of `steps` steps each; an event may come `lateness` microseconds late.

    All times are microseconds of the stream. Those that are not known before the first event are None until then.
    """

    record: ClassVar = "event"  # the smallest part of a binary message
    record_bytes: ClassVar = RECORD.itemsize
    max_numbers: ClassVar = 4 * MAX_PENDING  # of one message: t, x, y and p of as many events as may wait

    events: EventBinning
    steps: int
    lateness: int = 0
    origin: int | None = None  # when the first window begins, or the one that a state goes on with
    start: int | None = None  # when the open window begins
    watermark: int | None = None  # every window before it is closed
    clock: int | None = None  # the time that was heard of last, from which the clock of 32 bits goes on
    number: int = 0
    received: int = 0  # events that came in time
    late: int = 0  # events that came after their window was closed
    pending: int = 0  # events of windows that are not closed
    _earliest: int | None = None  # of the events that came before the first window began
    _waiting: dict[int, bytearray] = field(default_factory=dict)  # events of WAITING, by the number of their window
    _silent: int = 0  # windows without events in a row, at the end
    _late: Counter[int] = field(default_factory=Counter)  # late events, by the window that tells of them

    def __post_init__(self) -> None:
        from spikeserve.service.inference.decoding import binning  # here, as Numba takes long to import

        self.read_records = binning.read
        self.definition = binner(self.events)
        self.binner = binning.WindowBinner(self.definition)
        self.length = self.events.step_us * self.steps  # of a window
        if self.events.origin is Origin.ZERO:
            self.origin = self.start = 0

    @property
    def counts(self) -> dict[str, int]:
        """The content of all windows."""
        return {"events": self.received, "late": self.late}

    @property
    def pending_bytes(self) -> int:
        """The bytes of the events that wait for their window to close."""
        return self.pending * WAITING.itemsize + len(self._waiting) * WINDOW_BYTES

    def read(self, content: bytes) -> Records:
        """Return a binary message's events (events,); raises InvalidInput for a part of one at its end."""
        return records_of(content, "a message")

    def add(self, records: NDArray[Any]) -> None:
        """Add events (events,), in the order in which they came.

        Raises InvalidInput for one outside of the sensor, for one so far ahead that too many windows would close, and
        where too many wait.
        """
        if not len(records):
            return
        before = int(records["t"][0]) if self.clock is None else self.clock
        events, (earliest, latest, x, y), self.clock = self.read_records(records, before)
        if x >= self.definition.width or y >= self.definition.height:
            self.definition.check(records, "events", self.received + self.late)
        closed = self._closed(self.watermark)
        if (
            self.start is not None
            and self.start + closed * self.length <= earliest
            and (latest < self.start + (closed + 1) * self.length)
        ):  # all are of the open window, so that none is late and none closes another
            self._put(closed, events)
            self.watermark = max(latest - self.lateness, self.start if self.watermark is None else self.watermark)
        else:
            self._sort(events.view(WAITING))

    def advance(self, t: int) -> None:
        """Take note of the time `t`, so that all windows before it close. Raises InvalidInput where these are many."""
        if self.start is None and (self._earliest is None or t >= self._earliest):
            self._begin_at(t if self._earliest is None else self._earliest)
        if self.start is not None:
            self._check_gap(t, self._closed(t) - self._closed(self.watermark))
        self.watermark = t if self.watermark is None else max(self.watermark, t)
        self.clock = t if self.clock is None else max(self.clock, t)

    def close(self) -> Window | None:
        """Return the next closed window, or None."""
        return self._take(self.start) if self.start is not None and self._closed(self.watermark) else None

    def flush(self) -> Window | None:
        """Return the next window up to the last event that waits, as if nothing more came; None if no event waits.

        Raises InvalidInput where too many windows without events lie before the next event.
        """
        if self.start is None and self._earliest is not None:
            self._begin_at(self._earliest)
        if not self.pending or self.start is None:
            return None
        self._silent = 0 if self.number in self._waiting else self._silent + 1
        self._check_gap(self.start, self._silent)
        return self._take(self.start)

    def late_of(self, number: int) -> int:
        """Return how many late events window `number` is to tell of, or has just told of."""
        return self._late[number]

    def go_on(self, number: int, start: int | None, late: int = 0) -> None:
        """Begin with window `number`, at `start`, in place of the first; it is to tell of `late` events."""
        self.number, self.late, self._late[number] = number, late, late
        if start is not None:
            self.origin = self.start = self.watermark = self.clock = start

    def _begin(self, times: Times, marks: Times) -> int:
        """Begin the first window once the watermark has reached the earliest event.

        Returns how many of the events came until then, all of which are in time. Times before 0 have no window.
        """
        earliest = np.minimum.accumulate(np.maximum(times, 0))
        if self._earliest is not None:
            np.minimum(earliest, self._earliest, out=earliest)
        reached = marks >= earliest
        if not reached.any():
            self._earliest = int(earliest[-1])
            return 0
        at = int(reached.argmax())
        self._begin_at(int(earliest[at]))
        return at + 1

    def _begin_at(self, t: int) -> None:
        """Begin the first window at `t`, with the events that have waited for it."""
        self.origin = self.start = t
        events = np.frombuffer(self._waiting.pop(self.number, b""), WAITING)
        self.pending -= len(events)
        self.received -= len(events)
        if len(events):
            self._spread(events, (events["time"] - t) // self.length)

    def _count_late(self, windows: NDArray[np.int64]) -> None:
        """Count late events (events,) by the windows that were open when they came, counted from the open one."""
        self.late += len(windows)
        for window, count in zip(*np.unique(windows, return_counts=True), strict=True):
            self._late[self.number + int(window)] += int(count)

    def _sort(self, events: NDArray[Any]) -> None:
        """Put events into their windows, each by the watermark before it, and count those that are late."""
        times: Times = np.ascontiguousarray(events["time"])
        marks = np.maximum.accumulate(times) - self.lateness  # the watermark after each event
        if self.watermark is not None:
            np.maximum(marks, self.watermark, out=marks)
        begun = self._begin(times, marks) if self.start is None else 0
        if self.start is None:
            windows, closed = np.where(times < 0, -1, 0), np.zeros(len(times), np.int64)
        else:
            windows = (times - self.start) // self.length
            closed = np.append(self._closed(self.watermark), np.maximum((marks - self.start) // self.length, 0))
            closed[:begun] = 0
            furthest = int(np.diff(closed).argmax())
            self._check_gap(int(times[furthest]), int(closed[furthest + 1] - closed[furthest]))
            closed = closed[:-1]  # before each event
        in_time = windows >= closed
        if not in_time.all():
            self._count_late(closed[~in_time])
            events, windows = events[in_time], windows[in_time]
        if len(events):
            self._spread(events, windows)
        self.watermark = int(marks[-1])

    def _spread(self, events: NDArray[Any], windows: NDArray[np.int64]) -> None:
        """Put events into their windows, which are counted from the open one."""
        if (windows[1:] < windows[:-1]).any():
            order = np.argsort(windows, kind="stable")
            events, windows = events[order], windows[order]
        for first, last in pairwise([0, *(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(events)]):
            self._put(int(windows[first]), events[first:last])

    def _put(self, window: int, events: NDArray[Any]) -> None:
        """Let events wait in one window, which is counted from the open one. A copy, which holds no message."""
        count = events.nbytes // WAITING.itemsize
        self.received += count
        self.pending += count
        if self.pending > MAX_PENDING:
            raise InvalidInput(
                f"events: {self.pending} wait for their windows to close, expected at most {MAX_PENDING}"
            )
        self._waiting.setdefault(self.number + window, bytearray()).extend(events.tobytes())

    def _closed(self, watermark: int | None) -> int:
        """Return how many windows from the open one on a watermark closes."""
        if watermark is None or self.start is None:
            return 0
        return max(0, (watermark - self.start) // self.length)

    def _check_gap(self, t: int, gap: int) -> None:
        if gap > MAX_GAP:
            raise InvalidInput(f"t: {t} would close {gap} windows at once, expected at most {MAX_GAP}")

    def _take(self, start: int) -> Window:
        end = start + self.length
        content = self._waiting.pop(self.number, bytearray())
        self.pending -= len(content) // WAITING.itemsize
        self._late.pop(self.number - TOLD, None)
        window = Window(self.number, start, end, content, self._late[self.number], self.steps, self.binner)
        self.start, self.number = end, self.number + 1
        self.watermark = end if self.watermark is None else max(self.watermark, end)
        return window
