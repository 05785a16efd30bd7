"""Read the events of a JSON array of samples straight to a network's inputs, by a compiled kernel.

A parser of JSON makes an object of each number, and NumPy sorts what arrays are made of them. The kernel reads what
nearly every client writes: objects of lists of plain numbers, `t` and `unit`, or `t`, `x`, `y` and `p`. What is odd in
any way is left to the parser.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spikeserve.models.coding import EventCoder, EventInputs, Inputs, join_inputs
from spikeserve.models.engines.event.compiled import Kernel, borrowing, inlined
from spikeserve.models.spec import Spec
from spikeserve.service.inference.decoding.binning import ODD

MAX_ROWS = 64  # samples that are read into one batch
CAMERA_AXES = 3  # channels, height, width
MOVES = 16  # of each event at most, to sort the events of a step

_COMMA, _QUOTE, _COLON, _OPEN, _CLOSE, _BEGIN, _END, _ZERO, _NINE = map(ord, ',":[]{}09')
_TAB, _LINE, _RETURN, _SPACE = map(ord, "\t\n\r ")
_T, _UNIT, _X, _Y, _P = range(5)  # the lists of events, by number
_OF_UNITS, _OF_PIXELS = 1 << _T | 1 << _UNIT, 1 << _T | 1 << _X | 1 << _Y | 1 << _P
_U, _N, _I = map(ord, "uni")
_LETTER_T, _LETTER_X, _LETTER_Y, _LETTER_P = map(ord, "txyp")


@borrowing
def after_space(text: Any, i: Any) -> Any:
    """Return where the white space that may be at text[i] ends."""
    while i < text.size and (text[i] == _SPACE or text[i] == _LINE or text[i] == _RETURN or text[i] == _TAB):
        i += 1
    return i


@borrowing
def _skip(text: Any, i: Any, expected: Any) -> Any:
    """Return where what follows `expected` begins, with white space on both sides; ODD where text[i] is another."""
    if i < 0:
        return ODD
    i = after_space(text, i)
    return after_space(text, i + 1) if i < text.size and text[i] == expected else ODD


@inlined
def _name(text: Any, i: Any) -> Any:
    """Return the number of the list whose name begins at text[i], and where what follows its colon begins, or ODD."""
    if i < 0 or i + 6 >= text.size or text[i] != _QUOTE:
        return ODD, ODD
    letter, field = text[i + 1], ODD
    if letter == _U and text[i + 2] == _N and text[i + 3] == _I and text[i + 4] == _LETTER_T and text[i + 5] == _QUOTE:
        return _UNIT, _skip(text, i + 6, _COLON)
    if text[i + 2] != _QUOTE:
        return ODD, ODD
    if letter == _LETTER_T:
        field = _T
    elif letter == _LETTER_X:
        field = _X
    elif letter == _LETTER_Y:
        field = _Y
    elif letter == _LETTER_P:
        field = _P
    return field, _skip(text, i + 3, _COLON)


@inlined
def _list(text: Any, i: Any, limit: Any, values: Any) -> Any:
    """Read a list of integers below `limit` to `values`; return how many, and where what follows begins, or ODD."""
    i, count = _skip(text, i, _OPEN), 0
    if i >= 0 and i < text.size and text[i] == _CLOSE:
        return 0, after_space(text, i + 1)
    while i >= 0 and i < text.size:
        first, value = i, 0
        while i < text.size and _ZERO <= text[i] <= _NINE and value < limit:
            value = 10 * value + int(text[i] - _ZERO)
            i += 1
        if i == first or (text[first] == _ZERO and i > first + 1) or value >= limit or count == values.size:
            return 0, ODD
        values[count] = value
        count += 1
        i = after_space(text, i)
        if i < text.size and text[i] == _CLOSE:
            return count, after_space(text, i + 1)
        i = _skip(text, i, _COMMA)
    return 0, ODD


@inlined
def _sort(unit: Any, offset: Any) -> Any:
    """Sort the units of each row, those from offset[r] to offset[r + 1], each once; return how many, or ODD."""
    end, kept, left = 0, 0, MOVES * unit.size
    for row in range(offset.size - 1):
        begin, end = end, offset[row + 1]
        for k in range(begin + 1, end):
            at, own = k, unit[k]
            while at > begin and unit[at - 1] > own:
                unit[at] = unit[at - 1]
                at -= 1
            unit[at] = own
            left -= k - at
            if left < 0:
                return ODD
        for k in range(begin, end):
            if k == begin or unit[k] != unit[k - 1]:
                unit[kept] = unit[k]
                kept += 1
        offset[row + 1] = kept
    return kept


def _read_events(text: Any, steps: int, limits: Any, lists: Any, row: Any, place: Any, unit: Any, offset: Any) -> int:
    """Read the array that is `text`, bytes; return how many events are in it, each counted once in its step, or ODD.

    `limits` (5,) is what the numbers of each list are below: 0 for the lists that the model does not take. `lists` (5,
    events) and `row` and `place` (events,) are overwritten. `unit` (events,) and `offset` (samples * steps + 2,), all
    0, become those of `EventInputs`, but for the last of `offset`.
    """
    samples, count, i = (offset.size - 2) // steps, 0, _skip(text, 0, _OPEN)
    for sample in range(samples):
        i, seen, events = _skip(text, i, _BEGIN), 0, 0
        while True:
            field, i = _name(text, i)
            if field < 0 or seen >> field & 1 or limits[field] == 0:
                return ODD
            length, i = _list(text, i, limits[field], lists[field])
            if i < 0 or i == text.size or (seen and length != events):
                return ODD
            seen, events = seen | 1 << field, length
            if text[i] == _END:
                i = after_space(text, i + 1)
                break
            i = _skip(text, i, _COMMA)
        if (seen != _OF_UNITS and seen != _OF_PIXELS) or count + events > row.size:
            return ODD
        for k in range(events):
            at = lists[_UNIT, k]
            if seen == _OF_PIXELS:
                at = (lists[_P, k] * limits[_Y] + lists[_Y, k]) * limits[_X] + lists[_X, k]
            row[count], place[count] = sample * steps + lists[_T, k], at
            offset[row[count] + 2] += 1
            count += 1
        if sample < samples - 1:
            i = _skip(text, i, _COMMA)
    if i < 0 or i != text.size - 1 or text[i] != _CLOSE:
        return ODD
    for k in range(2, offset.size):
        offset[k] += offset[k - 1]
    for k in range(count):
        unit[offset[row[k] + 1]] = place[k]
        offset[row[k] + 1] += 1
    return _sort(unit[:count], offset[:-1])


read_events = Kernel(_read_events, counted=False)


def compile_events() -> None:
    """Make the kernel ready; it takes some seconds the first time on a machine."""
    columns, small, limits = np.zeros((5, 1), np.int64), np.zeros(1, np.int32), np.ones(5, np.int64)
    text = np.frombuffer(b'[{"t":[],"unit":[]}]', np.uint8)
    read_events.call(text, 1, limits, columns, columns[0], columns[1], small, np.zeros(3, np.int64))


class EventReader:
    """Reads samples of events, of so many steps, for a model of `task` to which all events are alike.

    Raises InvalidInput for steps that the model cannot run.
    """

    def __init__(self, task: Spec, time_steps: int) -> None:
        task.check_steps(time_steps)
        shape = task.input.shape
        camera = shape if len(shape) == CAMERA_AXES else (0, 0, 0)
        self.limits = np.array([time_steps, math.prod(shape), camera[2], camera[1], camera[0]], np.int64)
        self.current = EventCoder(task).current
        self.shape = shape
        self.time_steps = time_steps
        self.rows = np.arange(MAX_ROWS)  # the places of samples in a batch
        self.parts: dict[int, EventInputs] = {}  # by the place of the first sample of each

    def read(self, body: bytes, start: int, stop: int, _: int, rows: Any, __: object = None) -> int:
        """Read the array body[start:stop] to the samples at `rows`; return how many they are, or ODD."""
        samples, most = body.count(b"{", start, stop), (stop - start) // 4  # an event has two digits and two commas
        if not 0 < samples <= len(rows):
            return ODD
        columns, unit = np.empty((7, most), np.int64), np.empty(most, np.int32)
        offset = np.zeros(samples * self.time_steps + 2, np.int64)
        text = np.frombuffer(body, np.uint8, stop - start, start)
        count = read_events.call(text, self.time_steps, self.limits, columns[:5], columns[5], columns[6], unit, offset)
        if count == ODD:
            return ODD
        value = np.full(0 if self.current == 1 else count, self.current, np.float32)
        inputs = EventInputs(unit[:count].copy(), value, offset[:-1], self.time_steps, self.shape)
        self.parts[int(rows[0])] = inputs
        return samples

    def inputs(self, end: int, _: int, __: int) -> Inputs:
        """Return the samples at the places before `end`, and forget all."""
        parts = [self.parts[at] for at in sorted(self.parts) if at < end]
        self.parts = {}
        return join_inputs(parts)
