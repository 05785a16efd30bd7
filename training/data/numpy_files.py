"""Reads .npz and .npy files: sizes are checked before anything of their size is made, and nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from models.spec.parameters import show
from training.errors import InvalidData
from training.files import memory, require_plain

SUFFIX = ".npy"
BROKEN = (
    *(EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    RuntimeError,  # an encrypted file
    *(ValueError, TypeError, OverflowError, MemoryError),  # a header that makes no sense
)
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


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


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of an .npy file; raises InvalidData for one that `_check` refuses or cannot be read."""
    try:
        require_plain(path, memory())
        with path.open("rb") as file:
            _check(file, path.stat().st_size, memory(), f"'{path}'")
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
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise InvalidData(f"{where}: it is of NumPy's format {version}, expected 1.0 or 2.0")
    shape, _, dtype = HEADERS[version](file)
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
