"""Reads .npz and .npy files: sizes are checked before anything of their size is made, and nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from spikeserve.models.spec.parameters import show
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory, require_plain

SUFFIX = ".npy"
VERSION = (1, 0)  # whose headers have at most 64 KiB; those of later ones may have gigabytes


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
        with self.archive.open(member) as file:
            self.room -= _check(file, member.file_size, self.room, f"'{self.path}', {name}")
            file.seek(0)
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an .npz; raises InvalidData, also where an array in it cannot be read."""
    with _explained(path, "an .npz"):
        require_plain(path, memory())
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive)


def read_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Return the array of an .npy file, read-only and not read yet where it is `mapped`.

    Raises InvalidData for one that `_check` refuses or cannot be read.
    """
    with _explained(path, "an array"):
        room = 2**63 if mapped else memory()
        require_plain(path, room)
        with path.open("rb") as file:
            _check(file, path.stat().st_size, room, f"'{path}'")
            if mapped:
                return npy.open_memmap(path, mode="r")
            file.seek(0)
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except InvalidData:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and Python's parser of literals have a dozen for damaged files
        why = " ".join(str((isinstance(error, OSError) and error.strerror) or error or type(error).__name__).split())
        raise InvalidData(f"'{path}': cannot be read as {kind} of numbers: {why}") from error


def _check(file: IO[bytes], size: int, room: int, where: str) -> int:
    """Check the header of an .npy of `size` bytes, and return how many bytes its array has.

    Raises InvalidData for Python objects, for another size than its shape takes, and for one beyond `room`.
    """
    if (version := npy.read_magic(file)) != VERSION:
        raise InvalidData(f"{where}: it is of NumPy's format {version}, expected {VERSION}")
    shape, _, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject:
        raise InvalidData(f"{where}: holds Python objects, expected numbers, or text for labels")
    says, holds = math.prod(shape) * dtype.itemsize, size - file.tell()
    if says != holds:
        raise InvalidData(f"{where}: its shape {show(shape)} takes {says} bytes as {dtype}, but the file has {holds}")
    if holds > room:
        raise InvalidData(
            f"{where}: has {holds} bytes, expected at most {room}, which is the memory left beside others"
        )
    return holds
