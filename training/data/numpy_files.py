"""Reads .npz and .npy files by NumPy. It unpickles nothing, and refuses a file that does not fit the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory, require_plain

PICKLE = (
    "it holds Python objects or none of NumPy's, expected numbers, or text for labels; a list of sequences of "
    "different lengths is written as x=np.concatenate(x), lengths=[len(each) for each in x]"
)
UTF8 = "; save it as UTF-8, in Excel by 'CSV UTF-8', or write it again by iconv -f latin1 -t utf-8"
READ_BY = {".npy": "by np.load", ".pkl": "by pickle.load", ".pickle": "by pickle.load", ".json": "by json.load"}


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an .npz, whose arrays are read when they are asked for; raises InvalidData, also where that fails."""
    with explained(path, "an .npz of numbers"):
        require_plain(path, memory())
        with path.open("rb") as opened:  # NumPy leaves a damaged one open
            if not opened.peek(2).startswith(b"PK"):
                how = f"read it {READ_BY.get(path.suffix.lower(), 'in Python')}, and write its arrays"
                raise InvalidData(f"'{path}': is no .npz, .csv or .parquet: {how} by np.savez('{path.stem}', x=x, y=y)")
            with np.load(opened, allow_pickle=False) as file:
                if (size := sum(member.file_size for member in file.zip.infolist())) > memory():
                    raise ValueError(f"its arrays have {size} bytes, expected at most {memory()}, which is the memory")
                yield file


def read_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Return the array of an .npy file, read-only and not read yet where it is `mapped`; raises InvalidData."""
    with explained(path, "an array of numbers"):
        require_plain(path, 2**63 if mapped else memory())
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array


@contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """Raise whatever goes wrong in the block as InvalidData, which says that the file cannot be read as `kind`."""
    try:
        yield
    except InvalidData:
        raise
    except ImportError as error:
        raise InvalidData(
            f"'{path}': is read by {error.name}, which is not installed: pip install 'spikeserve[tables]'"
        ) from error
    except Exception as error:  # zipfile, zlib, NumPy and Python's parser of literals have a dozen for damaged files
        why = " ".join(str((isinstance(error, OSError) and error.strerror) or error or type(error).__name__).split())
        why = PICKLE if "pickle" in why else why  # NumPy advises to trust the file
        why += UTF8 if isinstance(error, UnicodeDecodeError) else ""
        raise InvalidData(f"'{path}': cannot be read as {kind}: {why}") from error
