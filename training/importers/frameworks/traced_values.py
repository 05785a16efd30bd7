"""What a tensor of a traced forward means: values of nodes at steps, what is read of them, or what nobody can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.axes import Axes, Unclear
from spikeserve.training.importers.frameworks.fold import Value
from spikeserve.training.importers.frameworks.graph import Over, Reading

if TYPE_CHECKING:
    from spikeserve.training.importers.frameworks.trace import Recorder

OWN = "a neuron's own value is taken in a place where none can be"  # what a term means to what knows no terms


@dataclass(frozen=True)
class Signal:
    """The output of nodes: one value, or one for each step along the axis of time.

    `state` names what a module with a state returned and its call: it may be handed back to it at its next. `is_read`
    marks what was read over time, taken as if it were what a node gives at each step.
    """

    axes: Axes
    values: tuple[Value, ...]
    state: tuple[int, int] | None = None
    is_read: bool = False


@dataclass(frozen=True)
class Answer:
    """A node read over time, of which steps, times a factor."""

    reading: Reading
    steps: tuple[int, ...]
    axes: Axes
    factor: float = 1.0

    def times(self, factor: float) -> Answer:
        """Return the answer times a constant."""
        if self.reading.softmax:
            raise Unclear("scales probabilities, which no readout does")
        return replace(self, factor=self.factor * factor)

    @property
    def is_linear(self) -> bool:
        """Whether a linear function of what is read is the same as reading that function of each step."""
        return self.reading.over in (Over.SUM, Over.MEAN, Over.LAST) and not self.reading.softmax

    def at_each_step(self) -> Signal:
        """Return the answer as if it were what its node gives at each step."""
        return Signal(self.axes, (Value(self.reading.node, None),), is_read=True)

    def of(self, signal: Signal) -> Answer:
        """Return the answer that reads what was made of `at_each_step`."""
        return replace(self, reading=replace(self.reading, node=signal.values[0].node), axes=signal.axes)

    def averaged(self, steps: int) -> Answer:
        """Return a sum that is divided by the number of steps as the mean that it is."""
        if self.reading.over is not Over.SUM or abs(self.factor * steps - 1) > 1e-6 or steps == 1:
            return self
        return replace(self, reading=replace(self.reading, over=Over.MEAN), factor=1.0)


@dataclass(frozen=True)
class Unknown:
    """What cannot be converted, with the sentence that says why; it counts only where the network's answer needs it.

    `refusal` is the error that it is raised as then, and `random` marks what was drawn.
    """

    sentence: str
    refusal: type[NotConvertible] = NotConvertible
    random: bool = False


Meaning: TypeAlias = Signal | Answer | Unknown


def read_over_time(over: Over, signal: Signal, axes: Axes, where: str) -> Answer:
    """Return what is read of a signal with an axis of time, `axes` being those without it."""
    nodes = {value.node for value in signal.values}
    if len(nodes) > 1:
        raise Unclear("reads steps that are not copies of each other")
    steps = tuple(place if value.step is None else value.step for place, value in enumerate(signal.values))
    return Answer(Reading(nodes.pop(), over, where=where), steps, axes)


def added_over_time(held: Signal | Answer, value: Signal, where: str) -> Answer | None:
    """Return the sum of a node over one step more, None where it is no such sum."""
    (more,) = value.values if len(value.values) == 1 else (None,)
    if more is None or more.step is None:
        return None
    if isinstance(held, Signal):
        if len(held.values) != 1 or held.values[0].step is None:
            return None
        node, step = held.values[0].node, held.values[0].step or 0
        summed = Answer(Reading(node, Over.SUM, where=where), (step,), held.axes)
    else:
        summed = held
    reading = summed.reading
    if reading.node != more.node or more.step in summed.steps or reading.over is not Over.SUM:
        return None
    if summed.factor != 1 or reading.softmax:
        raise Unclear("adds a step to what is scaled already")
    return replace(summed, steps=(*summed.steps, more.step))


@dataclass(frozen=True)
class Call:
    """A function's name as rules have it, its arguments, what its tensors meant before it ran, and what it returned."""

    recorder: Recorder
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meanings: dict[int, Signal | Answer]
    out: Any
    where: str

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or its name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def meaning(self, tensor: object) -> Signal | Answer | None:
        """Return what an argument meant before the call, None for one that does not depend on the input."""
        return self.meanings.get(id(tensor))

    @property
    def taken(self) -> tuple[Tensor, Signal | Answer]:
        """The first argument, and what it means; raises Unclear where it does not depend on the input."""
        first = self.argument(0, "input")
        meaning = self.meaning(first)
        if meaning is None:
            raise Unclear("takes the network's values in another place than the first")
        return first, meaning

    @property
    def signal(self) -> tuple[Tensor, Signal]:
        """The first argument and its signal; raises Unclear where it is read over time already."""
        first, meaning = self.taken
        if isinstance(meaning, Answer):
            raise Unclear("takes what is read over time already, which no readout does")
        return first, meaning


Rule = Callable[[Call], Meaning]
