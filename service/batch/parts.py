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
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from pyarrow.parquet import ParquetFile

from spikeserve.models.errors import SpikeserveError
from spikeserve.models.recordings.columns import FIELDS
from spikeserve.models.recordings.files import SUFFIXES as FORMATS
from spikeserve.models.recordings.files import FileFormat
from spikeserve.models.spec import Spec
from spikeserve.service.errors import MalformedBody, Misconfigured
from spikeserve.service.inference.decoding.media import NPY, RECORDS
from spikeserve.service.local.arrays import as_npy, event_records, parts

ARRAYS = ("x", "data", "samples", "inputs")  # what people call the array, or the column, of samples
EVENTS = (".events", ".bin")  # of event records
RECORDINGS = (*EVENTS, ".aedat4", ".raw", ".dat", ".es", ".csv")
SUFFIXES = (".npz", ".npy", ".parquet", *RECORDINGS)
BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, MemoryError)

PART_BYTES = 2**24  # of the input that a part holds, unless one body has more: what a process reads at once
LAST = "-last"  # ends the name of a file's last part
UNFINISHED = ".unfinished-"  # begins the name of a file that is being written, which no part's does
OUTPUT = re.compile(r".*-(?P<key>[0-9a-f]{24})-(?P<start>\d{9,})-(?P<stop>\d{9,})(?P<last>-last)?\.parquet")


class Part(NamedTuple):
    """The samples of a file from `start` on: bodies, each with its media type; `output` names their predictions."""

    name: str
    start: int
    output: str
    bodies: list[tuple[bytes, bytes]]


class Source(NamedTuple):
    """A file, its name below the path that was given, and a hash of all that its predictions depend on."""

    system: FileSystem
    path: str
    name: str
    key: str

    @property
    def suffix(self) -> str:
        """The end of its name, which says what it holds."""
        return Path(self.path).suffix.lower()

    def is_done(self, names: Collection[str]) -> bool:
        """Return whether the predictions of all its samples are among the files of these names."""
        outputs = [output for each in names if (output := OUTPUT.fullmatch(each)) and output["key"] == self.key]
        there, at = {int(each["start"]): each for each in outputs}, 0
        while output := there.get(at):
            if output["last"]:
                return True
            at = int(output["stop"])
        return False

    def parts(self, spec: Spec, part_samples: int, most: int, most_bytes: int) -> Iterator[Part]:
        """Read the file, in parts of at most so many samples; a body has `most`. Raises Misconfigured."""
        bodies = list[tuple[bytes, bytes]]()
        start = stop = size = 0
        try:
            with self.system.open_input_file(self.path) as file:
                for samples, kind, content in self._contents(file, spec, min(most, part_samples), most_bytes):
                    if bodies and (stop + samples - start > part_samples or size + len(content) > PART_BYTES):
                        yield self._part(start, stop, bodies)
                        bodies, start, size = [], stop, 0
                    bodies.append((kind, content))
                    stop, size = stop + samples, size + len(content)
        except (SpikeserveError, *BROKEN) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise Misconfigured(f"'{self.name}': {' '.join(why.split())[:300]}") from error
        yield self._part(start, stop, bodies, LAST)

    def _part(self, start: int, stop: int, bodies: list[tuple[bytes, bytes]], last: str = "") -> Part:
        stem = re.sub(r"[^\w.-]", "_", self.name)[:100]
        return Part(self.name, start, f"{stem}-{self.key}-{start:09d}-{stop:09d}{last}.parquet", bodies)

    def _contents(self, file: IO[bytes], spec: Spec, most: int, most_bytes: int) -> Iterator[tuple[int, bytes, bytes]]:
        if self.suffix == ".parquet":
            yield from _rows(file, most)
        elif self.suffix == ".npy":
            yield from ((samples, NPY, body) for samples, body in parts(file, spec, most, most_bytes))
        elif self.suffix in EVENTS:
            yield 1, RECORDS, file.read()
        elif self.suffix in RECORDINGS:
            yield 1, RECORDS, event_records(file.read(), FORMATS[self.suffix])
        elif file.read(4) != b"PK\3\4":
            raise MalformedBody("it is no .npz")
        else:
            with zipfile.ZipFile(file) as archive:
                names = [each.removesuffix(".npy") for each in archive.namelist()]
                if is_samples := {*map(str.lower, names)}.isdisjoint(FIELDS["t"]):
                    with archive.open(f"{_samples(names)}.npy") as array:
                        yield from ((samples, NPY, body) for samples, body in parts(array, spec, most, most_bytes))
            if not is_samples:
                file.seek(0)
                yield 1, RECORDS, event_records(file.read(), FileFormat.NPZ)


def _samples(names: Sequence[str]) -> str:
    """Return which of a file's arrays or columns holds the samples; raises MalformedBody."""
    known = [name for name in names if name.lower() in ARRAYS]
    if len(known) != 1:
        raise MalformedBody(f"it holds {', '.join(names[:20]) or 'nothing'}, expected one of {', '.join(ARRAYS)}")
    return known[0]


def _rows(file: IO[bytes], most: int) -> Iterator[tuple[int, bytes, bytes]]:
    parquet = ParquetFile(file)
    for batch in parquet.iter_batches(most, columns=[_samples(parquet.schema_arrow.names)]):
        yield len(batch), NPY, as_npy(_dense(batch.column(0)))


def _dense(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return a column of lists as one array, (samples, values); raises MalformedBody for lists of other lengths."""
    values = column
    while pa.types.is_nested(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) > 1 or values.null_count:
            raise MalformedBody(f"its lists have {lengths} items, expected as many in all")
        values = values.flatten()
    if values.null_count:
        raise MalformedBody("its column holds null, expected numbers")
    array: np.ndarray[Any, Any] = values.to_numpy(zero_copy_only=False)
    return array.reshape(len(column), -1)


def place(path: str) -> tuple[FileSystem, str]:
    """Return the file system of a path or a URL, and the path in it; raises Misconfigured."""
    try:
        system, at = FileSystem.from_uri(path) if "://" in path else (LocalFileSystem(), str(Path(path).resolve()))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"'{path}': cannot be used: {' '.join(str(error).split())}") from error
    return system, at


def inputs(paths: Sequence[str], job: str) -> list[Source]:
    """Return the files at the paths and URLs; a folder gives all in it. `job` names the bundle and the settings.

    Raises Misconfigured for a path that is not there, a folder without a file that can be read, and a name given twice.
    """
    sources: dict[str, Source] = {}
    for path in paths:
        system, root = place(path)
        info = system.get_file_info(root)
        is_folder = info.type is FileType.Directory
        listed = system.get_file_info(FileSelector(root, recursive=True)) if is_folder else [info]
        below = [each for each in listed if each.is_file and Path(each.path).suffix.lower() in SUFFIXES]
        if not below:
            raise Misconfigured(f"input: '{path}' is no file or folder of files that end in {', '.join(SUFFIXES)}")
        for each in sorted(below, key=lambda each: str(each.path)):
            name = each.path.removeprefix(f"{root}/") if is_folder else each.base_name
            if name in sources:
                other = sources[name].path
                raise Misconfigured(f"input: '{other}' and '{each.path}' are both named '{name}', expected other names")
            identity = json.dumps([name, each.size, each.mtime_ns, job])
            sources[name] = Source(system, each.path, name, hashlib.sha256(identity.encode()).hexdigest()[:24])
    return list(sources.values())
