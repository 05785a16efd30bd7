"""The nodes that a network is made of, as data: connections, pools and neurons.

A node knows what follows from its fields alone: the shape that it gives for a shape that it takes, and the tensors
that it needs. What a node computes is written in `models.neurons` (neurons) and in each engine (connections).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from models.errors import InvalidSpec
from models.parameters import (
    PER_NEURON,
    FractionParameter,
    Frozen,
    Name,
    PaddingPair,
    Parameter,
    PositiveParameter,
    Shape,
    Size,
    SizePair,
    show,
)


class Fire(StrEnum):
    """When a neuron fires: at its threshold (`>=`) or only above it (`>`)."""

    AT_THRESHOLD = "at_threshold"
    ABOVE_THRESHOLD = "above_threshold"


class Reset(StrEnum):
    """What a spike does to the membrane in the same step."""

    SUBTRACT = "subtract"
    VALUE = "value"
    NONE = "none"


class NodeBase(Frozen, ABC):
    """What every node has: a name, and the nodes whose outputs are summed into its input."""

    name: Name
    inputs: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="Names of earlier nodes, or 'input'; the node before this one if absent.",
    )

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape that leaves this node, per step and sample; raises InvalidSpec if `shape` does not fit."""

    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:  # noqa: ARG002  (for nodes that have tensors)
        """Return the tensors that this node needs, parameter name to shape, for an input of `shape`."""
        return {}


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


def _swept(name: str, shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """Return the height and width that a window sweeping over `shape` (channels, height, width) leaves."""
    if len(shape) != 3:
        raise InvalidSpec(
            f"node '{name}': expected an input of (channels, height, width), but it has shape {show(shape)}"
        )
    swept = tuple(
        (size + 2 * pad - step * (extent - 1) - 1) // hop + 1
        for size, extent, hop, pad, step in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    )
    if min(swept) < 1:
        raise InvalidSpec(f"node '{name}': a kernel of {show(kernel)} does not fit into an input of {show(shape)}")
    return swept


class Conv2d(NodeBase):
    """A 2-D convolution (cross-correlation) with zero padding, weight (out_channels, in_channels / groups, *kernel)."""

    type: Literal["Conv2d"] = "Conv2d"
    in_channels: Size
    out_channels: Size
    kernel_size: SizePair
    stride: SizePair = (1, 1)
    padding: PaddingPair = (0, 0)
    dilation: SizePair = (1, 1)
    groups: Size = 1
    bias: bool = True

    @model_validator(mode="after")
    def _groups_divide_the_channels(self) -> Conv2d:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"node '{self.name}': groups is {self.groups}, which must divide in_channels {self.in_channels} "
                f"and out_channels {self.out_channels}"
            )
        return self

    @override
    def output_shape(self, shape: Shape) -> Shape:
        swept = _swept(self.name, shape, self.kernel_size, self.stride, self.padding, self.dilation)
        if shape[0] != self.in_channels:
            raise InvalidSpec(
                f"node '{self.name}': in_channels is {self.in_channels}, but its input has shape {show(shape)}"
            )
        return (self.out_channels, *swept)

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        weight = {"weight": (self.out_channels, self.in_channels // self.groups, *self.kernel_size)}
        return weight | ({"bias": (self.out_channels,)} if self.bias else {})


class Pool2d(NodeBase):
    """What the three pools share; `stride` is the kernel's size if absent; windows that would overhang are left out."""

    kernel_size: SizePair
    stride: SizePair | None = None
    padding: PaddingPair = (0, 0)

    @model_validator(mode="after")
    def _padding_is_at_most_half_a_window(self) -> Pool2d:
        if any(2 * pad > extent for pad, extent in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"node '{self.name}': padding is {show(self.padding)}, expected at most half of "
                f"the kernel's {show(self.kernel_size)}"
            )
        return self

    @property
    def hop(self) -> tuple[int, int]:
        """The stride in force."""
        return self.stride or self.kernel_size

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *_swept(self.name, shape, self.kernel_size, self.hop, self.padding, (1, 1)))


class SumPool2d(Pool2d):
    """The sum over each window."""

    type: Literal["SumPool2d"] = "SumPool2d"


class AvgPool2d(Pool2d):
    """The sum over each window divided by the window's size, padding counted."""

    type: Literal["AvgPool2d"] = "AvgPool2d"


class MaxPool2d(Pool2d):
    """The largest value of each window; padding never wins."""

    type: Literal["MaxPool2d"] = "MaxPool2d"


class Flatten(NodeBase):
    """Every axis of a sample into one, last axis fastest."""

    type: Literal["Flatten"] = "Flatten"

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


class NeuronBase(NodeBase):
    """What every neuron has; a parameter is a number or `"per_neuron"`, an array of the layer's shape."""

    gain: Parameter = 1.0
    drive: Parameter = 0.0

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {field: shape for field, value in self if value == PER_NEURON}


class Recurrent(Frozen):
    """A full connection from a layer's own spikes of the step before, weight (n, n); its bias counts at step 0 too."""

    bias: bool = False


class SpikingBase(NeuronBase):
    """What the spiking neurons share: a threshold, how it fires and how it resets."""

    threshold: PositiveParameter = 1.0
    fire: Fire = Fire.AT_THRESHOLD
    reset: Reset = Reset.SUBTRACT
    reset_value: Parameter = 0.0
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _reset_value_is_used(self) -> SpikingBase:
        if self.reset is not Reset.VALUE and self.reset_value != 0.0:
            raise ValueError(
                f"node '{self.name}': reset_value is {self.reset_value}, but reset is '{self.reset}'; it needs 'value'"
            )
        return self

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        needed = super().tensor_shapes(shape)
        if self.recurrent is not None:
            size = math.prod(shape)
            needed["recurrent.weight"] = (size, size)
            if self.recurrent.bias:
                needed["recurrent.bias"] = (size,)
        return needed


class IF(SpikingBase):
    """Integrate and fire: a LIF without leak."""

    type: Literal["IF"] = "IF"


class LIF(SpikingBase):
    """Leaky integrate and fire."""

    type: Literal["LIF"] = "LIF"
    decay: FractionParameter


class LI(NeuronBase):
    """A leaky integrator: a membrane that never fires, read out at the end of a network."""

    type: Literal["LI"] = "LI"
    decay: FractionParameter


Weighted = Linear | Conv2d
Spiking = IF | LIF
Neuron = Spiking | LI
Node = Annotated[
    Linear | Conv2d | SumPool2d | AvgPool2d | MaxPool2d | Flatten | IF | LIF | LI,
    Field(discriminator="type"),
]

# The closed interval that each per-neuron array must keep to; a scalar's is checked with its field.
ARRAY_RANGES: Mapping[str, tuple[float, float]] = {"decay": (0.0, 1.0), "threshold": (2.0**-149, math.inf)}
