"""Reads .npz and .npy files: sizes are checked before anything of their size is made, and nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeserve.models.spec.parameters import show
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory, require_plain

SUFFIX = ".npy"
BROKEN = (
    *(EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    RuntimeError,  # an encrypted file
    *(ValueError, TypeError, OverflowError, MemoryError),  # an array that cannot be made
)
HEADERS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}  # bytes of its length first
MAX_HEADER_BYTES = 10_000  # as many as NumPy parses; it reads a longer one first, up to 4 GiB, and refuses it then


class Npz:
    """The arrays of an open .npz by their names; an array is read when it is asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.names = [name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)]
        self.room = memory()

    def read(self, name: str) -> NDArray[Any]:
        """Return an array; raises InvalidData for one that `_check` refuses."""
        member = self.archive.getinfo(name + SUFFIX)
        where = f"'{self.path}', {name}"
        with self.archive.open(member) as file:
            self.room -= _check(file, member.file_size, self.room, where)
        with self.archive.open(member) as file:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an .npz; raises InvalidData, also where an array in it cannot be read."""
    try:
        require_plain(path, memory())
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive)
    except InvalidData:
        raise
    except zipfile.BadZipFile as error:
        raise InvalidData(
            f"'{path}': cannot be read as an .npz of numbers ({error}), expected what np.savez writes"
        ) from error
    except (*BROKEN, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InvalidData(f"'{path}': cannot be read as an .npz of numbers: {why}") from error


def read_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Return the array of an .npy file, read-only and not read yet where it is `mapped`.

    Raises InvalidData for one that `_check` refuses or cannot be read.
    """
    try:
        require_plain(path, 2**63 if mapped else memory())
        with path.open("rb") as file:
            size = path.stat().st_size
            _check(file, size, size if mapped else memory(), f"'{path}'")
            if mapped:
                return npy.open_memmap(path, mode="r")
            file.seek(0)
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    except InvalidData:
        raise
    except (*BROKEN, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InvalidData(f"'{path}': cannot be read as an array of numbers: {why}") from error
    return array


def _check(file: IO[bytes], size: int, room: int, where: str) -> int:
    """Check the header of an .npy of `size` bytes, and return how many bytes its array has.

    Raises InvalidData for Python objects, for another size than its shape takes, and for one beyond `room`.
    """
    shape, dtype = _header(file, where)
    if dtype.hasobject:
        raise InvalidData(f"{where}: holds Python objects, expected numbers, or text for labels")
    if any(type(length) is not int or length < 0 for length in shape):
        raise InvalidData(f"{where}: its shape is {shape}, expected whole sizes")
    says, holds = math.prod(shape) * dtype.itemsize, size - file.tell()
    if says != holds:
        raise InvalidData(f"{where}: its shape {show(shape)} takes {says} bytes as {dtype}, but the file has {holds}")
    if holds > room:
        raise InvalidData(
            f"{where}: has {holds} bytes, expected at most {room}, which is the memory left beside others"
        )
    return holds


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the type that a header says; raises InvalidData for one that is none."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise InvalidData(f"{where}: it is of NumPy's format {version}, expected 1.0 or 2.0")
    bytes_of_length, parse = HEADERS[version]
    said = file.read(bytes_of_length)
    if (length := int.from_bytes(said, "little")) > MAX_HEADER_BYTES:
        raise InvalidData(f"{where}: its header has {length:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
    text = file.read(length)
    try:
        shape, _, dtype = parse(BytesIO(said + text))
    except Exception as error:  # Python's tokenizer, parser and literals and NumPy's types have a dozen errors for it
        raise InvalidData(
            f"{where}: its header is {text[:80]!r}, expected descr, fortran_order and shape, as np.save writes them"
        ) from error
    return shape, dtype
