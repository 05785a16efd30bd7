"""The files of recordings: which format one has, and how it is read.

    .npy   a structured array with the fields t, x, y and p, or t and unit
    .npz   an array for each of them
    .csv, .txt   a line of their names, then a line for each event, of columns between commas, semicolons, tabs or
                 blanks; without names they are t, x, y and p, or t and unit
    .aedat4, .raw, .dat, .es   what event cameras write: AEDAT4, EVT2 or EVT3, DAT, ES; read by the package faery
    others                     the readers of plugins (`models.kinds.Reader`)

Times are whole microseconds, from any start. Faery trusts a file: a damaged one can end the process that reads it.
"""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeserve.models.door import Plugin, guessed, of_kind, surest
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.columns import FIELDS, Column, fields_of, named, whole_columns

HEAD_BYTES = 2**12  # of a file that are looked at: the headers of EVT and DAT are some hundreds
MAX_BYTES = 2**28  # of the arrays of an .npz, which are compressed
MAX_EVENTS = 2**25  # of one file: compressed, it may hold many more than its size tells
ZIP = b"PK\x03\x04"  # how an .npz begins
MAX_FAULT = 200  # characters of what a library says
SEPARATORS = (",", ";", "\t")
WITHOUT_NAMES = {2: ("t", "unit"), 3: ("t", "x", "y"), 4: ("t", "x", "y", "p")}
UNKNOWN_SIZE = (2**16 - 1, 2**15 - 1)  # of a sensor whose file does not say it
OF_FAERY = {"t": np.int64, "x": np.int64, "y": np.int64, "on": np.int64}

