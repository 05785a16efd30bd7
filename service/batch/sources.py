"""The files that a batch job reads, some samples at a time, each time as a body that the server would take.

.npz      an array `x` (also named `data`, `samples` or `inputs`), samples first; or the fields of one recording
.npy      an array of samples; or a structured one, the events of one recording
.parquet  a row for each sample, whose column `x` (or as above) holds its numbers, flat or nested
others    a recording of one sample: event records, AEDAT4, EVT, DAT, ES and CSV
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from spikeserve.models.errors import SpikeserveError
from spikeserve.models.recordings.files import SUFFIXES as FORMATS
from spikeserve.service.errors import MalformedBody, Misconfigured
from spikeserve.service.inference.decoding.binary import Header
from spikeserve.service.local.arrays import (
    ARRAYS,
    HEAD_BYTES,
    array_of,
    as_npy,
    event_records,
    is_recording,
    npy,
    recording,
    samples_header,
)

RECORDS = (".events", ".bin")
RECORDINGS = (*RECORDS, ".aedat4", ".raw", ".dat", ".es", ".csv")
SUFFIXES = (".npz", ".npy", ".parquet", *RECORDINGS)
BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, pa.ArrowException)

MOST_UNPACKED = 2**31  # bytes of a recording in an .npz; max_body_bytes bounds it again where the settings are known


@dataclass(frozen=True)
class Source:
    """A file: `samples` is how many it has, each of `sample_bytes`; it is None for one recording of events."""

    path: Path
    name: str
    size: int
    changed: int  # the time of its last change, in nanoseconds
    samples: int | None
    sample_bytes: int = 0

    def contents(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the samples of each range, (start, stop) and ascending, as an .npy; of a recording the whole file.

        Raises Misconfigured for what cannot be read.
        """
        with _explained(self.path):
            if self.samples is None:
                for _ in ranges:
                    yield _recording(self.path)
            elif self.path.suffix.lower() == ".parquet":
                yield from _rows(self.path, ranges)
            else:
                yield from _slices(self.path, ranges)


def source_of(path: Path, name: str) -> Source:
    """Return a file with the number of its samples, without reading them; raises Misconfigured."""
    with _explained(path):
        status, suffix = path.stat(), path.suffix.lower()
        samples, sample_bytes = None, 0
        if suffix == ".parquet":
            with ParquetFile(path) as file:
                _column(file)
                samples = file.metadata.num_rows
                sample_bytes = sum(
                    file.metadata.row_group(each).total_byte_size for each in range(file.metadata.num_row_groups)
                ) // max(1, samples)
        elif suffix in (".npy", ".npz") and not (suffix == ".npz" and is_recording(path)):
            with _opened(path) as (_, header):
                if header.dtype.names is None:
                    if not header.shape:
                        raise MalformedBody("it holds one number, expected an array of samples")
                    samples = header.shape[0]
                    sample_bytes = header.dtype.itemsize * int(np.prod(header.shape[1:], dtype=object))
    return Source(path, name, status.st_size, status.st_mtime_ns, samples, sample_bytes)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise whatever keeps a file from being read as Misconfigured, which names the file."""
    try:
        yield
    except Misconfigured:
        raise
    except (SpikeserveError, ValueError, *BROKEN) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise Misconfigured(f"'{path}': cannot be read: {' '.join(why.split())[:300]}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Header]]:
    """Open the array of an .npy or .npz where its values begin."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            yield file, _header(file)
        return
    with array_of(path) as member:
        yield member, _header(member)


def _header(file: IO[bytes]) -> Header:
    header = samples_header(file.read(HEAD_BYTES))
    file.seek(header.start)
    return header


def _recording(path: Path) -> bytes:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return recording(path, MOST_UNPACKED)
    return path.read_bytes() if suffix in (".npy", *RECORDS) else event_records(path, FORMATS[suffix])


def _slices(path: Path, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    with _opened(path) as (file, header):
        size = header.dtype.itemsize * int(np.prod(header.shape[1:], dtype=object))
        for start, stop in ranges:
            file.seek(header.start + start * size)
            values = file.read((stop - start) * size)
            if len(values) != (stop - start) * size:
                raise MalformedBody(f"its values end before sample {stop} of {header.shape[0]}")
            yield npy(header.dtype, (stop - start, *header.shape[1:]), values)


def _column(file: ParquetFile) -> str:
    names = [name for name in file.schema_arrow.names if name.lower() in ARRAYS]
    if len(names) != 1:
        held = ", ".join(file.schema_arrow.names[:20]) or "no column"
        raise MalformedBody(f"it holds {held}, expected one of {', '.join(ARRAYS)}")
    return names[0]


def _rows(path: Path, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the rows of each range; of the file, one batch of rows is read at a time."""
    with ParquetFile(path) as file:
        name = _column(file)
        most = max(stop - start for start, stop in ranges)
        batches, held, first = file.iter_batches(most, columns=[name]), pa.chunked_array([], _type(file, name)), 0
        for start, stop in ranges:
            while first + len(held) < stop:
                batch = next(batches).column(0)
                skipped = min(len(held), start - first)  # what lies before the range is not kept
                held, first = pa.chunked_array([*held.slice(skipped).chunks, batch]), first + skipped
            yield as_npy(_dense(held.slice(start - first, stop - start).combine_chunks()))


def _type(file: ParquetFile, name: str) -> pa.DataType:
    return file.schema_arrow.field(name).type


def _dense(column: pa.Array) -> NDArray[Any]:
    """Return a column of lists as one array, samples first; raises MalformedBody for lists of different lengths."""
    shape = [len(column)]
    while True:
        if column.null_count:
            raise MalformedBody("its column holds null, expected numbers")
        kind = column.type
        if pa.types.is_fixed_size_list(kind):
            length = kind.list_size
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = {int(stop) - int(start) for start, stop in pairwise(column.offsets.to_numpy())}
            if len(lengths) > 1:
                raise MalformedBody(f"its lists have {min(lengths)} to {max(lengths)} items, expected as many in all")
            length = lengths.pop() if lengths else 0
        else:
            break
        shape.append(length)
        column = column.flatten()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise MalformedBody(f"its column holds {kind}, expected numbers")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.reshape(shape)
