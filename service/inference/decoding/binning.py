"""Read a stream's event records and bin a window of them, by compiled kernels; `models.coding.records` defines both.

NumPy takes some forty calls for a window, 50 µs for 500 events, and most of them for starting each call. What is odd in
any way is left to it: events out of order or of no place on the sensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventCoder, EventInputs
from spikeserve.models.coding.records import CLOCK, EventBinner
from spikeserve.models.engines.event.compiled import Kernel
from spikeserve.models.spec import EventRule

ODD = -1
NO_VALUES = np.empty(0, np.float32)  # of events that are all 1

_LOW, _WORD = np.int64(CLOCK - 1), np.int64(0xFFFF)
_ROW, _HALF = np.int64(0x7FFF), np.int64(CLOCK // 2)
# The place of a word's only bit: 64 places of a de Bruijn sequence.
_SEQUENCE = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(64, np.int32)
_PLACES[[((0x03F79D71B4CB0A89 << place) % 2**64) >> 58 for place in range(64)]] = range(64)


def _read_records(records: Any, last: int, waiting: Any, bounds: Any) -> int:
    """Write records (events,), each of 64 bits, and their times into `waiting` (2 * events,); return the last time.

    `last` is the time before the first one: each time is the one nearest to the time before it. `bounds` (4,) become
    the earliest and the latest time, the largest column and the largest row.
    """
    time, least, most, right, bottom = last, np.int64(2**62), np.int64(-(2**62)), np.int64(0), np.int64(0)
    for k in range(records.size):
        time += ((records[k] & _LOW) - time + _HALF & _LOW) - _HALF
        least, most = min(least, time), max(most, time)
        right, bottom = max(right, records[k] >> 32 & _WORD), max(bottom, records[k] >> 48 & _ROW)
        waiting[2 * k], waiting[2 * k + 1] = time, records[k]
    bounds[0], bounds[1], bounds[2], bounds[3] = least, most, right, bottom
    return time


def _bin_events(
    waiting: Any, starts: Any, sizes: Any, step_us: int, columns: Any, rows: Any, width: int, height: int, bits: Any,
    unit: Any, offset: Any,
) -> int:  # fmt: skip
    """List the units of the events of windows, ascending in each step and each once; return how many, or ODD.

    `waiting` (2 * events,) is what `_read_records` writes, in order of time in each window, and `sizes` (windows,) how
    many bytes each has. The units of row k, a step of a window, become those of `unit` from offset[k] to offset[k + 1].
    `bits` has one for each unit, all 0, and is left so.
    """
    steps, k, count, events = (offset.size - 1) // starts.size, 0, 0, 0
    offset[0] = 0
    for window in range(starts.size):
        before, end, events = starts[window], starts[window], events + sizes[window] // 16
        for row in range(window * steps, window * steps + steps):
            end, first, last = end + step_us, bits.size, -1
            while k < events and waiting[2 * k] < end:
                record, time = waiting[2 * k + 1], waiting[2 * k]
                x, y = record >> 32 & _WORD, record >> 48 & _WORD
                if time < before or x >= width or (y & _ROW) >= height:
                    bits[:] = 0
                    return ODD
                place = columns[x] + rows[y]
                if place >= 0:
                    word = place >> 6
                    bits[word] |= np.uint64(1) << np.uint64(place & 63)
                    first, last = min(first, word), max(last, word)
                before = time
                k += 1
            for word in range(first, last + 1):
                left = bits[word]
                bits[word] = 0
                while left:
                    lowest = left & (~left + np.uint64(1))
                    unit[count] = 64 * word + _PLACES[lowest * _SEQUENCE >> np.uint64(58)]
                    count += 1
                    left ^= lowest
            offset[row + 1] = count
        if k != events:
            return ODD
    return count


read_records = Kernel(_read_records, counted=False)
bin_events = Kernel(_bin_events, counted=False)


def compile_binning() -> None:
    """Make the kernels ready; it takes a second the first time on a machine."""
    waiting, none, bounds = np.zeros(2, np.int64), np.zeros(1, np.int64), np.zeros(4, np.int64)
    read_records.call(np.frombuffer(bytes(8), np.int64), 0, waiting, bounds)
    bin_events.call(waiting, none, none, 1, none, none, 1, 1, np.zeros(1, np.uint64), np.zeros(1, np.int32), bounds)


class WindowBinner:
    """Bins windows by a model's `input.events`, which `events` bins too where they are odd."""

    def __init__(self, events: EventBinner) -> None:
        self.events = events
        self.bits = np.zeros(-(-events.units // 64), np.uint64)

    def inputs(self, coder: EventCoder, waiting: list[Any], starts: list[int], steps: int) -> EventInputs | None:
        """Return the inputs of windows, each `waiting` as a time and a record of 64 bits for each event.

        None where the events of any are odd, or not all alike to the network.
        """
        events, current = self.events, coder.current
        if current is None or events.events.rule is EventRule.COUNT:
            return None
        coder.task.check_steps(steps)
        together = np.frombuffer(waiting[0] if len(waiting) == 1 else b"".join(waiting), np.int64)
        unit, offset = np.empty(len(together) // 2, np.int32), np.empty(len(starts) * steps + 1, np.int64)
        sizes = np.array([len(each) for each in waiting])
        count = bin_events.call(
            together, np.array(starts), sizes, events.events.step_us, events.columns, events.rows, events.width,
            events.height, self.bits, unit, offset,
        )  # fmt: skip
        if count == ODD:
            return None
        value = NO_VALUES if current == 1 else np.full(count, current)
        return EventInputs(unit[:count], value, offset, steps, coder.task.input.shape)


def read(records: NDArray[np.void], last: int) -> tuple[NDArray[np.int64], list[int], int]:
    """Return a time and a record for each of some records (2 * events,), `_read_records`'s bounds, the last time."""
    waiting, bounds = np.empty(2 * len(records), np.int64), np.empty(4, np.int64)
    content = np.frombuffer(records.data.toreadonly(), np.int64)
    end = read_records.call(content, last, waiting, bounds)
    return waiting, bounds.tolist(), end
