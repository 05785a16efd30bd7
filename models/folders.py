"""Folders that are made for work that may fail: those that stay empty are removed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
