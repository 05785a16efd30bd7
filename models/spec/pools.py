"""The pools: one value for each window of each channel."""

from __future__ import annotations

import math
from functools import reduce
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from typing_extensions import override

from spikeserve.models.spec.parameters import Padding, PaddingPair, Shape, Size, SizePair, show
from spikeserve.models.spec.windows import SweptBase, Window


class PoolBase(SweptBase):
    """The base of the pools. `stride` defaults to the kernel's size.

    Windows that do not fit the input are left out, unless they begin in it and `overhang` lets them reach over its end.
    """

    overhang: bool = False

    @model_validator(mode="after")
    def _padding_is_at_most_half_a_window(self) -> Self:
        if any(2 * window.before > window.extent for window in self.windows):
            raise ValueError(
                f"node '{self.name}': padding is {show(tuple(window.before for window in self.windows))}, expected at "
                f"most half of the kernel's {show(tuple(window.extent for window in self.windows))}"
            )
        return self

    @property
    def area(self) -> int:
        """The number of values in a window."""
        return math.prod(window.extent for window in self.windows)

    def fitted(self, shape: Shape) -> tuple[Window, ...]:
        """Return the windows on an input of `shape`, with padding at the end where they reach over it."""
        return tuple(window.fitted(size) for window, size in zip(self.windows, shape[1:], strict=True))

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *self.swept(shape))

    @property
    @override
    def windows(self) -> tuple[Window, ...]:
        return tuple(
            Window(extent, stride or extent, padding, padding, overhang=self.overhang)
            for extent, stride, padding in self.along("kernel_size", "stride", "padding")
        )

    @property
    def in_plane(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The kernel's size, the stride and the padding over (height, width), where a length is one row."""
        down, across = (Window(1), *self.windows)[-2:]
        return (down.extent, across.extent), (down.stride, across.stride), (down.before, across.before)


class Pool1d(PoolBase):
    """The base of the pools over (channels, length)."""

    axes: ClassVar = ("length",)

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0


class Pool2d(PoolBase):
    """The base of the pools over (channels, height, width)."""

    axes: ClassVar = ("height", "width")

    kernel_size: SizePair
    stride: SizePair | None = None
    padding: PaddingPair = (0, 0)


class AvgPoolBase(PoolBase):
    """The sum over each window, divided by how many values it covers: those of the padding count, or do not.

    What reaches over the padding never counts.
    """

    count_padding: bool = True

    @property
    def uneven(self) -> bool:
        """Whether windows may cover other numbers of values than `area`."""
        return self.overhang or not (self.count_padding or all(window.before == 0 for window in self.windows))

    def divisors(self, shape: Shape) -> NDArray[np.float32]:
        """Return the number of values that count in each window on an input of `shape`, (*places)."""
        covered = (
            np.array(window.covered(size, padding=self.count_padding), np.float32)
            for window, size in zip(self.windows, shape[1:], strict=True)
        )
        return reduce(np.multiply.outer, covered)


class SumPool1d(Pool1d):
    """The sum over each window."""

    type: Literal["SumPool1d"] = "SumPool1d"


class SumPool2d(Pool2d):
    """The sum over each window."""

    type: Literal["SumPool2d"] = "SumPool2d"


class AvgPool1d(AvgPoolBase, Pool1d):
    """The average over each window."""

    type: Literal["AvgPool1d"] = "AvgPool1d"


class AvgPool2d(AvgPoolBase, Pool2d):
    """The average over each window."""

    type: Literal["AvgPool2d"] = "AvgPool2d"


class MaxPool1d(Pool1d):
    """The largest value of each window; padding does not count."""

    type: Literal["MaxPool1d"] = "MaxPool1d"


class MaxPool2d(Pool2d):
    """The largest value of each window; padding does not count."""

    type: Literal["MaxPool2d"] = "MaxPool2d"
