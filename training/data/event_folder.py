"""A folder of event files, one folder for each class; `class_folders.py` says how it is laid out.

`models/recordings/files.py` says what a file holds. Where there is no test folder, the files are split by the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeserve.models.door import of_kind
from spikeserve.models.recordings.files import SUFFIXES, is_readable
from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.binning import Recordings, binned, read_recording
from spikeserve.training.data.class_folders import Files, files_by_split
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.data.splits import hold_out, three_ways


def events(config: DataConfig, coding: Coding) -> Dataset:
    """Read, split and bin a folder of event files; raises InvalidData."""
    folder = config.folder
    parts = files_by_split(folder, is_readable, f"a file of events, expected {', '.join(SUFFIXES)}")
    class_names = tuple(sorted(set(parts["train"].classes)))
    recordings = _recordings(parts["train"], class_names)
    if "test" not in parts:
        splits = [recordings[chosen] for chosen in three_ways(recordings.labels, config)]
    elif "val" in parts:
        splits = [_recordings(parts[part], class_names) for part in ("train", "val", "test")]
    else:
        kept, held_out = hold_out(recordings.labels, config.validation_share, config.split_seed, "validation")
        splits = [recordings[kept], recordings[held_out], _recordings(parts["test"], class_names)]
    identity: list[Any] = [
        [files.identity(folder) for files in parts.values()],
        [config.test_share, config.validation_share, config.split_seed],
    ]
    if loose := [each.package for each in of_kind("reader").values() if each.package.endswith(".py")]:
        identity.append([Path(each).stat().st_mtime_ns for each in loose])  # its author may have changed it
    own = frozenset({"val": "validation", "test": "test"}[part] for part in parts if part != "train")
    return replace(binned(folder.resolve().name, class_names, splits, identity, config, coding), own_splits=own)


def _recordings(files: Files, class_names: Sequence[str]) -> Recordings:
    """Return the files as recordings, which are read when they are asked for."""
    return Recordings(files.labels(class_names), lambda index: read_recording(files.paths[index]))
