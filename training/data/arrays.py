"""A user's arrays in an .npz: `x` and `y`, with `group` where samples belong together, or splits of their own.

    x (n, …), y (n,)                                       split by the seed, each class in proportion
    x, y, group (n,)                                       the same, and no group is in two splits
    x_train, y_train[, x_val, y_val], x_test, y_test       as they are; validation is held out from training if absent

Values are (n, *shape), or (n, time steps, *shape) with coding `spikes` or `current`. Labels are integers or strings.
Sequences of different lengths come with `lengths` (n,), or `lengths_train` and so on: what `x` holds after a sample's
own steps is padding; or `x` (sum of lengths, *shape) holds the steps of one sample after the other, without any.
The spikes of every `window` steps can be added up: then a step is as long as so many of the arrays'.

A table, a file of a plugin's reader, and a folder of pictures or .npy files, a sample each in a folder for each class,
are read as such arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.door import surest
from spikeserve.models.recordings.files import read_arrays
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import show
from spikeserve.training.config import DataConfig
from spikeserve.training.data.augment import silence
from spikeserve.training.data.axes import channels_first, suited_coding
from spikeserve.training.data.class_folders import files_by_split
from spikeserve.training.data.dataset import Dataset, Labels, Split
from spikeserve.training.data.normalise import declare, lost_levels, merged_levels
from spikeserve.training.data.numpy_files import open_npz, read_npy
from spikeserve.training.data.oddities import oddities
from spikeserve.training.data.pictures import FORMATS, read_pictures
from spikeserve.training.data.samples import GAPS, Arrays, read_samples
from spikeserve.training.data.splits import Groups, hold_out, three_ways
from spikeserve.training.data.tables import SUFFIXES, read_table
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory

# What people call each array, besides in capitals.
NAMES: Mapping[str, tuple[str, ...]] = {
    "x": ("x", "data", "samples"),
    "y": ("y", "labels", "targets"),
    "group": ("group", "groups"),
    "lengths": ("lengths",),
    "time": ("time", "times", "timestamps"),
    **{
        f"{what}_{split}": tuple(
            name for other in others for name in (f"{what}_{other}", f"{other}_{what}", f"{what}{other}")
        )
        for what in ("x", "y", "group", "lengths", "time")
        for split, others in {
            "train": ("train", "training"),
            "val": ("val", "valid", "validation", "dev"),
            "test": ("test", "testing"),
        }.items()
    },
}
WANTED = "expected x and y, or x_train, y_train, x_test and y_test"


def arrays(config: DataConfig, coding: Coding | None) -> Dataset:
    """Read and split a file, or a folder, with the coding that suits its samples where `coding` is None.

    Raises InvalidData with one sentence for whatever cannot be trained on.
    """
    inferred, read_as, table = coding is None, "", None
    folder = config.folder if config.file is None else config.file
    if config.file is None or (folder.is_dir() and not surest("reader", folder, {})):
        named, coding = _read_folder(folder, coding)
    elif config.file.suffix.lower() in SUFFIXES:
        table = read_table(config.file)
        named, read_as = table.arrays, table.read_as
    else:
        named = _read_npz(config.file)
    first = "x_train" if "x_train" in named else "x"
    if coding is None:
        coding = suited_coding(named[first], timed=any(name.startswith(("lengths", "time")) for name in named))
    sent = named[first].shape
    named = {name: channels_first(array, coding) if name[0] == "x" else array for name, array in named.items()}
    parts, names = _split(named, config, coding) if "x_train" in named else _whole(named, config, coding)
    if config.window is not None:
        if coding is not Coding.SPIKES:
            raise InvalidData(f"window: is {config.window}, but arrays with coding '{coding}' hold no spikes to add up")
        parts = [_added_up(split, config.window) for split in parts]
    if all(split.lengths is None or (split.lengths == split.samples.shape[1]).all() for split in parts):
        parts = [Split(split.samples, split.labels) for split in parts]
    training, validation, test = parts[0].cut(), *parts[1:]  # it sets the time steps
    own = frozenset(split for split, array in (("validation", "x_val"), ("test", "x_test")) if array in named)
    time = int(coding.per_step)
    shape = training.samples.shape[1 + time :]
    declared = declare(shape, training.values, [validation.values, test.values], config, coding)
    if declared.by_deviation and training.lengths is not None:
        raise InvalidData("normalise: is 'each', but samples have lengths of their own, expected one for all")
    for split in (training, validation, test):
        split.pad(silence(declared))
    warnings = merged_levels(first, named[first]) + lost_levels(training, declared)
    if table:
        declared = declared.model_copy(update={"feature_names": table.features})
        warnings += table.warnings
    warnings += oddities(training, test, declared, of_floats=named[first.replace("x", "y")].dtype.kind == "f")
    name = config.folder.resolve().name if config.file is None else config.file.stem
    if (inferred and time) or named[first].shape != sent:
        kind = "series, with time as the first axis," if time else f"pictures, {show(shape)} with channels first,"
        read_as = f"{first}: samples of {show(sent[1:])} are read as {kind} with coding {coding}"
    return Dataset(
        name, declared, names, training, validation, test, warnings, own_splits=own, coding=coding, read_as=read_as
    )


def _added_up(split: Split, window: int) -> Split:
    """Return rasters (n, time_steps, *shape) with the spikes of each `window` steps in one; the last may have fewer."""
    split.pad(0)
    samples = np.add.reduceat(split.samples, np.arange(0, split.samples.shape[1], window), axis=1)
    return Split(samples, split.labels, None if split.lengths is None else -(-split.lengths // window))


def _whole(named: Arrays, config: DataConfig, coding: Coding) -> tuple[list[Split], tuple[str, ...]]:
    """Split x and y by the seed."""
    others = sorted(named.keys() - {"x", "y", "group", "lengths", "time"})
    if others:
        raise InvalidData(f"{others[0]}: there is no x_train beside it, {WANTED}")
    samples, lengths = read_samples(named, "x", coding)
    names, labels = _classes(_labels(named, "y", samples))
    groups = _groups(named, "group", len(samples))
    whole = Split(samples, labels, lengths)
    return [whole[chosen] for chosen in three_ways(labels, config, groups)], names


def _split(named: Arrays, config: DataConfig, coding: Coding) -> tuple[list[Split], tuple[str, ...]]:
    """Take the file's own splits; hold validation out from training where it has none."""
    for name in ("x", "y", "group", "lengths"):
        if name in named:
            raise InvalidData(f"{name}: stands beside x_train, {WANTED}")
    if "x_test" not in named:
        raise InvalidData(f"x_test: missing beside x_train, {WANTED}")
    read = {part: read_samples(named, f"x_{part}", coding) for part in ("train", "val", "test") if f"x_{part}" in named}
    if any(lengths is not None for _, lengths in read.values()):  # a split without has samples of one length
        longest = max(samples.shape[1] for samples, _ in read.values())
        for part, (samples, lengths) in read.items():
            own = np.full(len(samples), samples.shape[1]) if lengths is None else lengths
            wider = (0, longest - samples.shape[1])
            read[part] = np.pad(samples, [(0, 0), wider, *((0, 0),) * (samples.ndim - 2)]), own
    if "val" not in read and "y_val" in named:
        raise InvalidData("y_val: there is no x_val beside it, expected both or neither")
    first, _ = read["train"]
    names, labels = _classes(_labels(named, "y_train", first))
    splits = {}
    for part, (samples, lengths) in read.items():
        if samples.shape[1:] != first.shape[1:]:
            raise InvalidData(
                f"x_{part}: each sample has shape {show(samples.shape[1:])}, but those of x_train have "
                f"{show(first.shape[1:])}"
            )
        of_part = labels if part == "train" else _known(_labels(named, f"y_{part}", samples), names, f"y_{part}")
        splits[part] = Split(samples, of_part, lengths)
    if "val" not in splits:
        groups = _groups(named, "group_train", len(labels))
        kept, held_out = hold_out(labels, config.validation_share, config.split_seed, "validation", groups)
        splits["train"], splits["val"] = splits["train"][kept], splits["train"][held_out]
    return [splits["train"], splits["val"], splits["test"]], names


