"""A folder of files, one folder for each class: `folder/class/file`, or `folder/train/class/file`, `folder/test/…`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.training.data.dataset import Labels
from spikeserve.training.errors import InvalidData

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LAYOUT = "expected folder/class/file, or folder/train/class/file and folder/test/class/file"


@dataclass(frozen=True)
class Files:
    """Files with the name of each one's class."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]

    def labels(self, class_names: Sequence[str]) -> Labels:
        """Return the index of each file's class; raises InvalidData for a class that training does not have."""
        unknown = sorted(set(self.classes) - set(class_names))
        if unknown:
            raise InvalidData(f"folder: training has no class '{unknown[0]}', expected one of {', '.join(class_names)}")
        return np.array([class_names.index(name) for name in self.classes], np.int64)

    def identity(self, folder: Path) -> list[Any]:
        """Return the identity of these files: their names, sizes and times."""
        found = ((path.relative_to(folder).as_posix(), path.stat()) for path in self.paths)
        return [[name, status.st_size, status.st_mtime_ns] for name, status in found]


def files_by_split(folder: Path, takes: Callable[[Path], bool], kind: str) -> Mapping[str, Files]:
    """Return the files of a folder in order: those of `train`, `test` and perhaps `val`, or all as `train`.

    Raises InvalidData for a folder that is laid out in another way, and for a file that nothing `takes`; `kind` is what
    a file should be.
    """
    if not folder.is_dir():
        raise InvalidData(f"folder: '{folder}' is not a folder, {LAYOUT}")
    own = {SPLIT_FOLDERS[each.name.lower()]: each for each in _folders(folder) if each.name.lower() in SPLIT_FOLDERS}
    if own and not {"train", "test"} <= own.keys():
        raise InvalidData(f"folder: '{folder}' has a folder for {', '.join(own)} alone, {LAYOUT}")
    parts = {part: _files(each, takes, kind) for part, each in (own or {"train": folder}).items()}
    classes = len(set(parts["train"].classes))
    if classes < 2:
        raise InvalidData(f"folder: '{folder}' holds {classes} class with files, expected at least 2; {LAYOUT}")
    return parts


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, takes: Callable[[Path], bool], kind: str) -> Files:
    files = [path for each in _folders(folder) for path in sorted(each.iterdir()) if not path.name.startswith(".")]
    for path in files:
        if not (path.is_file() and takes(path)):
            raise InvalidData(f"folder: '{path}' is not {kind}; {LAYOUT}")
    return Files(tuple(files), tuple(path.parent.name for path in files))
