"""Read the numbers of a JSON array straight into the rows of a batch, normalised, by a compiled kernel.

A parser of JSON makes an object of each number, and an array copies it: 45 µs for 784 numbers, where the kernel takes
6. It reads what nearly every client writes, to the same bits: plain arrays of numbers of at most MAX_DIGITS digits.
What is odd in any way is left to the parser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import CODINGS, DenseInputs
from spikeserve.models.engines.event.compiled import Kernel, borrowing, inlined
from spikeserve.models.spec import OutOfRange, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.sums import MANTISSA
from spikeserve.service.inference.decoding.binning import ODD, compile_binning
from spikeserve.service.inference.decoding.json_events import MAX_ROWS, after_space, compile_events
from spikeserve.service.inference.decoding.readers import FLOAT32

MAX_VALUES = 2**17  # of one batch
MAX_DIGITS = 19  # of a number: 64 bits hold as many
FIRST_POWER, LAST_POWER = -64, 38  # of ten, in numbers whose digits are more than 2**53
EXACT_POWER = 22  # a double holds every power of ten up to this one
GREATEST = float(np.finfo(np.float32).max)

_PLUS, _COMMA, _MINUS, _POINT = map(ord, "+,-.")
_ZERO, _NINE, _UPPER_E, _LOWER_E, _OPEN, _CLOSE = map(ord, "09Ee[]")
_HALF, _ALL = np.uint64(2**32 - 1), np.uint64(2**64 - 1)


def _five(power: int) -> tuple[int, int]:
    """Return the first 128 bits of 5**power as two words; one that is less than 1 is rounded up down to power -27."""
    five = 5 ** abs(power)
    if power >= 0:
        bits = five << 128 >> five.bit_length()
    else:
        above = (five - 1).bit_length()  # the least power of two that is not less
        exact = power >= -27
        bits = (1 << above + 127 if exact else 1 << 2 * above + 128) // five + 1
        bits >>= max(0, bits.bit_length() - 128)
    return bits >> 64, bits & 2**64 - 1


_TENS = 10.0 ** np.arange(EXACT_POWER + 1)
_FIVES = np.array([_five(power) for power in range(FIRST_POWER, LAST_POWER + 1)], np.uint64)


@borrowing
def _product(a: Any, b: Any) -> Any:
    """Return the upper and the lower word of the product of two words."""
    a_low, a_high, b_low, b_high = a & _HALF, a >> np.uint64(32), b & _HALF, b >> np.uint64(32)
    low, middle = a_low * b_low, a_high * b_low
    middle += low >> np.uint64(32)
    other = a_low * b_high + (middle & _HALF)
    return a_high * b_high + (middle >> np.uint64(32)) + (other >> np.uint64(32)), a * b


@inlined
def _rounded(digits: Any, power: Any) -> Any:
    """Return digits * 10**power as the nearest double; NaN where that is not known without more digits.

    Digits of up to 2**53 by a power that a double holds are one operation, which rounds once (Clinger, PLDI 1990).
    Others are multiplied by 128 bits of a power of five (Lemire, Software: Practice and Experience 51, 2021).
    """
    if digits == np.uint64(0):
        return 0.0
    if digits <= np.uint64(2**53) and -EXACT_POWER <= power <= EXACT_POWER:
        return np.float64(digits) * _TENS[power] if power >= 0 else np.float64(digits) / _TENS[-power]
    if power < FIRST_POWER or power > LAST_POWER:
        return np.nan
    zeros = 0
    for shift in (32, 16, 8, 4, 2, 1):
        if digits >> np.uint64(64 - shift) == np.uint64(0):
            digits = digits << np.uint64(shift)
            zeros += shift
    upper, lower = _product(digits, _FIVES[power - FIRST_POWER, 0])
    if upper & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _product(digits, _FIVES[power - FIRST_POWER, 1])
        lower += more
        if lower < more:
            upper += np.uint64(1)
    if (lower <= np.uint64(1) and -4 <= power <= 23) or (lower == _ALL and power < -27):
        return np.nan  # maybe half way between two doubles, or between the product and the next
    highest = upper >> np.uint64(63)
    bits = upper >> (highest + np.uint64(9))  # one more than a double's 53
    bits = (bits + (bits & np.uint64(1))) >> np.uint64(1)
    exponent = ((217706 * power) >> 16) + 63 + np.int64(highest) - zeros - 52  # 217706 / 2**16 is nearly log2(10)
    return math.ldexp(np.float64(bits), exponent)


@borrowing
def _number(text: Any, i: Any) -> Any:
    """Read a number that begins at text[i]; return it as a double and where it ends, or NaN where it is odd."""
    stop, negative = text.size, text[i] == _MINUS
    i += negative
    first, digits, power = i, np.uint64(0), 0
    while i < stop and _ZERO <= text[i] <= _NINE:
        digits = digits * np.uint64(10) + np.uint64(text[i] - _ZERO)
        i += 1
    if i == first or (i > first + 1 and text[first] == _ZERO):
        return np.nan, i
    count = 0 if text[first] == _ZERO else i - first  # not by `digits`, which too many of them may make 0
    if i < stop and text[i] == _POINT:
        i += 1
        after = i
        while i < stop and _ZERO <= text[i] <= _NINE:
            digits = digits * np.uint64(10) + np.uint64(text[i] - _ZERO)
            count += count > 0 or digits != np.uint64(0)  # zeros at the beginning do not count
            i += 1
        if i == after:
            return np.nan, i
        power = after - i
    if count > MAX_DIGITS:
        return np.nan, i
    if i < stop and (text[i] == _LOWER_E or text[i] == _UPPER_E):
        i += 1
        minus = i < stop and text[i] == _MINUS
        i += minus or (i < stop and text[i] == _PLUS)
        exponent, after = 0, i
        while i < stop and _ZERO <= text[i] <= _NINE and exponent < 1000:
            exponent = 10 * exponent + int(text[i] - _ZERO)
            i += 1
        if i == after:
            return np.nan, i
        power += -exponent if minus else exponent
    value = _rounded(digits, power)
    if not negative:
        return value, i
    return (np.nan if value == 0.0 else -value), i  # -0 is the integer 0, and -0.0 is not


@borrowing
def _current(value: Any, at: Any, features: Any, clips: Any, resolution: Any) -> Any:
    """Return a value of a sample, one that float32 holds, normalised as `Input.normalise` does it; NaN where it is odd.

    `features` (4, values) has the bounds of each, its scale and its offset: what is beyond the bounds becomes the bound
    where the input `clips`. `resolution` is 0 where there is none.
    """
    if not features[0, at] <= value <= features[1, at]:
        if not clips:
            return np.float32(np.nan)
        value = features[0, at] if value < features[0, at] else features[1, at]
    scaled = features[2, at] * value
    scaled += features[3, at]
    return scaled if resolution == np.float32(0) else np.rint(scaled / resolution) * resolution


def _read_rows(text: Any, extents: Any, features: Any, clips: bool, resolution: Any, left: Any, rows: Any) -> int:
    """Read the array that is `text`, bytes, to `rows` (samples, values); return how many rows it has, or ODD.

    `extents` (axes,) is how a sample is nested; without an axis, `text` is one flat array of all values. The rows have
    the values as `_current` makes them of the others. `left` (axes + 1,) int64 is overwritten.
    """
    axes, size, row, at, depth, i = extents.size, rows.shape[1], 0, 0, 0, 0
    while True:
        i = after_space(text, i)
        if i == text.size:
            return ODD
        if text[i] == _OPEN and depth <= axes:
            if depth == 0:
                left[0] = rows.shape[0] if axes > 0 else rows.size
            elif left[depth - 1] == 0:
                return ODD
            else:
                left[depth] = extents[depth - 1]
            depth += 1
            i += 1
            continue
        if depth <= axes or left[axes] == 0:
            return ODD
        value, i = _number(text, i)
        if not -GREATEST <= value <= GREATEST:
            return ODD
        current = _current(np.float32(value), at, features, clips, resolution)
        if np.isnan(current):
            return ODD
        rows[row, at] = current
        left[axes] -= 1
        at += 1
        if at == size:
            row, at = row + 1, 0
        while True:  # what is complete ends here, until there is a comma
            i = after_space(text, i)
            if i == text.size:
                return ODD
            if text[i] == _COMMA:
                i += 1
                break
            depth -= 1
            if text[i] != _CLOSE or (left[depth] != 0 and depth > 0):
                return ODD
            i += 1
            if depth == 0:
                return row if at == 0 and i == text.size else ODD
            left[depth - 1] -= 1


def _copy_rows(values: Any, features: Any, clips: bool, resolution: Any, rows: Any) -> int:
    """Do with the numbers `values` as `_read_rows` does with text; return how many rows they are, or ODD."""
    size = rows.shape[1]
    for i in range(values.size):
        at = i % size
        if not -GREATEST <= values[i] <= GREATEST:
            return ODD
        current = _current(values[i], at, features, clips, resolution)
        if np.isnan(current):
            return ODD
        rows[i // size, at] = current
    return int(values.size // size)


read_rows = Kernel(_read_rows, counted=False)
copy_rows = Kernel(_copy_rows, counted=False)


def compile_reader() -> None:
    """Make the kernels ready, and those that bin events; it takes some seconds the first time on a machine."""
    compile_binning()
    compile_events()
    features, rows, none = np.zeros((4, 1), np.float32), np.empty((1, 1), np.float32), np.float32(0)
    read_rows.call(
        np.frombuffer(b"[0]", np.uint8), np.empty(0, np.int64), features, False, none, np.empty(1, np.int64), rows
    )
    unaligned = np.frombuffer(bytes(5), np.float32, 1, 1)  # as values in the midst of a body may be
    copy_rows.call(unaligned, features, False, none, rows)


def _floats(numbers: NDArray[Any]) -> FloatArray | None:
    """Convert numbers to float32; None for integers that it may round, and for a byte that is no bool."""
    if numbers.dtype.kind == "b" and numbers.view(np.uint8).max() > 1:
        return None
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    return None if numbers.dtype.kind in "iu" and np.abs(values).max() >= 2**MANTISSA else values


class RowReader:
    """Reads samples of a model of `task`, and normalises them."""

    def __init__(self, task: Spec) -> None:
        self.code = CODINGS[task.coding]
        declared, shape = task.input, task.input.shape
        self.shape, size = shape, math.prod(shape)
        self.clips = declared.out_of_range is OutOfRange.CLIP
        self.resolution = np.float32(declared.resolution or 0)
        features = (*declared.range, *declared.factors)
        self.features = np.stack([np.broadcast_to(each, shape).reshape(size) for each in features])
        # By the number of brackets that an array of samples begins with: nested as the shape, or each sample flat.
        nested = {1 + len(shape): shape, 2: (size,), 1: ()}
        self.extents = {brackets: np.array(extents, np.int64) for brackets, extents in nested.items()}
        self.left = np.empty(1 + len(shape), np.int64)
        self.rows: FloatArray = np.empty((max(1, min(MAX_ROWS, MAX_VALUES // size)), size), np.float32)

    def read(
        self, body: bytes, start: int, stop: int, brackets: int, rows: FloatArray, dtype: np.dtype[Any] = FLOAT32
    ) -> int:
        """Read the array body[start:stop], which begins with so many brackets, to `rows`; return how many, or ODD.

        Without brackets it is numbers of `dtype` as bytes.
        """
        if brackets:
            text = np.frombuffer(body, np.uint8, stop - start, start)
            read: Callable[..., int] = read_rows.call
            extents = self.extents[brackets]
            return read(text, extents, self.features, self.clips, self.resolution, self.left, rows)
        count, rest = divmod(stop - start, dtype.itemsize)
        if rest or count % rows.shape[1] or not 0 < count <= rows.size:
            return ODD
        numbers: NDArray[Any] = np.frombuffer(body, dtype, count, start)
        values = numbers if dtype == FLOAT32 else _floats(numbers)
        if values is None:
            return ODD
        copy: Callable[..., int] = copy_rows.call
        return copy(values, self.features, self.clips, self.resolution, rows)

    def inputs(self, end: int, time_steps: int, seed: int) -> DenseInputs:
        """Return the samples in the rows before `end`, encoded."""
        currents = self.rows[:end].reshape(end, *self.shape)
        return DenseInputs(self.code(currents, time_steps, seed, 0), time_steps)
