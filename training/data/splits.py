"""Splits: which samples are held out for validation and test. A seed always gives the same split.

Samples of one class are held out in proportion. Where samples come in groups (a person, a recording, a day), a group is
held out as a whole, so that no test sample has a sibling in training.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import Labels
from spikeserve.training.errors import InvalidData

Indices: TypeAlias = NDArray[np.int64]
Groups: TypeAlias = NDArray[Any]

SPLITS = 3  # training, validation and test


def three_ways(labels: Labels, config: DataConfig, groups: Groups | None = None) -> tuple[Indices, Indices, Indices]:
    """Return the indices of the training, validation and test samples; the test split is drawn first.

    Raises InvalidData where the samples or groups are too few for a test split.
    """
    rest, test = hold_out(labels, config.test_share, config.split_seed, "test", groups)
    kept, validation = hold_out(
        labels[rest], config.validation_share, config.split_seed, "validation", None if groups is None else groups[rest]
    )
    return rest[kept], rest[validation], test


def hold_out(
    labels: Labels, share: float, seed: int, name: str, groups: Groups | None = None
) -> tuple[Indices, Indices]:
    """Return the indices that are kept and those of the `name` split, about `share` of all, stratified by class.

    A share of 0 holds none out. Where samples or groups are too few, a validation split is empty; for another,
    InvalidData is raised.
    """
    if not share:
        return np.arange(len(labels)), np.arange(0)
    try:
        if groups is not None:
            return _hold_out_groups(labels, share, seed, name, groups)
        _require_samples(labels, share, name)
    except InvalidData:
        if name == "validation":
            return np.arange(len(labels)), np.arange(0)
        raise
    # Imported here, since it takes a second, which --help need not wait for.
    from sklearn.model_selection import train_test_split

    kept, held_out = train_test_split(
        np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels, shuffle=True
    )
    return kept, held_out


def _require_samples(labels: Labels, share: float, name: str) -> None:
    """Raise InvalidData unless both parts of a split can hold each class."""
    counts = np.bincount(labels)
    classes, fewest = np.count_nonzero(counts), int(counts[counts > 0].min())
    if fewest < 2:
        raise InvalidData(
            f"{name} split: a class has {fewest} sample left, expected at least 2 of each, one to train on and one to "
            "hold out"
        )
    size = math.ceil(share * len(labels))
    if min(size, len(labels) - size) < classes:
        raise InvalidData(
            f"{name} split: --{name}-share {share:g} of {len(labels)} samples holds out {size}, expected at least one "
            f"for each of the {classes} classes in both parts; give more samples or another share"
        )


def _hold_out_groups(labels: Labels, share: float, seed: int, name: str, groups: Groups) -> tuple[Indices, Indices]:
    """Hold out whole groups: of as many parts as the share asks for, the one whose size is nearest to it."""
    count = len(np.unique(groups))
    if count < 2:
        raise InvalidData(
            f"{name} split: {count} group is left for training and it, expected at least {SPLITS} groups in all"
        )
    from sklearn.model_selection import StratifiedGroupKFold

    parts = min(max(2, round(1 / share)), count)
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer samples than parts, which is checked below
        try:
            splits = list(folds.split(np.zeros(len(labels)), labels, groups))
        except ValueError as error:
            raise InvalidData(
                f"{name} split: no class has samples enough for {parts} parts of whole groups, expected more samples "
                f"or a larger --{name}-share"
            ) from error
    classes = len(np.unique(labels))
    whole = [(kept, held_out) for kept, held_out in splits if len(held_out) and len(np.unique(labels[kept])) == classes]
    if not whole:
        raise InvalidData(
            f"{name} split: whichever groups are held out, a class is missing from training; expected each class in at "
            "least two groups"
        )
    return min(whole, key=lambda parts: abs(len(parts[1]) - share * len(labels)))
