"""A data set: raw samples with integer labels in three splits, the declaration of its input, and the classes' names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Coding, Input

DIGITS = tuple(map(str, range(10)))  # as names of classes
Labels = NDArray[np.int64]
Lengths: TypeAlias = NDArray[np.int64]
Samples: TypeAlias = NDArray[Any]  # float32; or uint8, which takes a quarter of that, for rasters and pixels


@dataclass(frozen=True)
class Split:
    """One split: raw samples (n, *shape), or (n, time_steps, *shape) with values per step, and class indices (n,).

    `lengths` (n,) are the steps of each sample where they differ: what stands in `samples` after them is padding.
    """

    samples: Samples
    labels: Labels
    lengths: Lengths | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Any) -> Split:
        """Return some of the samples."""
        lengths = None if self.lengths is None else self.lengths[chosen]
        return Split(self.samples[chosen], self.labels[chosen], lengths)

    @property
    def values(self) -> Samples:
        """The samples, or where lengths differ their steps one after the other, (steps, *shape), without padding."""
        if self.lengths is None:
            return self.samples
        values: Samples = self.samples[np.arange(self.samples.shape[1]) < self.lengths[:, np.newaxis]]
        return values

    def pad(self, silence: Any) -> None:
        """Fill in place what is padding with `silence`, which broadcasts to the shape of a step."""
        if self.lengths is not None:
            self.samples[np.arange(self.samples.shape[1]) >= self.lengths[:, np.newaxis]] = silence

    def cut(self) -> Split:
        """Return the split without the steps that are padding in all its samples."""
        if self.lengths is None or not len(self):
            return self
        longest = self.lengths.max()
        lengths = None if (self.lengths == longest).all() else self.lengths
        return Split(self.samples[:, :longest], self.labels, lengths)

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.int64], Split]]:
        """Yield batches of at most `size` samples with their places in the split; no batch holds padding.

        So samples of different lengths are in different batches, and are run as if they were alone.
        """
        places = np.arange(len(self)) if self.lengths is None else self.lengths.argsort(kind="stable")
        longer = np.flatnonzero(np.diff(self.lengths[places])) + 1 if self.lengths is not None else ()
        for group in np.split(places, longer):
            for start in range(0, len(group), size):
                chosen = group[start : start + size]
                yield chosen, self[chosen].cut()


@dataclass(frozen=True)
class Dataset:
    """A data set: its three splits, the declaration of its input, the classes' names, and sentences that warn.

    `read_as` says how files of the user's own were understood, and `coding` is what that asks for.
    `dt` is the seconds of a time step, where they are known. `own_splits` names the splits that the data brought along,
    "validation" or "test", instead of having them drawn by the configuration.
    """

    name: str
    declared: Input
    class_names: tuple[str, ...]
    training: Split
    validation: Split
    test: Split
    warnings: tuple[str, ...] = ()
    dt: float | None = None
    own_splits: frozenset[str] = frozenset()
    coding: Coding | None = None
    read_as: str = ""
