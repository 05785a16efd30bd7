"""The connections: Linear and convolutions, and the element-wise Scale and Delay."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

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
    Steps,
    StepsParameter,
    WeightBits,
    show,
)
from spikeserve.models.spec.sparse import MOST_PLACES
from spikeserve.models.spec.windows import ChannelsBase, TransposedWindow, Window


class Linear(NodeBase):
    """A fully connected layer: `weight @ x + bias`, weight (out_features, in_features).

    With `nonzero` only so many of the weights are stored and counted, those that are not 0; see `models.spec.sparse`.
    """

    type: Literal["Linear"] = "Linear"
    in_features: Size
    out_features: Size
    bias: bool = True
    weight_bits: WeightBits = None
    nonzero: Annotated[Size | None, Field(exclude_if=lambda count: count is None)] = None

    @model_validator(mode="after")
    def _stores_weights_that_it_has(self) -> Self:
        weights = self.in_features * self.out_features
        if self.nonzero is not None and (self.nonzero > weights or weights > MOST_PLACES):
            raise ValueError(
                f"node '{self.name}': nonzero is {self.nonzero} of {weights} weights, expected no more than there are "
                f"of at most {MOST_PLACES}"
            )
        return self

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


class ConvBase(ChannelsBase):
    """The base of the convolutions (cross-correlations), which pad with zeros.

    A padding of "same" keeps the size, with the odd zero after the input.
    """

    @model_validator(mode="after")
    def _same_has_no_stride(self) -> Self:
        padding, strides = zip(*self.along("padding", "stride"), strict=True)
        if padding[0] == "same" and max(strides) > 1:  # as in PyTorch
            raise ValueError(
                f"node '{self.name}': padding is 'same' with stride {show(strides)}, expected a stride of 1 or "
                "numbers as padding"
            )
        return self

    @property
    @override
    def windows(self) -> tuple[Window, ...]:
        return tuple(_window(*each) for each in self.along("kernel_size", "stride", "padding", "dilation"))


def _window(kernel: int, stride: int, padding: int | Literal["same"], dilation: int) -> Window:
    """Return the window along one axis."""
    if padding == "same":
        total = dilation * (kernel - 1)
        return Window(kernel, stride, total // 2, total - total // 2, dilation)
    return Window(kernel, stride, padding, padding, dilation)


class Conv1d(ConvBase):
    """A 1-D convolution over (channels, length)."""

    axes: ClassVar = ("length",)

    type: Literal["Conv1d"] = "Conv1d"
    kernel_size: Size
    stride: Size = 1
    padding: Padding | Literal["same"] = 0
    dilation: Size = 1


class Conv2d(ConvBase):
    """A 2-D convolution over (channels, height, width)."""

    axes: ClassVar = ("height", "width")

    type: Literal["Conv2d"] = "Conv2d"
    kernel_size: SizePair
    stride: SizePair = (1, 1)
    padding: PaddingPair | Literal["same"] = (0, 0)
    dilation: SizePair = (1, 1)


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
    """Each element delayed by a number of steps, 0 until then; the delay is a number or `"per_neuron"` integers.

    With several `taps`, which are whole steps in ascending order, the input of each so many steps ago is put side by
    side along the first axis, tap after tap: (taps * channels, ...). A Linear or convolution behind it is then one over
    time.
    """

    type: Literal["Delay"] = "Delay"
    delay: Annotated[StepsParameter | None, Field(exclude_if=lambda delay: delay is None)] = None
    taps: Annotated[tuple[Steps, ...] | None, Field(min_length=1, exclude_if=lambda taps: taps is None)] = None

    @model_validator(mode="after")
    def _has_delays(self) -> Self:
        if (self.delay is None) == (self.taps is None):
            fields = "neither delay nor taps" if self.delay is None else "delay and taps"
            raise ValueError(f"node '{self.name}': has {fields}, expected one of them")
        for first, second in pairwise(self.taps or ()):
            if first >= second:
                raise ValueError(f"node '{self.name}': taps has {second} after {first}, expected ascending steps")
        return self

    @property
    def shared(self) -> tuple[int, ...]:
        """The steps of each tap, which all elements share; none where each element has a delay of its own."""
        if self.taps is not None:
            return self.taps
        return (self.delay,) if isinstance(self.delay, int) else ()

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape if self.taps is None else (len(self.taps) * shape[0], *shape[1:])

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"delay": shape} if self.delay == PER_NEURON else {}


class ConvTransposeBase(ChannelsBase):
    """The base of the transposed convolutions, weight (out, in / groups, *kernel) as a convolution's."""

    misfit: ClassVar = "with its padding leaves nothing of"

    @property
    @override
    def windows(self) -> tuple[TransposedWindow, ...]:
        return tuple(
            TransposedWindow(*each)
            for each in self.along("kernel_size", "stride", "padding", "output_padding", "dilation")
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
