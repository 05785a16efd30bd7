"""Sliding windows along the axes of an input, which convolutions and pools share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from typing_extensions import override

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import Shape, Size, WeightBits, show


class Axis(NamedTuple):
    """How the inputs along one axis reach outputs: input i, by tap k, output `(i * stride + k * hop + shift) / every`.

    Where that is not whole, or none of the outputs, the input reaches no output by the tap. `room` is the number of
    places of the input with its padding; of a transposed convolution, of the output with what its padding takes away.
    """

    taps: int
    inputs: int
    outputs: int
    stride: int
    hop: int
    shift: int
    every: int
    room: int

    def pairs(self, tap: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the inputs that reach an output by a tap, ascending, and these outputs."""
        at = np.arange(self.inputs) * self.stride + (tap * self.hop + self.shift)
        inputs = np.flatnonzero((at >= 0) & (at < self.outputs * self.every) & (at % self.every == 0))
        return inputs, at[inputs] // self.every

    def meets(self) -> NDArray[np.int64]:
        """Return 1 where an input reaches an output by a tap and 0 elsewhere, (taps, inputs)."""
        met = np.zeros((self.taps, self.inputs), np.int64)
        for tap in range(self.taps):
            met[tap, self.pairs(tap)[0]] = 1
        return met


ONE_ROW = Axis(taps=1, inputs=1, outputs=1, stride=1, hop=1, shift=0, every=1, room=1)  # beside a length


@dataclass(frozen=True)
class TransposedWindow:
    """A transposed window along one axis: its size (taps), stride and dilation, and the outputs that padding takes.

    `output_padding` outputs more stand at the end.
    """

    extent: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    dilation: int = 1

    def outputs(self, size: int) -> int:
        """Return the number of outputs of an input of `size`."""
        reach = self.dilation * (self.extent - 1) + 1
        return (size - 1) * self.stride + reach - 2 * self.padding + self.output_padding

    def axis(self, size: int) -> Axis:
        """Return how an input of `size` reaches its outputs."""
        outputs = self.outputs(size)
        room = outputs + 2 * self.padding
        return Axis(self.extent, size, outputs, self.stride, self.dilation, -self.padding, 1, room)


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

    def axis(self, size: int) -> Axis:
        """Return how an input of `size` reaches the window's positions."""
        room = size + self.before + self.after
        return Axis(self.extent, size, self.outputs(size), 1, -self.dilation, self.before, self.stride, room)

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
    misfit: ClassVar = "does not fit into"

    @property
    @abstractmethod
    def windows(self) -> tuple[Window | TransposedWindow, ...]:
        """The window along each axis."""

    def spread(self, shape: Shape) -> tuple[Axis, ...]:
        """Return how an input of `shape` (channels, *axes) reaches the outputs, along each of its axes."""
        return tuple(window.axis(size) for window, size in zip(self.windows, shape[1:], strict=True))

    def along(self, *fields: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of fields for each axis; one that is no pair is the same for all."""
        values = (getattr(self, name) for name in fields)
        return zip(*(each if isinstance(each, tuple) else (each,) * len(self.axes) for each in values), strict=True)

    def swept(self, shape: Shape) -> Shape:
        """Return the output's sizes along `axes` for an input of `shape`; raises InvalidSpec if it has other axes."""
        axes = ", ".join(("channels", *self.axes))
        if len(shape) != 1 + len(self.axes):
            raise InvalidSpec(f"node '{self.name}': expected an input of ({axes}), but it has shape {show(shape)}")
        swept = tuple(window.outputs(size) for window, size in zip(self.windows, shape[1:], strict=True))
        if min(swept) < 1:
            kernel = show(tuple(window.extent for window in self.windows))
            raise InvalidSpec(f"node '{self.name}': a kernel of {kernel} {self.misfit} an input of {show(shape)}")
        return swept


class ChannelsBase(SweptBase):
    """The base of the convolutions of both kinds, weight (out, in / groups, *kernel)."""

    in_channels: Size
    out_channels: Size
    groups: Size = 1
    bias: bool = True
    weight_bits: WeightBits = None

    @model_validator(mode="after")
    def _groups_divide_the_channels(self) -> Self:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"node '{self.name}': groups is {self.groups}, which must divide in_channels {self.in_channels} "
                f"and out_channels {self.out_channels}"
            )
        return self

    @override
    def output_shape(self, shape: Shape) -> Shape:
        swept = self.swept(shape)
        if shape[0] != self.in_channels:
            raise InvalidSpec(
                f"node '{self.name}': in_channels is {self.in_channels}, but its input has shape {show(shape)}"
            )
        return (self.out_channels, *swept)

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel = tuple(window.extent for window in self.windows)
        weight = {"weight": (self.out_channels, self.in_channels // self.groups, *kernel)}
        return weight | ({"bias": (self.out_channels,)} if self.bias else {})
