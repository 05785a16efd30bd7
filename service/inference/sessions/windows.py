"""Windows: a stream's events, sorted by their time stamps into windows of equal length.

A window is closed by the first event, or the first word about the time, at or after its end. Nothing waits for the clock
on the wall. Within a window events may come in any order; an event of a window that is closed comes too late, and is
counted and dropped. Where events are missing, windows close without events: silence is an input too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInput

MAX_GAP = 100_000  # windows that one message may close, so that a wrong time stamp does not stand for days of silence
MAX_PENDING = 2**20  # events of windows that are not closed, in one session; each takes 12 bytes
WRAP = 2**32  # the time stamps of events are 32 bits of microseconds, and start again after 71 minutes


@dataclass(frozen=True)
class Window:
    """The events of a closed window: at its step `step[k]`, counted from its start, the input `unit[k]` had an event.

    `end` is in microseconds of the stream, as are all times here.
    """

    number: int
    end: int
    step: NDArray[np.int64]
    unit: NDArray[np.int32]


@dataclass
class Windows:
    """Closes the windows of one stream. `start` is when the open window begins; None before the first event."""

    step_us: int
    steps: int
    start: int | None = None
    number: int = 0
    late: int = 0  # events that came after their window was closed
    events: int = 0  # events that were in time
    now: int | None = None  # the latest time heard of
    _t: list[NDArray[np.int64]] = field(default_factory=list)
    _unit: list[NDArray[np.int32]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """The length of a window, in microseconds."""
        return self.step_us * self.steps

    @property
    def pending(self) -> int:
        """The number of events of windows that are not closed."""
        return sum(map(len, self._t))

    def add(self, t: NDArray[np.uint32], unit: NDArray[np.int32]) -> None:
        """Add events: `t` (events,) in microseconds, modulo 2**32, and `unit` (events,), the input of each.

        Raises InvalidInput where one is so far ahead that too many windows would close, and where too many events wait.
        """
        if not len(t):
            return
        times = self._unwrapped(t)
        if self.start is None:
            self.start = self.now = int(times[0])
        in_time = times >= self.start
        if not in_time.all():
            self.late += int(len(times) - in_time.sum())
            times, unit = times[in_time], unit[in_time]
        if self.pending + len(times) > MAX_PENDING:
            raise InvalidInput(
                f"events: {self.pending + len(times)} wait for the end of their windows, expected at most {MAX_PENDING}"
            )
        if len(times):
            self.advance(int(times.max()))
            self.events += len(times)
            self._t.append(times)
            self._unit.append(unit)

    def advance(self, t: int) -> None:
        """Take note of the time `t`, so that all windows before it close. Raises InvalidInput where these are many."""
        if self.start is None or self.now is None:
            self.start = self.now = t
        ahead = (t - self.start) // self.length
        if ahead > MAX_GAP:
            raise InvalidInput(f"t: {t} would close {ahead} windows, expected at most {MAX_GAP} at once")
        self.now = max(self.now, t)

    def close(self) -> Window | None:
        """Return the next window that is closed, or None if none is."""
        if self.start is None or self.now is None or self.now < self.start + self.length:
            return None
        return self._take()

    def flush(self) -> Window | None:
        """Close the open window early, if it holds any event, as if nothing more came before its end."""
        return self._take() if self.pending else None

    def _take(self) -> Window:
        assert self.start is not None and self.now is not None
        start, end = self.start, self.start + self.length
        t, unit = self._sorted()
        count = int(np.searchsorted(t, end))
        self._t, self._unit = ([t[count:]], [unit[count:]]) if count < len(t) else ([], [])
        window = Window(self.number, end, (t[:count] - start) // self.step_us, unit[:count])
        self.start, self.now = end, max(self.now, end)
        self.number += 1
        return window

    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the events that wait, by time."""
        if not self._t:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        if len(self._t) == 1:
            t, unit = self._t[0], self._unit[0]
        else:
            t, unit = np.concatenate(self._t), np.concatenate(self._unit)
        if (t[1:] < t[:-1]).any():
            order = np.argsort(t, kind="stable")
            t, unit = t[order], unit[order]
        self._t, self._unit = [t], [unit]
        return t, unit

    def _unwrapped(self, t: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return times that go on where 32 bits start again: each is the nearest one to the latest time."""
        if self.now is None:
            base = int(t[0])
        else:
            base = self.now
        ahead = (t - np.uint32(base % WRAP)).astype(np.int32)  # modulo 2**32, as a signed number
        return base + ahead.astype(np.int64)
