"""The nodes that a network is made of, as data: connections, pools and neurons.

A node knows what follows from its fields alone: the shape that it gives for a shape that it takes, and the tensors
that it needs. What a node computes is written in `models.neurons` (neurons) and in each engine (connections).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from models.errors import InvalidSpec
from models.spec.parameters import (
    MOST_STEPS,
    PER_NEURON,
    FractionParameter,
    Frozen,
    Name,
    NonNegativeParameter,
    Padding,
    PaddingPair,
    Parameter,
    PositiveParameter,
    Shape,
    Size,
    SizePair,
    StepsParameter,
    show,
)


class Fire(StrEnum):
    """When a neuron fires: at its threshold (`>=`), only above it (`>`), or as often as thresholds fit (sinabs)."""

    AT_THRESHOLD = "at_threshold"
    ABOVE_THRESHOLD = "above_threshold"
    MULTIPLE = "multiple"


class Reset(StrEnum):
    """What a spike does to the membrane."""

    SUBTRACT = "subtract"
    VALUE = "value"
    NONE = "none"


class ResetTiming(StrEnum):
    """When a reset happens; late ones hang on whether the membrane of the step before fires, as in snnTorch.

    `same_step`: right after the spike. `next_step`: in the step after, by subtraction from what was charged, to a value
    before the membrane decays. `next_step_charged`: to a value in place of what was charged, which is lost.
    `corrected`: as `next_step`, and then again for a spike that was new in this step. `corrected_charged`: the same
    with `next_step_charged`.
    """

    SAME_STEP = "same_step"
    NEXT_STEP = "next_step"
    NEXT_STEP_CHARGED = "next_step_charged"
    CORRECTED = "corrected"
    CORRECTED_CHARGED = "corrected_charged"


class Charge(StrEnum):
    """How a membrane charges. The last four are one equation in four orders of rounding, each a peer's."""

    DECAY = "decay"
    EULER = "euler"
    EULER_INPUT_FIRST = "euler_input_first"
    RELAX = "relax"
    LEAK_THEN_ADD = "leak_then_add"


class Synapse(StrEnum):
    """How a synaptic current flows, each as a peer computes it."""

    DECAY = "decay"
    EULER = "euler"
    JUMP = "jump"
    SUM_THEN_DECAY = "sum_then_decay"


class Joins(StrEnum):
    """Where a recurrent current is added: to the layer's input, or last to what that input charges (snnTorch)."""

    INPUT = "input"
    CHARGE = "charge"


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


@dataclass(frozen=True)
class Window:
    """A window that sweeps along one axis: its taps, its hops, and the zeros before and after the input."""

    extent: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    def outputs(self, size: int) -> int:
        """Return how many places it has on an input of `size`; none that overhangs counts."""
        return (size + self.before + self.after - self.dilation * (self.extent - 1) - 1) // self.stride + 1


class SweptBase(NodeBase):
    """What sweeps windows over (channels, *axes), one window for each axis."""

    axes: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def windows(self) -> tuple[Window, ...]:
        """The window along each axis."""

    def swept(self, shape: Shape) -> Shape:
        """Return the sizes of the axes that are left of `shape`; raises InvalidSpec if that has not those axes."""
        wanted = ", ".join(("channels", *self.axes))
        if len(shape) != 1 + len(self.axes):
            raise InvalidSpec(f"node '{self.name}': expected an input of ({wanted}), but it has shape {show(shape)}")
        swept = tuple(window.outputs(size) for window, size in zip(self.windows, shape[1:], strict=True))
        if min(swept) < 1:
            kernel = show(tuple(window.extent for window in self.windows))
            raise InvalidSpec(f"node '{self.name}': a kernel of {kernel} does not fit into an input of {show(shape)}")
        return swept


class ConvBase(SweptBase):
    """What the convolutions (cross-correlations) share: zero padding, weight (out, in / groups, *kernel)."""

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
        """Return the window along one axis; "same" pads such that the size stays, more behind where that is uneven."""
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


class Pool2d(SweptBase):
    """What the three pools share; `stride` is the kernel's size if absent; windows that would overhang are left out."""

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
        """The stride in force."""
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


class Scale(NodeBase):
    """Each element times a factor of its own: `scale * x`, a number or `"per_neuron"`."""

    type: Literal["Scale"] = "Scale"
    scale: Parameter

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": shape} if self.scale == PER_NEURON else {}


