"""Splits: which samples are held out for validation and test. A seed always gives the same split.

Samples of one class are held out in proportion. Where samples come in groups (a person, a recording, a day), a group is
held out as a whole, so that no test sample has a sibling in training.
"""

from __future__ import annotations

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

    Raises InvalidData where the samples or groups are too few.
    """
    rest, test = hold_out(labels, config.test_share, config.split_seed, "test", groups)
    kept, validation = hold_out(
        labels[rest], config.validation_share, config.split_seed, "validation", None if groups is None else groups[rest]
    )
    return rest[kept], rest[validation], test


def hold_out(
    labels: Labels, share: float, seed: int, name: str, groups: Groups | None = None
) -> tuple[Indices, Indices]:
    """Return the indices that are kept and those of the `name` split, about `share` of all, stratified by class."""
    if groups is not None:
        return _hold_out_groups(labels, share, seed, name, groups)
    from sklearn.model_selection import (
        train_test_split,
    )  # here, since it takes a second, which --help need not wait for

    try:
        kept, held = train_test_split(
            np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels, shuffle=True
        )
    except ValueError as error:
        raise InvalidData(
            f"{name} split: {share:g} of {len(labels)} samples cannot hold every class in proportion: {error}"
        ) from error
    return kept, held


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
            found = list(folds.split(np.zeros(len(labels)), labels, groups))
        except ValueError as error:
            raise InvalidData(
                f"{name} split: no {parts} parts of whole groups hold the classes in proportion: {error}"
            ) from error
    classes = len(np.unique(labels))
    whole = [(kept, held) for kept, held in found if len(held) and len(np.unique(labels[kept])) == classes]
    if not whole:
        raise InvalidData(
            f"{name} split: whichever groups are held out, a class is missing from training; expected each class in at "
            "least two groups"
        )
    return min(whole, key=lambda parts: abs(len(parts[1]) - share * len(labels)))
