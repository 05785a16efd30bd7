"""Read one .npy array out of a body: its header is checked against the body's size before anything of it is made."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from models.spec.parameters import show
from service.errors import MalformedBody, cut

MAX_HEADER_BYTES = 10_000  # numpy's own limit, since it evaluates a header's literals
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What numpy raises for a header that makes no sense, and Python for one that is nested too deep.
BROKEN = (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, KeyError, EOFError)


def read_npy(content: bytes) -> NDArray[Any]:
    """Return the array that a body holds, without a copy, read-only; raises MalformedBody. Nothing is unpickled."""
    head = io.BytesIO(content[: MAX_HEADER_BYTES + 16])
    try:
        version = npy.read_magic(head)
        if version not in HEADERS:
            raise MalformedBody(f"the body is an .npy of format {version}, expected 1.0 or 2.0")
        shape, by_columns, dtype = HEADERS[version](head, max_header_size=MAX_HEADER_BYTES)
    except BROKEN as error:
        raise MalformedBody(f"the body is no .npy array: {cut(' '.join(str(error).split()))}") from error
    if dtype.hasobject:
        raise MalformedBody("the body is an .npy of Python objects, expected numbers, which need no pickle")
    if any(type(length) is not int or length < 0 for length in shape):
        raise MalformedBody(f"the body is an .npy of shape {cut(str(shape))}, expected whole sizes")
    takes, holds = math.prod(shape) * dtype.itemsize, len(content) - head.tell()
    if takes != holds:
        raise MalformedBody(
            f"the body is an .npy whose shape {cut(show(shape))} takes {takes} bytes as {cut(str(dtype))}, but {holds} "
            "follow its header"
        )
    if not takes:
        return np.empty(shape, dtype)
    return np.frombuffer(content, dtype, math.prod(shape), head.tell()).reshape(shape, order="F" if by_columns else "C")