class Delay(NodeBase):
    """Each element some steps later, and 0 until then; a number of steps, or `"per_neuron"`, whole numbers."""

    type: Literal["Delay"] = "Delay"
    delay: StepsParameter

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"delay": shape} if self.delay == PER_NEURON else {}


class NeuronBase(NodeBase):
    """What every neuron has; a parameter is a number or `"per_neuron"`, an array of the layer's shape."""

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {field: shape for field, value in self if value == PER_NEURON}


class Driven(NeuronBase):
    """A membrane that takes its current times `gain`, and `drive` beside it."""

    gain: Parameter = 1.0
    drive: Parameter = 0.0
    start: Parameter = Field(default=0.0, description="The membrane before the first step: at rest.")


class Leaky(Driven):
    """A membrane that leaks: how it charges, and the parameters that this needs."""

    charge: Charge = Charge.DECAY
    decay: FractionParameter | None = Field(default=None, description="What is left of the membrane, for 'decay'.")
    rate: NonNegativeParameter | None = Field(default=None, description="dt / tau, for all other ways to charge.")
    tau: PositiveParameter | None = Field(default=None, description="In steps, to divide by instead of a rate.")
    leak: Parameter = Field(default=0.0, description="Where the membrane rests; 0 for 'decay'.")

    @model_validator(mode="after")
    def _parameters_are_those_of_the_charge(self) -> Self:
        given = {name for name in ("decay", "rate", "tau") if getattr(self, name) is not None}
        needed = LEAKS[self.charge]
        if not any(given == {name} for name in needed):
            has = f"has {' and '.join(sorted(given))}" if given else "has none"
            raise ValueError(
                f"node '{self.name}': charge is '{self.charge}', which needs {' or '.join(needed)}, but it {has}"
            )
        unused = "leak" if self.charge is Charge.DECAY else "drive"
        if getattr(self, unused) != 0.0:
            raise ValueError(
                f"node '{self.name}': {unused} is {getattr(self, unused)}, expected 0, since charge is '{self.charge}'"
            )
        return self


LEAKS: Mapping[Charge, tuple[str, ...]] = {
    Charge.DECAY: ("decay",),
    Charge.EULER: ("rate",),
    Charge.EULER_INPUT_FIRST: ("rate",),
    Charge.RELAX: ("rate", "tau"),
    Charge.LEAK_THEN_ADD: ("rate", "tau"),
}


class Current(NeuronBase):
    """A synaptic current before the membrane: how it flows, and the parameters that this needs."""

    synapse: Synapse = Synapse.DECAY
    syn_decay: FractionParameter | None = Field(default=None, description="What is left of the current.")
    syn_rate: NonNegativeParameter | None = Field(default=None, description="dt / tau_syn, for 'euler' and 'jump'.")
    syn_gain: Parameter = 1.0

    @model_validator(mode="after")
    def _parameters_are_those_of_the_synapse(self) -> Self:
        by_rate = self.synapse in (Synapse.EULER, Synapse.JUMP)
        needed, other = ("syn_rate", "syn_decay") if by_rate else ("syn_decay", "syn_rate")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"node '{self.name}': synapse is '{self.synapse}', which needs {needed} and no {other}")
        return self


class Recurrent(Frozen):
    """A full connection from a layer's own spikes of the step before, weight (n, n).

    Its bias counts at step 0 too, unless `bias_at_start` is off: in sinabs, and in Norse through nirtorch, a recurrent
    connection gives nothing before there were spikes.
    """

    bias: bool = False
    bias_at_start: bool = True
    joins: Joins = Joins.INPUT

    @model_validator(mode="after")
    def _only_a_bias_starts(self) -> Self:
        if not self.bias_at_start and not self.bias:
            raise ValueError("bias_at_start is off, but there is no bias")
        return self