def _read_npz(path: Path) -> Arrays:
    """Return the arrays of a file by the names that this module gives them, whatever of NAMES the file calls them."""
    with nullcontext(read_arrays(path, memory())) if surest("reader", path, {}) else open_npz(path) as file:
        spellings = {ours: [name for name in file if name.lower() in others] for ours, others in NAMES.items()}
        named = {ours: np.asarray(file[names[0]]) for ours, names in spellings.items() if names}
        listed = ", ".join(file)
    for ours, names in spellings.items():
        if len(names) > 1:
            raise InvalidData(f"file: '{path}' holds '{names[0]}' and '{names[1]}', expected one {ours}")
    for name in ("x", "y"):
        if name not in named and "x_train" not in named:
            raise InvalidData(f"file: '{path}' holds no '{name}' but {listed or 'nothing'}, {WANTED}")
    return named


def _read_folder(folder: Path, coding: Coding | None) -> tuple[Arrays, Coding]:
    """Return the arrays of a folder of pictures or .npy files, those of sequences one after the other, and a coding."""
    if not folder.is_dir():
        raise InvalidData(
            f"file: not given, and folder '{folder}' is not one; dataset 'arrays' needs the path of an .npz with x and "
            "y, or a folder of pictures or .npy files, one folder for each class"
        )
    named, known = dict[str, NDArray[Any]](), (".npy", *FORMATS)
    parts = files_by_split(
        folder, lambda path: path.suffix.lower() in known, f"an array or a picture, expected {', '.join(known)}"
    )
    for part, files in parts.items():
        end = f"_{part}" if "test" in parts else ""
        if files.paths[0].suffix.lower() == ".npy":
            coding = coding or suited_coding(read_npy(files.paths[0], mapped=True)[np.newaxis], timed=False)
            samples = [_sample(path, coding) for path in files.paths]
        else:
            coding = coding or Coding.DIRECT
            samples = read_pictures(files.paths)
        for path, sample in zip(files.paths, samples, strict=True):
            if sample.shape[coding.per_step :] != samples[0].shape[coding.per_step :]:
                raise InvalidData(
                    f"'{path}': shape is {show(sample.shape)}, but '{files.paths[0]}' has {show(samples[0].shape)}"
                )
        if sum(sample.nbytes for sample in samples) > memory():
            raise InvalidData(f"folder: the files of '{folder}' do not fit the memory")
        named[f"x{end}"] = np.concatenate(samples) if coding.per_step else np.stack(samples)
        named[f"y{end}"] = np.array(files.classes)
        if coding.per_step:
            named[f"lengths{end}"] = np.array([len(sample) for sample in samples])
    return named, coding or Coding.DIRECT


