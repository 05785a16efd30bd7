"""Sliding windows along the axes of an input, which convolutions and pools share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from models.errors import InvalidSpec
from models.spec.node_base import NodeBase
from models.spec.parameters import Shape, show


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis: its size (taps), stride, and the padding before and after the input."""

    extent: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    def outputs(self, size: int) -> int:
        """Return the number of its positions on an input of `size`, all of which lie inside the padded input."""
        return (size + self.before + self.after - self.dilation * (self.extent - 1) - 1) // self.stride + 1


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
