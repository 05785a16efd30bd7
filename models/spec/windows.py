"""Sliding windows along the axes of an input, which convolutions and pools share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import Shape, show


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis: its size (taps), stride, and the padding before and after the input.

    With `overhang` its last position may reach behind the padded input, if it begins before the padding at the end.
    """

    extent: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    overhang: bool = False

    def outputs(self, size: int) -> int:
        """Return the number of its positions on an input of `size`; without `overhang` all lie inside the padding."""
        room = size + self.before + self.after - self.dilation * (self.extent - 1) - 1
        if not self.overhang:
            return room // self.stride + 1
        positions = -(-room // self.stride) + 1
        return positions - ((positions - 1) * self.stride >= size + self.before)

    def fitted(self, size: int) -> Window:
        """Return the same window without an overhang, with as much padding at the end as it reaches over instead."""
        if not self.overhang:
            return self
        reach = (self.outputs(size) - 1) * self.stride + self.dilation * (self.extent - 1) + 1
        return replace(self, after=max(self.after, reach - size - self.before), overhang=False)

    def covered(self, size: int, *, padding: bool) -> list[int]:
        """Return how many values of an input of `size` each position covers, with or without those of the padding."""
        low, high = (-self.before, size + self.after) if padding else (0, size)
        starts = (position * self.stride - self.before for position in range(self.outputs(size)))
        return [min(start + self.extent, high) - max(start, low) for start in starts]


class SweptBase(NodeBase):
    """A node that slides windows over (channels, *axes), one window for each axis."""

    axes: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def windows(self) -> tuple[Window, ...]:
        """The window along each axis."""

    def swept(self, shape: Shape) -> Shape:
        """Return the output's sizes along `axes` for an input of `shape`; raises InvalidSpec if it has other axes."""
        wanted = ", ".join(("channels", *self.axes))
        if len(shape) != 1 + len(self.axes):
            raise InvalidSpec(f"node '{self.name}': expected an input of ({wanted}), but it has shape {show(shape)}")
        swept = tuple(window.outputs(size) for window, size in zip(self.windows, shape[1:], strict=True))
        if min(swept) < 1:
            kernel = show(tuple(window.extent for window in self.windows))
            raise InvalidSpec(f"node '{self.name}': a kernel of {kernel} does not fit into an input of {show(shape)}")
        return swept
