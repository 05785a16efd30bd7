"""The value of a tensor in a traced forward: nodes' outputs at steps, a reduction over time, or unsupported."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks.axes import Axes, Unsupported
from spikeserve.plugins.frameworks.graph import GraphReadout, Node, StepValue
from spikeserve.training.errors import NotConvertible

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.tracer import Tracer

OWN = "a neuron's own value is taken in a place where none can be"  # the value of a term for functions that take none


@dataclass(frozen=True)
class Signal:
    """The output of nodes: one value, or one for each step along the axis of time.

    `state` names what a module with a state returned and its call: it may be handed back to it at its next. `is_read`
    marks what was read over time, taken as if it were what a node gives at each step.
    """

    axes: Axes
    values: tuple[StepValue, ...]
    state: tuple[int, int] | None = None
    is_read: bool = False


@dataclass(frozen=True)
class TimeReduction:
    """A node's output at these steps, reduced over time and times a factor."""

    readout: GraphReadout
    steps: tuple[int, ...]
    axes: Axes
    factor: float = 1.0

    def times(self, factor: float) -> TimeReduction:
        """Return the answer times a constant."""
        if self.readout.softmax:
            raise Unsupported("scales probabilities, which no readout does")
        return replace(self, factor=self.factor * factor)

    @property
    def is_linear(self) -> bool:
        """Whether a linear function of what is read is the same as reading that function of each step."""
        return self.readout.over in (Reduction.SUM, Reduction.MEAN, Reduction.LAST) and not self.readout.softmax

    def at_each_step(self) -> Signal:
        """Return the answer as if it were what its node gives at each step."""
        return Signal(self.axes, (StepValue(self.readout.node, None),), is_read=True)

    def of(self, signal: Signal) -> TimeReduction:
        """Return the answer that reads what was made of `at_each_step`."""
        return replace(self, readout=replace(self.readout, node=signal.values[0].node), axes=signal.axes)

    def averaged(self, steps: int) -> TimeReduction:
        """Return a sum that is divided by the number of steps as the mean that it is."""
        if self.readout.over is not Reduction.SUM or abs(self.factor * steps - 1) > 1e-6 or steps == 1:
            return self
        return replace(self, readout=replace(self.readout, over=Reduction.MEAN), factor=1.0)


@dataclass(frozen=True)
class UnsupportedValue:
    """A value that cannot be converted, and why; it counts only where the network's answer needs it.

    `refusal` is the error that it is raised as then, and `random` marks what was drawn.
    """

    sentence: str
    refusal: type[NotConvertible] = NotConvertible
    random: bool = False


TracedValue: TypeAlias = Signal | TimeReduction | UnsupportedValue


def read_over_time(over: Reduction, signal: Signal, axes: Axes, where: str) -> TimeReduction:
    """Reduce a signal's axis of time; `axes` are those without it."""
    nodes = {value.node for value in signal.values}
    if len(nodes) > 1:
        raise Unsupported("reads steps that are not copies of each other")
    steps = tuple(place if value.step is None else value.step for place, value in enumerate(signal.values))
    return TimeReduction(GraphReadout(nodes.pop(), over, where=where), steps, axes)


def added_over_time(total: Signal | TimeReduction, value: Signal, where: str) -> TimeReduction | None:
    """Return the sum of a node over one step more, None where it is no such sum."""
    (more,) = value.values if len(value.values) == 1 else (None,)
    if more is None or more.step is None:
        return None
    if isinstance(total, Signal):
        if len(total.values) != 1 or total.values[0].step is None:
            return None
        node, step = total.values[0].node, total.values[0].step or 0
        summed = TimeReduction(GraphReadout(node, Reduction.SUM, where=where), (step,), total.axes)
    else:
        summed = total
    readout = summed.readout
    if readout.node != more.node or more.step in summed.steps or readout.over is not Reduction.SUM:
        return None
    if summed.factor != 1 or readout.softmax:
        raise Unsupported("adds a step to what is scaled already")
    return replace(summed, steps=(*summed.steps, more.step))


PADDING = StepValue(-2, None)  # a step of zeros, before the first or behind the last


def padded(module: nn.ConstantPad1d, values: Sequence[StepValue]) -> tuple[StepValue, ...]:
    """Return steps with those of a padding around them, or without so many where it is below 0."""
    left, right = module.padding
    if module.value != 0:
        raise Unsupported(f"pads time with {module.value:g}, expected zeros, which are what there was before a run")
    kept = values[max(0, -left) : len(values) - max(0, -right)]
    return (*[PADDING] * left, *kept, *[PADDING] * right)


def taps_of(conv: nn.Conv1d, values: Sequence[StepValue]) -> tuple[tuple[int, ...], list[StepValue]]:
    """Return how many steps ago each place of a kernel sees, and the steps that it runs over; raises Unsupported."""
    stride, dilation, kernel = (sizes[0] for sizes in (conv.stride, conv.dilation, conv.kernel_size))
    left, right = conv._reversed_padding_repeated_twice
    if stride != 1 or (conv.padding_mode != "zeros" and left + right):
        raise Unsupported(
            f"runs along time with stride {stride} and padding_mode '{conv.padding_mode}', expected 1, since all of a "
            "network runs at each step of its input, and zeros"
        )
    steps = [value for value in values if value != PADDING]
    before = left + next((place for place, value in enumerate(values) if value != PADDING), 0)
    numbered = [StepValue(value.node, place if value.step is None else value.step) for place, value in enumerate(steps)]
    whole = [StepValue(numbered[0].node, place) for place in range(len(steps))] if steps else []
    if not steps or numbered != whole or [*values[before - left :][: len(steps)]] != steps:
        raise Unsupported("runs along time over what is not all steps in their order")
    if before < dilation * (kernel - 1):
        raise Unsupported(
            f"looks ahead by {dilation * (kernel - 1) - before}, which no stream can: pad time by "
            f"{dilation * (kernel - 1)} on the left alone, and train it so; or, if no neuron has a state, import it "
            "for whole samples as one step: --input-shape CHANNELS,STEPS --time-steps 1"
        )
    return tuple(before - dilation * place for place in range(kernel)), numbered


@dataclass(frozen=True)
class Call:
    """A call of a function: its name as rules have it, arguments, their values before it ran, and its result."""

    tracer: Tracer
    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    traced_values: dict[int, Signal | TimeReduction]
    out: Any
    where: str

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or its name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def traced(self, tensor: object) -> Signal | TimeReduction | None:
        """Return an argument's value before the call, None for one that does not depend on the input."""
        return self.traced_values.get(id(tensor))

    @property
    def taken(self) -> tuple[Tensor, Signal | TimeReduction]:
        """The first argument, and its value; raises Unsupported where it does not depend on the input."""
        first = self.argument(0, "input")
        traced = self.traced(first)
        if traced is None:
            raise Unsupported("takes the network's values in another place than the first")
        return first, traced

    @property
    def signal(self) -> tuple[Tensor, Signal]:
        """The first argument and its signal; raises Unsupported where it is read over time already."""
        first, traced = self.taken
        if isinstance(traced, TimeReduction):
            raise Unsupported("takes what is read over time already, which no readout does")
        return first, traced

    def apply(self, key: Hashable, module: nn.Module, name: str, signal: Signal, tensor: Tensor, out: Tensor) -> Signal:
        """Record the call as a node without a state, which makes `out` of `tensor`, the signal's."""
        return self.tracer.applied(key, lambda: Node(name, module, where=self.where), signal, tensor, out)


Rule = Callable[[Call], TracedValue]
