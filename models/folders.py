"""Folders and files for work that may fail: each appears whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INCOMING = ".incoming-"  # what begins the names of folders that are not whole yet, or no longer


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make `folder` and its parents for the block; if that raises, remove those that were not there and are empty."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]  # the innermost comes first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # it was not made, or something is in it
                each.rmdir()
        raise


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to, beside `folder`, which it becomes once all is written; raises OSError if that is."""
    incoming = Path(tempfile.mkdtemp(prefix=INCOMING, dir=folder.parent))
    try:
        yield incoming
        incoming.chmod(0o755)
        for path in (*incoming.iterdir(), incoming):
            sync(path)
        incoming.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file in the place of the one that may be there; raises OSError, and then that one stays."""
    incoming = path.with_name(f".{path.name}.incoming")
    try:
        incoming.write_bytes(content)
        sync(incoming)
        incoming.replace(path)
        sync(path.parent)
    finally:
        incoming.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk hold a file or folder before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
