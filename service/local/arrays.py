"""Arrays in files, some samples at a time, each time as the .npy that the server would take as a body.

An .npz holds an array `x`, or one of the other ARRAYS, samples first; or the fields of one recording.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.lib.format import write_array_header_2_0
from numpy.typing import NDArray

from spikeserve.models.recordings.columns import FIELDS, whole_columns
from spikeserve.models.recordings.files import MAX_EVENTS, FileFormat, read_columns
from spikeserve.models.spec import Spec
from spikeserve.service.errors import MalformedBody, TooLarge
from spikeserve.service.inference.decoding.binary import MAX_HEADER_BYTES, WHERE, Header, header_of, recorded

ARRAYS = ("x", "data", "samples", "inputs")  # what people call the array, or the column, of samples
MEMBER = ".npy"
HEAD_BYTES = MAX_HEADER_BYTES + 12  # that hold any header


@contextmanager
def array_of(archive: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """Open the array of samples in an .npz; raises MalformedBody where there is none, or several."""
    with zipfile.ZipFile(archive) as opened:
        names = [each for each in opened.namelist() if each.removesuffix(MEMBER).lower() in ARRAYS]
        if len(names) != 1:
            held = ", ".join(each.removesuffix(MEMBER) for each in opened.namelist()[:20]) or "nothing"
            raise MalformedBody(f"it holds {held}, expected one of {', '.join(ARRAYS)}")
        with opened.open(names[0]) as member:
            yield member


def samples_header(head: bytes) -> Header:
    """Read the header of an array of samples; raises MalformedBody, also for an order that is not that of samples."""
    header = header_of(head)
    if header.by_columns and len(header.shape) > 1:
        raise MalformedBody("its array is in Fortran order, expected C order, as numpy.ascontiguousarray makes it")
    return header


def has_batch(shape: tuple[int, ...], task: Spec) -> bool:
    """Return whether the first axis of an array counts samples, each nested like the task's input or flat."""
    own = task.input.shape
    nested = len(shape) >= len(own) and shape[len(shape) - len(own) :] == own
    return len(shape) - (len(own) if nested else 1) > int(task.coding.per_step)


def parts(file: IO[bytes], task: Spec, most: int, most_bytes: int, head: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """Yield an array as arrays of at most `most` samples, each with their number; its `head` has been read already.

    Raises MalformedBody for one that ends early or late, and TooLarge for a sample of more than `most_bytes`.
    """
    head += file.read(HEAD_BYTES - len(head))
    dtype, shape, _, start = samples_header(head)
    batch = dtype.names is None and has_batch(shape, task)
    sample = dtype.itemsize * math.prod(shape[1:] if batch else shape)
    if sample > most_bytes:
        raise TooLarge(f"a sample takes {sample} bytes, expected at most {most_bytes} (max_body_bytes)")
    count, held = shape[0] if batch else 1, head[start:]
    at_once = max(1, min(most, most_bytes // max(1, sample)))
    for first in range(0, max(1, count), at_once):
        own = min(count, first + at_once) - first
        size = own * sample
        values, held = held[:size], held[size:]
        values += file.read(size - len(values))
        if len(values) != size:
            raise MalformedBody(f"its values end before sample {first + own} of {count}")
        yield own, npy(dtype, (own, *shape[1:]) if batch else shape, values)
    if held or file.read(1):
        raise MalformedBody(f"more bytes follow its {count} samples, expected none")


def npy(dtype: np.dtype[Any], shape: tuple[int, ...], values: bytes) -> bytes:
    """Return an array's values as the bytes of an .npy."""
    file = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + values


def as_npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an .npy."""
    return npy(array.dtype, array.shape, np.ascontiguousarray(array).tobytes())


def _fields(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the members of an .npz that hold the fields of a recording, by their lower-case names."""
    known = {name for names in FIELDS.values() for name in names}
    names = {each.removesuffix(MEMBER).strip().lower(): each for each in archive.namelist()}
    return {name: member for name, member in names.items() if name in known}


def is_recording(archive: Path | IO[bytes]) -> bool:
    """Return whether an .npz holds the fields of a recording."""
    with zipfile.ZipFile(archive) as opened:
        return bool(_fields(opened).keys() & {*FIELDS["t"]})


def recording(archive: Path | IO[bytes], most_bytes: int) -> bytes:
    """Return the fields of an .npz as the structured array that they would be as an .npy.

    Raises MalformedBody for fields that do not fit their headers or each other, and TooLarge where all take more than
    `most_bytes`, which is known before they are unpacked.
    """
    columns, room = {}, most_bytes
    with zipfile.ZipFile(archive) as opened:
        for name, member in _fields(opened).items():
            with opened.open(member) as file:
                head = file.read(HEAD_BYTES)
                header = samples_header(head)
                if len(header.shape) != 1:
                    raise MalformedBody(f"its field {name} has {len(header.shape)} axes, expected one")
                size = header.dtype.itemsize * header.shape[0]
                if size > room:
                    raise TooLarge(f"its fields take over {most_bytes} bytes, expected no more (max_body_bytes)")
                values = head[header.start :]
                values += file.read(max(0, size + 1 - len(values)))
                if len(values) != size:
                    raise MalformedBody(f"its field {name} has other than the {size} bytes that its header says")
                columns[name] = np.frombuffer(values, header.dtype)
                room -= size
    lengths = {len(each) for each in columns.values()}
    if len(lengths) > 1:
        raise MalformedBody(f"its fields have {min(lengths)} to {max(lengths)} events, expected as many of all")
    events = np.empty(lengths.pop(), [(name, each.dtype) for name, each in columns.items()])
    for name, each in columns.items():
        events[name] = each
    return as_npy(events)


def event_records(content: bytes, kind: FileFormat) -> bytes:
    """Return the events of a recording's file as event records; raises InvalidInput."""
    with NamedTemporaryFile() as copy:
        copy.write(content)
        copy.flush()
        _, records = recorded(whole_columns(read_columns(Path(copy.name), kind, MAX_EVENTS, WHERE), WHERE))
    return records.tobytes()
