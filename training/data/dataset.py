"""A data set: raw samples with integer labels in three splits, the declaration of its input, and the classes' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Input

Labels = NDArray[np.int64]
Samples: TypeAlias = NDArray[Any]  # float32; or uint8, which takes a quarter of that, for rasters and pixels


@dataclass(frozen=True)
class Split:
    """One split: raw samples (n, *shape), or (n, time_steps, *shape) with values per step, and class indices (n,)."""

    samples: Samples
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Any) -> Split:
        """Return some of the samples."""
        return Split(self.samples[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """A data set: its three splits, the declaration of its input, the classes' names, and sentences that warn.

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
