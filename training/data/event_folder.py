"""A folder of event files, one folder for each class: `folder/class/*.npy`, or `folder/train/class/*`, `folder/test/…`.

`models/recordings/files.py` says what a file holds. Where there is no test folder, the files are split by the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.models.recordings.files import SUFFIXES
from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.binning import Recordings, binned, read_recording
from spikeserve.training.data.dataset import Dataset, Labels
from spikeserve.training.data.splits import hold_out, three_ways
from spikeserve.training.errors import InvalidData

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LAYOUT = "expected folder/class/file, or folder/train/class/file and folder/test/class/file"


@dataclass(frozen=True)
class Files:
    """Files of events with the name of each one's class."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]

    def labels(self, class_names: Sequence[str]) -> Labels:
        """Return the index of each file's class; raises InvalidData for a class that training does not have."""
        unknown = sorted(set(self.classes) - set(class_names))
        if unknown:
            raise InvalidData(f"folder: training has no class '{unknown[0]}', expected one of {', '.join(class_names)}")
        return np.array([class_names.index(name) for name in self.classes], np.int64)

    def recordings(self, class_names: Sequence[str]) -> Recordings:
        """Return the files as recordings, which are read when they are asked for."""
        return Recordings(self.labels(class_names), lambda index: read_recording(self.paths[index]))

    def identity(self, folder: Path) -> list[Any]:
        """Return the identity of these files: their names, sizes and times."""
        status = [path.stat() for path in self.paths]
        names = [path.relative_to(folder).as_posix() for path in self.paths]
        return [[name, each.st_size, each.st_mtime_ns] for name, each in zip(names, status, strict=True)]


def events(config: DataConfig, coding: Coding) -> Dataset:
    """Read, split and bin a folder of event files; raises InvalidData."""
    folder = config.folder
    if not folder.is_dir():
        raise InvalidData(f"folder: '{folder}' is not a folder, {LAYOUT}")
    parts = {
        SPLIT_FOLDERS[path.name.lower()]: _files(path)
        for path in _folders(folder)
        if path.name.lower() in SPLIT_FOLDERS
    }
    if parts and not {"train", "test"} <= parts.keys():
        raise InvalidData(f"folder: '{folder}' has a folder for {', '.join(parts)} alone, {LAYOUT}")
    whole = parts["train"] if parts else _files(folder)
    class_names = tuple(sorted(set(whole.classes)))
    if len(class_names) < 2:
        raise InvalidData(
            f"folder: '{folder}' holds {len(class_names)} class with files, expected at least 2; {LAYOUT}"
        )
    recordings, splits = whole.recordings(class_names), []
    if not parts:
        splits = [recordings[chosen] for chosen in three_ways(recordings.labels, config)]
    elif "val" in parts:
        splits = [parts[part].recordings(class_names) for part in ("train", "val", "test")]
    else:
        kept, held = hold_out(recordings.labels, config.validation_share, config.split_seed, "validation")
        splits = [recordings[kept], recordings[held], parts["test"].recordings(class_names)]
    identity = [
        [files.identity(folder) for files in (parts or {"": whole}).values()],
        [config.test_share, config.validation_share, config.split_seed],
    ]
    own = frozenset({"val": "validation", "test": "test"}[part] for part in parts if part != "train")
    return replace(binned(folder.resolve().name, class_names, splits, identity, config, coding), own_splits=own)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> Files:
    """Return the files of a folder of classes, in order."""
    found = [(path, each.name) for each in _folders(folder) for path in _events_in(each)]
    return Files(tuple(path for path, _ in found), tuple(name for _, name in found))


def _events_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise InvalidData(f"folder: '{path}' is not a file of events, expected {', '.join(SUFFIXES)}; {LAYOUT}")
        yield path
