"""The pools: one value for each window of each channel."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from typing_extensions import override

from models.spec.parameters import PaddingPair, Shape, SizePair, show
from models.spec.windows import SweptBase, Window


class Pool2d(SweptBase):
    """The base of the pools. `stride` defaults to the kernel's size; windows that do not fit the input are left out."""

    axes: ClassVar = ("height", "width")

    kernel_size: SizePair
    stride: SizePair | None = None
    padding: PaddingPair = (0, 0)

    @model_validator(mode="after")
    def _padding_is_at_most_half_a_window(self) -> Self:
        if any(2 * pad > extent for pad, extent in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"node '{self.name}': padding is {show(self.padding)}, expected at most half of "
                f"the kernel's {show(self.kernel_size)}"
            )
        return self

    @property
    def hop(self) -> tuple[int, int]:
        """The stride, by default the kernel's size."""
        return self.stride or self.kernel_size

    @property
    @override
    def windows(self) -> tuple[Window, ...]:
        return tuple(
            Window(extent, hop, pad, pad)
            for extent, hop, pad in zip(self.kernel_size, self.hop, self.padding, strict=True)
        )

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *self.swept(shape))


class SumPool2d(Pool2d):
    """The sum over each window."""

    type: Literal["SumPool2d"] = "SumPool2d"


class AvgPool2d(Pool2d):
    """The sum over each window, divided by the window's size including its padding."""

    type: Literal["AvgPool2d"] = "AvgPool2d"


class MaxPool2d(Pool2d):
    """The largest value of each window; padding does not count."""

    type: Literal["MaxPool2d"] = "MaxPool2d"
