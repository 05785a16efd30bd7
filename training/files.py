"""Files that a user names are plain files of a bounded size: no pipe is waited for, and no device fills the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def require_plain(path: Path, most: int) -> None:
    """Raise OSError, whose `strerror` says why, unless `path` is or links to a plain file of at most `most` bytes.

    To be asked before a library opens the path: opening a named pipe waits for its writer for ever.
    """
    try:
        status = path.stat()
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, "no file has such a name", str(path)) from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, expected a file", str(path))
    _require_size(path, status.st_size, most)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a plain file of at most `most` bytes; raises OSError as `require_plain` does."""
    require_plain(path, most)
    with path.open("rb") as file:
        content = file.read(most + 1)  # those of /proc say that they have no bytes
    _require_size(path, len(content), most)
    return content


def memory() -> int:
    """Return the bytes of the machine's memory, or 8 GiB where the system does not say (Windows)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**33


def _require_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, expected at most {most:,}", str(path))