def _sample(path: Path, coding: Coding) -> NDArray[Any]:
    """Return the sample of an .npy; a sequence of one value for each step may be (time,)."""
    sample = read_npy(path, mapped=True)
    if sample.dtype.kind not in "biuf":
        raise InvalidData(f"'{path}': type is {sample.dtype}, expected numbers; --dataset events reads events")
    if not sample.size or not sample.ndim:
        raise InvalidData(f"'{path}': shape is {show(sample.shape)}, expected a sample")
    if not np.isfinite(sample).all():
        raise InvalidData(f"'{path}': holds a value that is not finite, {GAPS}")
    return sample[:, np.newaxis] if coding.per_step and sample.ndim == 1 else sample


def _labels(named: Arrays, name: str, samples: FloatArray) -> NDArray[Any]:
    of = name.replace("y", "x", 1)
    if name not in named:
        raise InvalidData(f"{name}: missing, expected the labels of {of}")
    labels = named[name]
    if labels.shape == (len(samples), 1):
        labels = labels[:, 0]
    if labels.shape[:1] == (len(samples),) and labels.ndim == 2 and labels.dtype.kind in "biuf":
        ones, one_hot = (labels == 1).sum(axis=1), bool(((labels == 0) | (labels == 1)).all())
        row = int((ones != 1).argmax())
        cure = f"of one-hot labels it is {name}.argmax(axis=1)" if one_hot else "fit learns classes, not values"
        cure = f"row {row} has {ones[row]} ones: fit learns one class" if one_hot and ones[row] != 1 else cure
        raise InvalidData(f"{name}: shape is {show(labels.shape)}, expected a label for each sample; {cure}")
    if labels.shape != (len(samples),):
        raise InvalidData(
            f"{name}: shape is {show(labels.shape)}, expected {len(samples)} labels as {of} has that many samples"
        )
    if labels.dtype.kind == "b" or (
        labels.dtype.kind == "f" and np.isin(labels, np.rint(labels).clip(-2e9, 2e9)).all()
    ):
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iuU":
        raise InvalidData(f"{name}: type is {labels.dtype}: fit learns classes, expected integers or strings of them")
    return np.char.strip(labels) if labels.dtype.kind == "U" else labels


def _groups(named: Arrays, name: str, samples: int) -> Groups | None:
    if name not in named:
        return None
    groups = named[name]
    if groups.shape != (samples,):
        raise InvalidData(f"{name}: shape is {show(groups.shape)}, expected {samples}, the group of each sample")
    if groups.dtype.kind not in "biuU":
        raise InvalidData(f"{name}: type is {groups.dtype}, expected integers or strings that name the groups")
    return groups


def _classes(labels: NDArray[Any]) -> tuple[tuple[str, ...], Labels]:
    """Return the classes' names in order and each sample's index into them."""
    names, indices = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise InvalidData(f"y: holds {len(names)} class, expected at least 2")
    return tuple(str(name) for name in names), indices.astype(np.int64)


def _known(labels: NDArray[Any], names: tuple[str, ...], name: str) -> Labels:
    """Return the indices of labels that training has."""
    index = {known: at for at, known in enumerate(names)}
    unknown = [str(label) for label in np.unique(labels) if str(label) not in index]
    if unknown:
        raise InvalidData(f"{name}: holds the class '{unknown[0]}', which y_train does not")
    return np.array([index[str(label)] for label in labels], np.int64)
