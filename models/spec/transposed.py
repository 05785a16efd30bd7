"""The transposed convolutions: each input is spread over the outputs under the kernel."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from typing_extensions import override

from spikeserve.models.spec.parameters import Padding, PaddingPair, Size, SizePair
from spikeserve.models.spec.windows import ChannelsBase, Spread


class ConvTransposeBase(ChannelsBase):
    """The base of the transposed convolutions, weight (out, in / groups, *kernel) as a convolution's."""

    misfit: ClassVar = "with its padding leaves nothing of"

    @property
    @override
    def windows(self) -> tuple[Spread, ...]:
        return tuple(
            Spread(*each) for each in self.along("kernel_size", "stride", "padding", "output_padding", "dilation")
        )

    @model_validator(mode="after")
    def _output_padding_is_less_than_a_stride(self) -> Self:
        for window in self.windows:
            if window.output_padding >= window.stride:  # ONNX Runtime computes no other
                raise ValueError(
                    f"node '{self.name}': output_padding is {window.output_padding}, expected less than the stride "
                    f"{window.stride}"
                )
        return self


class ConvTranspose1d(ConvTransposeBase):
    """A transposed 1-D convolution over (channels, length)."""

    axes: ClassVar = ("length",)

    type: Literal["ConvTranspose1d"] = "ConvTranspose1d"
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    output_padding: Padding = 0
    dilation: Size = 1


class ConvTranspose2d(ConvTransposeBase):
    """A transposed 2-D convolution over (channels, height, width)."""

    axes: ClassVar = ("height", "width")

    type: Literal["ConvTranspose2d"] = "ConvTranspose2d"
    kernel_size: SizePair
    stride: SizePair = (1, 1)
    padding: PaddingPair = (0, 0)
    output_padding: PaddingPair = (0, 0)
    dilation: SizePair = (1, 1)
