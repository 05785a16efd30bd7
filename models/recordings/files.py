"""The files of recordings: which format one has, and how it is read.

    .npy   a structured array with the fields t, x, y and p, or t and unit
    .npz   an array for each of them
    .csv   a line of their names, then a line for each event; without names the columns are t, x, y and p, or t and unit
    .aedat4, .raw, .dat, .es   what event cameras write: AEDAT4, EVT2 or EVT3, DAT, ES; read by the package faery

Times are whole microseconds, from any start. Faery trusts a file: a damaged one can end the process that reads it.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidInput, install
from spikeserve.models.recordings.columns import FIELDS, Column, fields_of, named, whole_columns

HEAD_BYTES = 2**12  # of a file that are looked at: the headers of EVT and DAT are some hundreds
MAX_BYTES = 2**28  # of the arrays of an .npz, which are compressed
MAX_EVENTS = 2**25  # of one file: compressed, it may hold many more than its size tells
MAX_FAULT = 200  # characters of what a library says
SEPARATORS = (",", ";", "\t")
WITHOUT_NAMES = {2: ("t", "unit"), 3: ("t", "x", "y"), 4: ("t", "x", "y", "p")}
UNKNOWN_SIZE = (2**16 - 1, 2**15 - 1)  # of a sensor whose file does not say it
OF_FAERY = {"t": np.int64, "x": np.int64, "y": np.int64, "on": np.int64}

_LINES = re.compile(rb"(?:%[ -~\t]*\r?\n)+")  # the header of EVT and of DAT
_IS_EVT = re.compile(rb"^% *(?:evt |format +evt)", re.IGNORECASE | re.MULTILINE)
_TEXT = re.compile(rb"[ -~\t]*(?:\r?\n|$)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


class FileFormat(StrEnum):
    """A format of recordings; its value is what people call it."""

    AEDAT = "AEDAT"
    EVT = "EVT"
    DAT = "DAT"
    ES = "ES"
    CSV = "CSV"
    NPY = "NPY"
    NPZ = "NPZ"


SUFFIXES: Mapping[str, FileFormat] = {
    ".npy": FileFormat.NPY,
    ".npz": FileFormat.NPZ,
    ".csv": FileFormat.CSV,
    **dict.fromkeys((".aedat", ".aedat4"), FileFormat.AEDAT),
    **dict.fromkeys((".raw", ".evt"), FileFormat.EVT),
    ".dat": FileFormat.DAT,
    ".es": FileFormat.ES,
}


def file_format(content: bytes) -> FileFormat | None:
    """Return the format of a recording that is no array by its first bytes, or None for anything else."""
    if content.startswith(b"#!AER-DAT"):
        return FileFormat.AEDAT
    if content.startswith(b"Event Stream"):
        return FileFormat.ES
    if header := _LINES.match(content, 0, HEAD_BYTES):
        return FileFormat.EVT if _IS_EVT.search(header[0]) else FileFormat.DAT
    line = _TEXT.match(content, 0, HEAD_BYTES)
    names = csv_columns(line[0].decode())[0] if line and line[0].endswith(b"\n") else ()
    return FileFormat.CSV if len(names) > 1 and {*map(str.lower, names)} & {*FIELDS["t"]} else None


def csv_columns(line: str) -> tuple[tuple[str, ...], str, bool]:
    """Return the columns' names, their separator, and whether the first line of a CSV, which is given, names them."""
    separator = next((each for each in SEPARATORS if each in line), ",")
    cells = tuple(cell.strip().strip('"') for cell in line.split(separator))
    if len(cells) in WITHOUT_NAMES and all(map(_NUMBER.fullmatch, cells)):
        return WITHOUT_NAMES[len(cells)], separator, False
    return tuple(cell.partition("@")[0] for cell in cells), separator, True  # faery's x@640


def read_events(path: Path) -> dict[str, Column]:
    """Return the events of a file as `whole_columns`; raises InvalidInput, whose sentence begins with its path."""
    where, kind = f"'{path}'", SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(f"{where}: is of no kind that is known, expected {', '.join(SUFFIXES)}")
    columns = read_columns(path, kind, MAX_EVENTS, where)
    if len(next(iter(columns.values()), ())) > MAX_EVENTS:
        raise InvalidInput(f"{where}: holds more than {MAX_EVENTS:,} events, expected at most as many")
    return whole_columns(columns, where)


def read_columns(path: Path, kind: FileFormat, most: int, where: str) -> dict[str, NDArray[Any]]:
    """Return the columns of a file by the names that it gives them; raises InvalidInput where it is damaged.

    Of more than `most` events only some are returned, at least one too many.
    """
    if kind not in (FileFormat.CSV, FileFormat.NPY, FileFormat.NPZ) and find_spec("faery") is None:
        raise InvalidInput(f"{where}: is read by the package faery, which is not installed: {install('events')}")
    try:
        match kind:
            case FileFormat.NPY:
                with path.open("rb") as file:
                    return fields_of(npy.read_array(file, allow_pickle=False), where)
            case FileFormat.NPZ:
                return _archived(path, where)
            case FileFormat.CSV:
                return _separated(path, most, where)
        packets = list(_packets(path, kind, most))
    except (InvalidInput, MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Rust's is not an Exception
        said = " ".join(str((isinstance(error, OSError) and error.strerror) or error).replace(str(path), "it").split())
        raise InvalidInput(f"{where} cannot be read as {kind}: {said[:MAX_FAULT]}") from error
    return {
        name: np.concatenate([np.empty(0, dtype), *(packet[name].astype(dtype) for packet in packets)])
        for name, dtype in OF_FAERY.items()
    }


def _archived(path: Path, where: str) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        if (size := sum(member.file_size for member in archive.infolist())) > MAX_BYTES:
            raise InvalidInput(f"{where}: its arrays have {size:,} bytes, expected at most {MAX_BYTES:,}")
        known = {name for names in FIELDS.values() for name in names}
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: np.empty(0) for name in names if name.strip().lower() in known}
        for name in arrays:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays or dict.fromkeys(names, np.empty(0))


def _separated(path: Path, most: int, where: str) -> dict[str, NDArray[Any]]:
    """Read the columns of a CSV that are those of events; others may hold anything."""
    with path.open(encoding="utf-8") as file:
        head = file.readline()
        names, separator, are_named = csv_columns(head)
        places = named(names, where)
        lines = (line for line in chain([] if are_named else [head], file) if line.strip())
        first = next(lines, None)
        if first is None:
            return {name: np.empty(0) for name in places}
        if (cells := len(first.split(separator))) != len(names):
            raise InvalidInput(f"{where}: has {cells} columns under {len(names)} names in its first line")
        rows = np.loadtxt(
            chain([first], lines), np.float64, comments=None, delimiter=separator, usecols=[*places.values()],
            max_rows=most + 1, ndmin=2,
        )  # fmt: skip
    return dict(zip(places, rows.T, strict=True))


def _packets(path: Path, kind: FileFormat, most: int) -> Iterator[NDArray[Any]]:
    """Yield the events, packet by packet, until they are more than `most`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from faery.file_decoder import Decoder  # imported here, since it is optional

    packets = Decoder(path, file_type=kind.lower(), dimensions_fallback=UNKNOWN_SIZE, time_range_cache=None)
    count = 0
    for packet in packets:
        count += len(packet)
        yield packet
        if count > most:
            return
