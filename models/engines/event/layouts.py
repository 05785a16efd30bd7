"""Where the elements of a shape lie in the kernels' arrays: channels last, and padded to whole vectors.

A convolution then adds whole vectors of output channels, and no kernel needs a remainder loop. Padding never fires.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.vectors import HALF, LANES
from spikeserve.models.spec.parameters import Shape

CACHE_LINE, FLOAT_BYTES = 64, 4


def padded(size: int, unit: int = LANES) -> int:
    """Return the least multiple of `unit`, by default of the vectors' length, that holds `size`."""
    return -(-size // unit) * unit


def aligned(shape: Shape, values: NDArray[np.float32] | float = 0.0) -> NDArray[np.float32]:
    """Return values, by default zeros, that begin with a line of the cache, so that no vector lies across two."""
    count = math.prod(shape)
    raw = np.empty(count + CACHE_LINE // FLOAT_BYTES, np.float32)
    start = -raw.ctypes.data % CACHE_LINE // FLOAT_BYTES
    array = raw[start : start + count].reshape(shape)
    array[...] = values
    return array


@dataclass(frozen=True)
class Layout:
    """The places of a shape's elements: `places` (elements,) is where each lies, `size` how long a row is."""

    shape: Shape
    size: int
    places: NDArray[np.int32]
    elements: NDArray[np.int32]  # (size,): which element lies at each place, 0 where none does

    @classmethod
    def of(cls, shape: Shape) -> Layout:
        """Return the layout of a shape: flat, or of (channels, *axes) with channels last."""
        count = math.prod(shape)
        if len(shape) > 1:
            channels, positions, stride = shape[0], math.prod(shape[1:]), _stride(shape)
            grid = np.arange(positions, dtype=np.int32) * stride
            places = (grid + np.arange(channels, dtype=np.int32)[:, np.newaxis]).ravel()
            size = padded(positions * stride)
        else:
            places = np.arange(count, dtype=np.int32)
            size = padded(count)
        elements = np.zeros(size, np.int32)
        elements[places] = np.arange(count, dtype=np.int32)
        return cls(shape, size, places, elements)

    @property
    def is_flat(self) -> bool:
        """Whether the elements lie in their order, with all padding behind them."""
        return len(self.shape) == 1

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of (channels, height, width), or of (channels, length), which is one row."""
        *rows, width = self.shape[1:]
        return math.prod(rows), width

    @property
    def channels(self) -> int:
        """How many places each position of a shape with channels takes."""
        return _stride(self.shape)

    def to_rows(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (…, elements) as rows of this layout, (…, size); the padding holds 0."""
        rows = aligned((*values.shape[:-1], self.size))
        rows[..., self.places] = values
        return rows


def _stride(shape: Shape) -> int:
    """Return how many places each position takes: half vectors, where a line of positions then fills whole ones."""
    stride = padded(shape[0], HALF)
    return stride if stride * shape[-1] % LANES == 0 else padded(shape[0])
