"""The connections: Linear and convolutions, and the element-wise Scale and Delay."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import (
    MAX_STEPS,
    PER_CHANNEL,
    PER_NEURON,
    Padding,
    PaddingPair,
    ScaleParameter,
    Shape,
    Size,
    SizePair,
    StepsParameter,
    show,
)
from spikeserve.models.spec.windows import SweptBase, Window


class Linear(NodeBase):
    """A fully connected layer: `weight @ x + bias`, weight (out_features, in_features)."""

    type: Literal["Linear"] = "Linear"
    in_features: Size
    out_features: Size
    bias: bool = True

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if shape != (self.in_features,):
            raise InvalidSpec(
                f"node '{self.name}': in_features is {self.in_features}, but its input has shape {show(shape)}"
            )
        return (self.out_features,)

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        weight = {"weight": (self.out_features, self.in_features)}
        return weight | ({"bias": (self.out_features,)} if self.bias else {})


class ConvBase(SweptBase):
    """The base of the convolutions (cross-correlations): zero padding, weight (out, in / groups, *kernel)."""

    in_channels: Size
    out_channels: Size
    groups: Size = 1
    bias: bool = True

    @model_validator(mode="after")
    def _groups_divide_the_channels(self) -> Self:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"node '{self.name}': groups is {self.groups}, which must divide in_channels {self.in_channels} "
                f"and out_channels {self.out_channels}"
            )
        return self

    def window(self, kernel: int, stride: int, padding: int | Literal["same"], dilation: int) -> Window:
        """Return the window along one axis; "same" padding keeps the size, with the odd zero after the input."""
        if padding == "same":
            total = dilation * (kernel - 1)
            return Window(kernel, stride, total // 2, total - total // 2, dilation)
        return Window(kernel, stride, padding, padding, dilation)

    def check_same(self, strides: Shape) -> None:
        """Raise ValueError if a padding of "same" meets a stride, as PyTorch does."""
        if max(strides) > 1:
            raise ValueError(
                f"node '{self.name}': padding is 'same' with stride {show(strides)}, expected a stride of 1 or "
                "numbers as padding"
            )

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


class Conv1d(ConvBase):
    """A 1-D convolution over (channels, length)."""

    axes: ClassVar = ("length",)

    type: Literal["Conv1d"] = "Conv1d"
    kernel_size: Size
    stride: Size = 1
    padding: Padding | Literal["same"] = 0
    dilation: Size = 1

    @model_validator(mode="after")
    def _same_has_no_stride(self) -> Self:
        if self.padding == "same":
            self.check_same((self.stride,))
        return self

    @property
    @override
    def windows(self) -> tuple[Window, ...]:
        return (self.window(self.kernel_size, self.stride, self.padding, self.dilation),)


class Conv2d(ConvBase):
    """A 2-D convolution over (channels, height, width)."""

    axes: ClassVar = ("height", "width")

    type: Literal["Conv2d"] = "Conv2d"
    kernel_size: SizePair
    stride: SizePair = (1, 1)
    padding: PaddingPair | Literal["same"] = (0, 0)
    dilation: SizePair = (1, 1)

    @model_validator(mode="after")
    def _same_has_no_stride(self) -> Self:
        if self.padding == "same":
            self.check_same(self.stride)
        return self

    @property
    @override
    def windows(self) -> tuple[Window, ...]:
        paddings: tuple[Any, Any] = ("same", "same") if self.padding == "same" else self.padding
        return tuple(map(self.window, self.kernel_size, self.stride, paddings, self.dilation))


class Scale(NodeBase):
    """Each element times a factor, plus an offset: `scale * x + offset`, of which each operation rounds on its own.

    Each is a number, `"per_channel"` or `"per_neuron"`. With `steps` the arrays have a first axis of so many steps, and
    step t since rest takes its own: batch norm with statistics for each step.
    """

    type: Literal["Scale"] = "Scale"
    scale: ScaleParameter
    offset: ScaleParameter = 0.0
    steps: Annotated[Size, Field(le=MAX_STEPS)] | None = None

    @model_validator(mode="after")
    def _steps_have_arrays(self) -> Self:
        if self.steps is not None and not self.arrays:
            raise ValueError(
                f"node '{self.name}': steps is {self.steps}, but scale {self.scale:g} and offset {self.offset:g} are "
                "the same at each, expected an array"
            )
        return self

    @property
    def arrays(self) -> tuple[str, ...]:
        """The parameters that are arrays."""
        return tuple(name for name in ("scale", "offset") if isinstance(getattr(self, name), str))

    @property
    @override
    def by_step(self) -> bool:
        return self.steps is not None

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        steps = () if self.steps is None else (self.steps,)
        return {name: (*steps, *(shape[:1] if getattr(self, name) == PER_CHANNEL else shape)) for name in self.arrays}


class Delay(NodeBase):
    """Each element delayed by a number of steps, 0 until then; the delay is a number or `"per_neuron"` integers."""

    type: Literal["Delay"] = "Delay"
    delay: StepsParameter

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"delay": shape} if self.delay == PER_NEURON else {}