_LINES = re.compile(rb"(?:%[ -~\t]*\r?\n)+")  # the header of EVT and of DAT
_IS_EVT = re.compile(rb"^% *(?:evt |format +evt)", re.IGNORECASE | re.MULTILINE)
_TEXT = re.compile(rb"[ -~\t]*(?:\r?\n|$)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


SUFFIXES: Mapping[str, str] = {  # the core's formats, as people call them
    ".npy": "NPY", ".npz": "NPZ", ".csv": "CSV", ".txt": "CSV", ".aedat": "AEDAT", ".aedat4": "AEDAT", ".raw": "EVT",
    ".evt": "EVT", ".dat": "DAT", ".es": "ES",
}  # fmt: skip
BY_NUMPY = {"NPY": "_array", "NPZ": "_archived", "CSV": "_separated"}  # the others are read by faery


def file_format(content: bytes) -> str | None:
    """Return the format of a recording that is no array by its first bytes, or None for anything else."""
    if content.startswith(b"#!AER-DAT"):
        return "AEDAT"
    if content.startswith(b"Event Stream"):
        return "ES"
    if header := _LINES.match(content, 0, HEAD_BYTES):
        return "EVT" if _IS_EVT.search(header[0]) else "DAT"
    line = _TEXT.match(content, 0, HEAD_BYTES)
    names, separator, _ = csv_columns(line[0].decode() if line and line[0].endswith(b"\n") else "")
    found, known = {*map(str.lower, names)}, {name for names in FIELDS.values() for name in names}
    return "CSV" if len(names) > 1 and found & {*FIELDS["t"]} and (separator or found <= known) else None


def csv_columns(line: str) -> tuple[tuple[str, ...], str | None, bool]:
    """Return the columns' names, their separator, and whether the first line of a CSV, which is given, names them.

    The separator is None for blanks.
    """
    separator = next((each for each in SEPARATORS if each in line), None)
    cells = tuple(cell.strip().strip('"') for cell in line.split(separator))
    if len(cells) in WITHOUT_NAMES and all(map(_NUMBER.fullmatch, cells)):
        return WITHOUT_NAMES[len(cells)], separator, False
    return tuple(cell.partition("@")[0] for cell in cells), separator, True  # faery's x@640


def _is(name: str, path: Path) -> float:
    """Return 0.5 for a file of the core's format `name`: by its suffix, or where it has none by how it begins."""
    if path.suffix or not path.is_file():
        return 0.5 * (SUFFIXES.get(path.suffix.lower()) == name)
    with path.open("rb") as file:
        content = file.read(HEAD_BYTES)
    return 0.5 * (name == ("NPZ" if content.startswith(ZIP) else file_format(content)))


def _format(name: str) -> Plugin:
    at, needs = f"{__name__}:{BY_NUMPY.get(name, '_by_faery')}", () if name in BY_NUMPY else ("faery",)
    return Plugin("reader", name, at, f"recordings as {name}", needs, "events", partial(_is, name), "spikeserve")


FORMATS: Mapping[str, Plugin] = {name: _format(name) for name in SUFFIXES.values()}


def is_readable(path: Path) -> bool:
    """Return whether a file is of a format that is known here, the core's or a plugin's."""
    return bool(surest("reader", path, FORMATS))


def read_events(path: Path) -> dict[str, Column]:
    """Return the events of a file as `whole_columns`; raises InvalidInput, whose sentence begins with its path."""
    where = f"'{path}'"
    if not is_readable(path):
        raise InvalidInput(
            f"{where}: is of no kind that is known, expected {', '.join([*SUFFIXES, *of_kind('reader')])}"
        )
    columns = read_arrays(path, MAX_BYTES)
    if max((len(each) for each in columns.values() if each.ndim), default=0) > MAX_EVENTS:
        raise InvalidInput(f"{where}: holds more than {MAX_EVENTS:,} events, expected at most as many")
    return whole_columns(columns, where)


def read_arrays(path: Path, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by the names that it gives them; raises InvalidInput where it is damaged.

    A plugin's file and its arrays may have `most_bytes` each. Of more than MAX_EVENTS events at least one too many is
    returned.
    """
    reader, where = guessed("reader", path, FORMATS), f"'{path}'"
    most_bytes = sys.maxsize if reader.name in FORMATS else most_bytes
    try:
        read = reader.load()
        _check_bytes(path.stat().st_size, most_bytes, f"{where}: it has")
        arrays = {name: np.asarray(array) for name, array in read(path).items()}
    except (InvalidInput, MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Rust's is not an Exception
        said = " ".join(str((isinstance(error, OSError) and error.strerror) or error).replace(str(path), "it").split())
        raise InvalidInput(f"{where} cannot be read as {reader.name}: {said[:MAX_FAULT]}") from error
    _check_bytes(sum(array.nbytes for array in arrays.values()), most_bytes, f"{where}: its arrays have")
    return arrays


def _check_bytes(size: int, most: int, what: str) -> None:
    if size > most:
        raise InvalidInput(f"{what} {size:,} bytes, expected at most {most:,}")


def _array(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:
        return fields_of(npy.read_array(file, allow_pickle=False), f"'{path}'")


def _archived(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        _check_bytes(sum(member.file_size for member in archive.infolist()), MAX_BYTES, f"'{path}': its arrays have")
        known = {name for names in FIELDS.values() for name in names}
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: np.empty(0) for name in names if name.strip().lower() in known}
        for name in arrays:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
    return arrays or dict.fromkeys(names, np.empty(0))


def _separated(path: Path) -> dict[str, NDArray[Any]]:
    """Read the columns of a CSV that are those of events; others may hold anything."""
    with path.open(encoding="utf-8") as file:
        head = file.readline()
        names, separator, are_named = csv_columns(head)
        places = named(names, f"'{path}'")
        lines = (line for line in chain([] if are_named else [head], file) if line.strip())
        first = next(lines, None)
        if first is None:
            return {name: np.empty(0) for name in places}
        if (cells := len(first.split(separator))) != len(names):
            raise InvalidInput(f"'{path}': has {cells} columns under {len(names)} names in its first line")
        rows = np.loadtxt(
            chain([first], lines), np.float64, comments=None, delimiter=separator, usecols=[*places.values()],
            max_rows=MAX_EVENTS + 1, ndmin=2,
        )  # fmt: skip
    return dict(zip(places, rows.T, strict=True))


def _by_faery(path: Path) -> dict[str, NDArray[Any]]:
    packets = [np.empty(0, [*OF_FAERY.items()]), *_packets(path)]
    return {
        name: np.concatenate([packet[name].astype(dtype) for packet in packets]) for name, dtype in OF_FAERY.items()
    }


def _packets(path: Path) -> Iterator[NDArray[Any]]:
    """Yield the events, packet by packet, until they are more than MAX_EVENTS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from faery.file_decoder import Decoder  # imported here, since it is optional

    (kind,) = (name.lower() for name in FORMATS if _is(name, path))
    count = 0
    for packet in Decoder(path, file_type=kind, dimensions_fallback=UNKNOWN_SIZE, time_range_cache=None):
        count += len(packet)
        yield packet
        if count > MAX_EVENTS:
            return
