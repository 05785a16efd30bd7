"""Read one .npy array out of a body: its header is checked against the body's size before anything of it is made.

NumPy's own reader of headers is not made for those of strangers: some end in errors that it does not name, others in a
warning. The format is that of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import descr_to_dtype
from numpy.typing import NDArray

from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.errors import MalformedBody, cut, shown

MAGIC = b"\x93NUMPY"
LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4}  # by format, the bytes of the header's length
MAX_HEADER_BYTES = 10_000  # as many as NumPy allows, since its text is evaluated as a literal
MAX_AXES, MAX_EXTENT = 64, 2**63  # of NumPy
FIELDS = {"descr", "fortran_order", "shape"}
# What Python's parser writes a warning of: a backslash, and a number that runs into a keyword, as in `1or 2`.
WARNED_OF = re.compile(r"\\|\b[0-9][\w.]*(?:and|else|for|i[fns]|not|or)")


class Header(NamedTuple):
    """What a header says, and where the array's values begin."""

    dtype: np.dtype[Any]
    shape: Shape
    by_columns: bool
    start: int


def read_npy(content: bytes) -> NDArray[Any]:
    """Return the array that a body holds, without a copy, read-only; raises MalformedBody. Nothing is unpickled."""
    header = header_of(content)
    count = math.prod(header.shape)
    takes, holds = count * header.dtype.itemsize, len(content) - header.start
    if takes != holds:
        raise MalformedBody(
            f"the body is an .npy whose shape {cut(show(header.shape))} takes {cut(str(takes))} bytes as "
            f"{cut(str(header.dtype))}, but {holds} follow its header"
        )
    if not takes:
        return np.empty(header.shape, header.dtype)
    flat: NDArray[Any] = np.frombuffer(content, header.dtype, count, header.start)
    return flat.reshape(header.shape, order="F" if header.by_columns else "C")


def header_of(content: bytes) -> Header:
    """Return what the header at the beginning of `content` says; raises MalformedBody."""
    version, at = content[len(MAGIC) : len(MAGIC) + 2], len(MAGIC) + 2
    if not content.startswith(MAGIC) or version not in LENGTHS:
        raise MalformedBody(f"the body is no .npy of format 1.0 or 2.0, but begins with {shown(repr(content[:8]))}")
    start = at + LENGTHS[version]
    end = start + int.from_bytes(content[at:start], "little")
    if end > min(len(content), start + MAX_HEADER_BYTES):
        most = min(len(content) - start, MAX_HEADER_BYTES)
        raise MalformedBody(f"the body is an .npy whose header has {end - start} bytes, expected at most {most} here")
    text = content[start:end].decode("latin-1")
    try:
        fields = ast.literal_eval("" if WARNED_OF.search(text) else text.strip())
        if type(fields) is not dict or fields.keys() != FIELDS or type(fields["fortran_order"]) is not bool:
            raise ValueError  # noqa: TRY301
        shape = fields["shape"]
        if type(shape) is not tuple or len(shape) > MAX_AXES:
            raise ValueError  # noqa: TRY301
        if any(type(size) is not int or not 0 <= size < MAX_EXTENT for size in shape):
            raise ValueError  # noqa: TRY301
        dtype = descr_to_dtype(fields["descr"])
    except Exception as error:  # a literal or a type that makes no sense is any of a dozen errors
        raise MalformedBody(
            f"the body is an .npy whose header is {shown(text.strip())}, expected descr, fortran_order and shape"
        ) from error
    if dtype.hasobject:
        raise MalformedBody("the body is an .npy of Python objects, expected numbers, which need no pickle")
    if dtype.subdtype is not None:  # its axes would come on top of the shape
        raise MalformedBody(f"the body is an .npy of arrays, {cut(str(dtype))}, expected one of numbers and its shape")
    return Header(dtype, shape, fields["fortran_order"], end)
