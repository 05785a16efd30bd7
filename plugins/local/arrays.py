"""Files as bodies that the server would take: an array some samples at a time, and a recording's events."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.files import is_readable, read_events
from spikeserve.models.spec import Spec
from spikeserve.service.errors import MalformedBody, TooLarge
from spikeserve.service.inference.decoding.binary import MAX_HEADER_BYTES, WHERE, header_of, recorded

CHUNK = 2**16  # bytes that are read at once
HEAD_BYTES = MAX_HEADER_BYTES + 12  # that hold any header


def parts(file: IO[bytes], task: Spec, most: int, most_bytes: int, head: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """Yield an .npy as those of at most `most` samples, each with their number; its `head` has been read already.

    Raises MalformedBody for one that ends early or late, and TooLarge for a sample of more than `most_bytes`.
    """
    head += file.read(HEAD_BYTES - len(head))
    dtype, shape, by_columns, start = header_of(head)
    if by_columns and len(shape) > 1:
        raise MalformedBody("its array is in Fortran order, expected C order, as numpy.ascontiguousarray makes it")
    inputs = task.input.shape
    axes = len(inputs) if shape[-len(inputs) :] == inputs else 1  # of a sample, or of each of its steps: nested or flat
    batch = dtype.names is None and len(shape) - axes > int(task.coding.per_step)
    sample = dtype.itemsize * math.prod(shape[1:] if batch else shape)
    if sample > most_bytes:
        raise TooLarge(f"a sample takes {sample} bytes, expected at most {most_bytes} (max_body_bytes)")
    count, rest = shape[0] if batch else 1, head[start:]
    at_once = max(1, min(most, most_bytes // max(1, sample)))
    for first in range(0, max(1, count), at_once):
        own = min(count, first + at_once) - first
        size = own * sample
        values, rest = rest[:size], rest[size:]
        values += file.read(size - len(values))
        if len(values) != size:
            raise MalformedBody(f"its values end before sample {first + own} of {count}")
        yield own, as_npy(np.ndarray((own, *shape[1:]) if batch else shape, dtype, values))
    if rest or file.read(1):
        raise MalformedBody(f"more bytes follow its {count} samples, expected none")


def as_npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an .npy."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def event_records(content: bytes, suffix: str = "") -> bytes:
    """Return the events of a recording's file as event records, and anything else as it is; raises InvalidInput."""
    with NamedTemporaryFile(suffix=suffix) as copy:
        copy.write(content)
        copy.flush()
        try:
            return recorded(read_events(path))[1].tobytes() if is_readable(path := Path(copy.name)) else content
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(f"'{copy.name}'", WHERE, 1)) from error
