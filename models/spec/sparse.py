"""Sparse weights: the values of a Linear that are not 0, and where each of them stands among all.

Where a node's `nonzero` says how many there are, a bundle stores only these, as `models.spec.narrow` says, and the
event engine holds only these. All others are 0, and are no synaptic operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

FloatArray: TypeAlias = NDArray[np.float32]

MOST_PLACES = 2**32  # of weights, whose positions are stored as uint32

# The share of a Linear's weights, as floats and of few bits, up to which the event engine adds those that are not 0 one
# by one. With 2,000 inputs that takes 0.7 to 1 ns for each of them. A row of 256 floats takes 14 ns, as long as 1/18 of
# it, and of 1,024 50 ns, as 1/13; rows of bytes 5.4 and 17.6 ns, as 1/130 and 1/75. Rows beyond the caches take longer.
FEW, FEW_BYTES = 1 / 16, 1 / 100


@dataclass(frozen=True)
class Sparse:
    """The weights (outputs, inputs) of `shape` as `values` (count,) at ascending flat `positions` (count,)."""

    shape: tuple[int, int]
    positions: NDArray[np.uint32]
    values: FloatArray

    @classmethod
    def of(cls, weight: FloatArray) -> Sparse:
        """Take those of the weights (outputs, inputs) that are not 0; a layer has at most 2**32 weights."""
        outputs, inputs = weight.shape
        positions = np.flatnonzero(weight).astype(np.uint32)
        return cls((outputs, inputs), positions, weight.reshape(-1)[positions])

    @property
    def size(self) -> int:
        """How many values are stored."""
        return self.values.size

    @property
    def outputs(self) -> NDArray[np.uint32]:
        """The output of each value, ascending."""
        return self.positions // np.uint32(self.shape[1])

    @property
    def inputs(self) -> NDArray[np.uint32]:
        """The input of each value."""
        return self.positions % np.uint32(self.shape[1])

    def fan_out(self) -> NDArray[np.int64]:
        """Return how many values each input has, (inputs,)."""
        return np.bincount(self.inputs, minlength=self.shape[1])

    def dense(self) -> FloatArray:
        """Return all weights, (outputs, inputs)."""
        weight = np.zeros(self.shape, np.float32)
        weight.reshape(-1)[self.positions] = self.values
        return weight


class Tensors(Mapping[str, FloatArray]):
    """The tensors of a network by name; those `stored` as sparse ones are made dense whenever they are looked up."""

    def __init__(self, stored: Mapping[str, FloatArray | Sparse]) -> None:
        self.stored = stored

    def __getitem__(self, name: str) -> FloatArray:
        tensor = self.stored[name]
        return tensor.dense() if isinstance(tensor, Sparse) else tensor

    @override
    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)
