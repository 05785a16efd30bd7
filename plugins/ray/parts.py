"""What a batch job reads, in parts: bodies that the server would take, some samples at a time.

.npz      an array `x` (also named `data`, `samples` or `inputs`), samples first; or the fields of one recording
.npy      an array of samples; or a structured one, the events of one recording
.parquet  a row for each sample, whose column `x` (or as above) holds its numbers, flat or nested
others    a recording of one sample: event records, AEDAT4, EVT, DAT, ES and CSV

A part is some samples of one file. Its predictions are one Parquet file, whose name holds a hash of all that they
depend on: the input's name, size and time of change, the bundle, and the settings.
Files and predictions lie in a folder, or at a URL such as s3://bucket/folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem
from pyarrow.parquet import ParquetFile

from spikeserve.models.errors import SpikeserveError, bounded_line
from spikeserve.models.recordings.columns import FIELDS
from spikeserve.models.spec import Spec
from spikeserve.plugins.local.arrays import as_npy, event_records, parts
from spikeserve.service.errors import MalformedBody, Misconfigured
from spikeserve.service.inference.decoding.media import NPY, RECORDS

ARRAYS = ("x", "data", "samples", "inputs")  # what people call the array, or the column, of samples
EVENTS = (".events", ".bin")  # of event records
SUFFIXES = (".npz", ".npy", ".parquet", *EVENTS, ".aedat4", ".raw", ".dat", ".es", ".csv")
BROKEN = (OSError, EOFError, BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, MemoryError)

LAST = "-last"  # ends the name of a file's last part
OUTPUT = re.compile(r"(.*-[0-9a-f]{24})-\d{6,}(-last)?\.parquet")  # by the stem of its input


class Source(NamedTuple):
    """A file, and its name below the path that was given.

    `stem` begins the names of its predictions, and has a hash of all that these depend on.
    """

    system: FileSystem
    path: str
    name: str
    stem: str

    def output(self, number: int, last: str = "") -> str:
        """Return the name of the predictions of a part; `last` is LAST for the file's last one."""
        return f"{self.stem}-{number:06d}{last}.parquet"

    def parts(self, spec: Spec, most: int, most_bytes: int) -> Iterator[dict[str, Any]]:
        """Read the file, in parts of at most so many samples, of which each has at most so many bytes.

        A part has the name of its `input` and of its `output`, the place of its first `sample`, the number of its
        `samples`, their media type as `kind`, and their `body`; `refused` is "", or why the file cannot be read on.
        """
        sample, bodies = 0, chain[Any](self._bodies(spec, most, most_bytes), [None])
        for number, (body, following) in enumerate(pairwise(bodies)):
            output = self.output(number, "" if following else LAST)
            yield {"input": self.name, "output": output, "sample": sample, **body}
            sample += body["samples"]

    def _bodies(self, spec: Spec, most: int, most_bytes: int) -> Iterator[dict[str, Any]]:
        try:
            with self.system.open_input_file(self.path) as file:
                for samples, kind, body in self._contents(file, spec, most, most_bytes):
                    yield {"samples": samples, "kind": kind, "body": body, "refused": ""}
        except (SpikeserveError, *BROKEN) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            yield {"samples": 0, "kind": b"", "body": b"", "refused": bounded_line(f"'{self.name}': {why}")}

    def _contents(self, file: IO[bytes], spec: Spec, most: int, most_bytes: int) -> Iterator[tuple[int, bytes, bytes]]:
        suffix = Path(self.path).suffix.lower()
        if suffix == ".npz":
            names = [each.removesuffix(".npy") for each in ZipFile(file).namelist()]
            if {*map(str.lower, names)}.isdisjoint(FIELDS["t"]):
                file, suffix = ZipFile(file).open(f"{_samples(names)}.npy"), ".npy"  # noqa: SIM115  (it ends with its file)
            else:
                file.seek(0)
        if suffix == ".npy":
            yield from ((samples, NPY, body) for samples, body in parts(file, spec, most, most_bytes))
        elif suffix == ".parquet":
            parquet = ParquetFile(file)
            for batch in parquet.iter_batches(most, columns=[_samples(parquet.schema_arrow.names)]):
                yield len(batch), NPY, as_npy(_dense(batch.column(0)))
        elif suffix in EVENTS:
            yield 1, RECORDS, file.read()
        else:
            yield 1, RECORDS, event_records(file.read(), suffix)


def _samples(names: Sequence[str]) -> str:
    """Return which of a file's arrays or columns holds the samples; raises MalformedBody."""
    known = [name for name in names if name.lower() in ARRAYS]
    if len(known) != 1:
        raise MalformedBody(f"it holds {', '.join(names[:20]) or 'nothing'}, expected one of {', '.join(ARRAYS)}")
    return known[0]


def _dense(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return a column of lists as one array, (samples, values); raises ValueError for lists of other lengths."""
    values = column
    while pa.types.is_nested(values.type):
        values = values.cast(pa.list_(values.type.value_type, len(values[0]))).flatten()
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def place(path: str) -> tuple[FileSystem, str]:
    """Return the file system of a path or a URL, and the path in it; raises ArrowInvalid for another URL."""
    system, at = FileSystem.from_uri(path if "://" in path else str(Path(path).resolve()))
    return system, at


def inputs(paths: Sequence[str], job: str) -> list[Source]:
    """Return the files at the paths and URLs; a folder gives all in it. `job` names the bundle and the settings.

    Raises Misconfigured for a path that is not there, a folder without a file that can be read, and a name given twice.
    """
    sources: dict[str, Source] = {}
    for path in paths:
        system, root = place(path)
        info = system.get_file_info(root)
        there = (
            [info] if info.is_file else system.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
        )
        below = [each for each in there if each.is_file and Path(each.path).suffix.lower() in SUFFIXES]
        if not below:
            raise Misconfigured(f"input: '{path}' is no file or folder of files that end in {', '.join(SUFFIXES)}")
        for each in sorted(below, key=lambda each: str(each.path)):
            name = each.base_name if info.is_file else each.path.removeprefix(f"{root}/")
            if name in sources:
                other = sources[name].path
                raise Misconfigured(f"input: '{other}' and '{each.path}' are both named '{name}', expected other names")
            identity = json.dumps([name, each.size, each.mtime_ns, job])
            stem = re.sub(r"[^\w.-]", "_", name)[:100] + f"-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
            sources[name] = Source(system, each.path, name, stem)
    return list(sources.values())
