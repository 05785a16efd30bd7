"""The transposed convolutions: each input is spread over the outputs under the kernel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import model_validator
from typing_extensions import override

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import Padding, PaddingPair, Shape, Size, SizePair, show


@dataclass(frozen=True)
class Spread:
    """How inputs along one axis reach outputs: by tap k input i adds to output `i * stride + k * dilation - padding`.

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

    def reached(self, position: int, outputs: int) -> list[tuple[int, int]]:
        """Return the (output, tap) pairs that an input reaches, ascending."""
        first = position * self.stride - self.padding
        pairs = ((first + tap * self.dilation, tap) for tap in range(self.extent))
        return [(output, tap) for output, tap in pairs if 0 <= output < outputs]


class ConvTransposeBase(NodeBase):
    """The base of the transposed convolutions, weight (out, in / groups, *kernel) as a convolution's."""

    axes: ClassVar[tuple[str, ...]]

    in_channels: Size
    out_channels: Size
    groups: Size = 1
    bias: bool = True

    @property
    @abstractmethod
    def windows(self) -> tuple[Spread, ...]:
        """How inputs reach outputs along each axis."""

    @model_validator(mode="after")
    def _groups_and_paddings_fit(self) -> Self:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"node '{self.name}': groups is {self.groups}, which must divide in_channels {self.in_channels} "
                f"and out_channels {self.out_channels}"
            )
        for window in self.windows:
            if window.output_padding >= window.stride:  # ONNX Runtime computes no other
                raise ValueError(
                    f"node '{self.name}': output_padding is {window.output_padding}, expected less than the stride "
                    f"{window.stride}"
                )
        return self

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1 + len(self.axes):
            wanted = ", ".join(("channels", *self.axes))
            raise InvalidSpec(f"node '{self.name}': expected an input of ({wanted}), but it has shape {show(shape)}")
        if shape[0] != self.in_channels:
            raise InvalidSpec(
                f"node '{self.name}': in_channels is {self.in_channels}, but its input has shape {show(shape)}"
            )
        sizes = tuple(window.outputs(size) for window, size in zip(self.windows, shape[1:], strict=True))
        if min(sizes) < 1:
            padding = show(tuple(window.padding for window in self.windows))
            raise InvalidSpec(f"node '{self.name}': a padding of {padding} leaves nothing of an input of {show(shape)}")
        return (self.out_channels, *sizes)

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel = tuple(window.extent for window in self.windows)
        weight = {"weight": (self.out_channels, self.in_channels // self.groups, *kernel)}
        return weight | ({"bias": (self.out_channels,)} if self.bias else {})


class ConvTranspose1d(ConvTransposeBase):
    """A transposed 1-D convolution over (channels, length)."""

    axes: ClassVar = ("length",)

    type: Literal["ConvTranspose1d"] = "ConvTranspose1d"
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    output_padding: Padding = 0
    dilation: Size = 1

    @property
    @override
    def windows(self) -> tuple[Spread, ...]:
        return (Spread(self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation),)


class ConvTranspose2d(ConvTransposeBase):
    """A transposed 2-D convolution over (channels, height, width)."""

    axes: ClassVar = ("height", "width")

    type: Literal["ConvTranspose2d"] = "ConvTranspose2d"
    kernel_size: SizePair
    stride: SizePair = (1, 1)
    padding: PaddingPair = (0, 0)
    output_padding: PaddingPair = (0, 0)
    dilation: SizePair = (1, 1)

    @property
    @override
    def windows(self) -> tuple[Spread, ...]:
        return tuple(map(Spread, self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation))
