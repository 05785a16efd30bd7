"""Decode the long array of numbers of a JSON body in slices, so that no step of it holds the interpreter for long.

A parser of JSON makes all objects of a body in one call, during which nothing else runs: 25 ms for each megabyte.
Nearly all of a long body is one array of numbers. That array is cut out, its numbers are parsed in slices, and what is
left of the body is parsed as usual. What is odd in any way (rows of different lengths, a value that is no number, an
escape) is not cut out, and the usual parser has the word on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic_core import from_json

from spikeserve.models.spec.parameters import Shape
from spikeserve.service.inference.decoding.pieces import before_piece

LONG_ARRAY = 2**16  # bytes; a shorter array is parsed with its body
SLICE_BYTES = 2**16  # of numbers that one call parses, in some 0.7 ms
SCAN_BYTES = 2**18  # that one call looks through, in some 0.3 ms

_IN_NUMBERS = b"0123456789+-.eE \t\n\r"
_SPACED = bytes.maketrans(b"[]", b"  ")


class SplitBody(NamedTuple):
    """A body without its array, and the array; `rest` has an array of one 0 in its place, of as many axes."""

    rest: bytes
    array: NDArray[Any]


def cut_array(body: bytes, name: bytes, dtype: DTypeLike) -> SplitBody | None:
    """Cut the array of numbers of the field `name` out of a body; return None where there is no such long array.

    The numbers are finite, and at most the largest float32 if `dtype` is that.
    """
    if len(body) < LONG_ARRAY or b"\\" in body:
        return None
    parts = body.split(b'"')  # those with an odd index are the strings
    for index in range(1, len(parts) - 1, 2):
        after = parts[index + 1]
        if parts[index] == name and len(after) >= LONG_ARRAY and after.lstrip().startswith(b":"):
            start, stop = after.find(b"["), after.rfind(b"]") + 1
            array = None if start < 0 else _array(after[start:stop], dtype)
            if array is None:
                return None
            one = b"[" * array.ndim + b"0" + b"]" * array.ndim
            parts[index + 1] = after[:start] + one + after[stop:]
            return SplitBody(b'"'.join(parts), array)
    return None


def _array(text: bytes, dtype: DTypeLike) -> NDArray[Any] | None:
    """Return the array that `text` writes as rows of equal length, or None where it is anything else."""
    parts = (text[start : start + SCAN_BYTES] for start in range(0, len(text), SCAN_BYTES))
    shape = _shape(b"".join(part.translate(None, _IN_NUMBERS) for part in parts))
    if shape is None:
        return None
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype)
    greatest, filled = np.finfo(flat.dtype).max, 0
    try:
        for part in _slices(text):
            before_piece()
            values = np.array(from_json(b"[" + part.translate(_SPACED) + b"]"), np.float64)
            if not (np.abs(values) <= greatest).all():
                return None
            flat[filled : filled + len(values)] = values
            filled += len(values)
    except (ValueError, OverflowError):  # not JSON, not numbers, or beyond any float
        return None
    return flat.reshape(shape) if filled == flat.size else None


def _slices(text: bytes) -> Iterator[bytes]:
    """Yield the text between commas, some SLICE_BYTES at once."""
    start = 0
    while start <= len(text):
        stop = text.find(b",", start + SLICE_BYTES)
        stop = len(text) if stop < 0 else stop
        yield text[start:stop]
        start = stop + 1


def _shape(marks: bytes) -> Shape | None:
    """Return the shape of an array of which `marks` has the brackets and commas, or None where rows differ."""
    axes = len(marks) - len(marks.lstrip(b"["))
    shape: Shape = ()
    row = b""
    for axis in range(axes):  # from the innermost
        closing = marks.find(b"]" * (axis + 1), axes)
        inside = closing + axis - (axes - axis)  # the bytes between this axis' brackets
        extent, left = divmod(inside + 1, len(row) + 1)
        if closing < 0 or extent < 1 or left:
            return None
        shape = (extent, *shape)
        row = b"[" + b",".join([row] * extent) + b"]"
    return shape if axes and row == marks else None