class SpikingBase(NeuronBase):
    """What the spiking neurons share: a threshold, how it fires and how it resets."""

    threshold: PositiveParameter = 1.0
    fire: Fire = Fire.AT_THRESHOLD
    reset: Reset = Reset.SUBTRACT
    reset_value: Parameter = 0.0
    reset_timing: ResetTiming = ResetTiming.SAME_STEP
    floor: Parameter | None = Field(default=None, description="What the membrane never falls below (sinabs).")
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _reset_is_one(self) -> Self:
        if self.reset is not Reset.VALUE and self.reset_value != 0.0:
            raise ValueError(
                f"node '{self.name}': reset_value is {self.reset_value}, but reset is '{self.reset}'; it needs 'value'"
            )
        timing, allowed = self.reset_timing, RESET_TIMINGS[self.reset]
        if timing not in allowed:
            raise ValueError(
                f"node '{self.name}': reset_timing is '{timing}', but reset '{self.reset}' has only "
                f"{', '.join(allowed)}"
            )
        if timing is not ResetTiming.SAME_STEP and self.fire is Fire.MULTIPLE:
            raise ValueError(f"node '{self.name}': reset_timing is '{timing}', but fire 'multiple' resets at once")
        return self

    @model_validator(mode="after")
    def _recurrence_joins_what_there_is(self) -> Self:
        joins = self.recurrent.joins if self.recurrent else Joins.INPUT
        synapse, charge = getattr(self, "synapse", None), getattr(self, "charge", Charge.DECAY)
        sums = charge is Charge.DECAY if synapse is None else synapse in (Synapse.DECAY, Synapse.JUMP)
        if joins is Joins.CHARGE and not sums:
            way = f"charge '{charge}'" if synapse is None else f"synapse '{synapse}'"
            raise ValueError(f"node '{self.name}': recurrent.joins is 'charge', but {way} is no sum to join")
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


RESET_TIMINGS: Mapping[Reset, tuple[ResetTiming, ...]] = {
    Reset.SUBTRACT: (ResetTiming.SAME_STEP, ResetTiming.NEXT_STEP, ResetTiming.CORRECTED),
    Reset.VALUE: tuple(ResetTiming),
    Reset.NONE: (ResetTiming.SAME_STEP,),
}


class IF(Driven, SpikingBase):
    """Integrate and fire: a LIF without leak."""

    type: Literal["IF"] = "IF"


class LIF(Leaky, SpikingBase):
    """Leaky integrate and fire."""

    type: Literal["LIF"] = "LIF"


class CubaLIF(Current, Leaky, SpikingBase):
    """Leaky integrate and fire whose current has a memory of its own."""

    type: Literal["CubaLIF"] = "CubaLIF"


class Threshold(NeuronBase):
    """A spike wherever its input reaches a threshold: a neuron that remembers nothing, and so has nothing to reset."""

    reset: ClassVar = Reset.NONE
    reset_timing: ClassVar = ResetTiming.SAME_STEP
    floor: ClassVar = None
    recurrent: ClassVar = None

    type: Literal["Threshold"] = "Threshold"
    threshold: PositiveParameter = 1.0
    fire: Fire = Fire.AT_THRESHOLD


class I(Driven):  # noqa: E742  (NIR's name for it)
    """An integrator: an LI without leak."""

    type: Literal["I"] = "I"


class LI(Leaky):
    """A leaky integrator: a membrane that never fires, read out at the end of a network."""

    type: Literal["LI"] = "LI"


class CubaLI(Current, Leaky):
    """A leaky integrator whose current has a memory of its own."""

    type: Literal["CubaLI"] = "CubaLI"


Conv = Conv1d | Conv2d
Weighted = Linear | Conv1d | Conv2d
Spiking = IF | LIF | CubaLIF | Threshold
Integrating = I | LI | CubaLI
Neuron = Spiking | Integrating
Node = Annotated[
    Linear
    | Conv1d
    | Conv2d
    | SumPool2d
    | AvgPool2d
    | MaxPool2d
    | Flatten
    | Scale
    | Delay
    | IF
    | LIF
    | CubaLIF
    | Threshold
    | I
    | LI
    | CubaLI,
    Field(discriminator="type"),
]

# The closed interval that each per-neuron array must keep to; a scalar's is checked with its field.
ARRAY_RANGES: Mapping[str, tuple[float, float]] = {
    "decay": (0.0, 1.0),
    "syn_decay": (0.0, 1.0),
    "rate": (0.0, math.inf),
    "syn_rate": (0.0, math.inf),
    "tau": (2.0**-149, math.inf),
    "threshold": (2.0**-149, math.inf),
    "delay": (0.0, MOST_STEPS),
}
WHOLE = frozenset({"delay"})  # arrays of whole numbers
