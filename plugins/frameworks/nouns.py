"""The nouns of a trace, before the first node of a spec: what a tensor of the author's forward means, and of what.

An input has a `Layout`, and a tensor `Axes` (axes.py) and a value: a `Signal`, a `TimeReduction`, or what is
unsupported. A signal's values are the outputs of a `Node` at steps (`StepValue`), and within a neuron of the author's
own each value is a `Term`. The nodes and the `GraphReadout` are the `Graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.training.errors import NotConvertible, OtherLayout

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.axes import Axes
    from spikeserve.plugins.frameworks.tracer import Tracer


class Unsupported(Exception):
    """An operation that no graph of nodes can express; the message goes on after the operation's name.

    `refusal` is the error that it becomes where the network's answer needs it, and `where` the author's line that it is
    about, where that is not the one that runs.
    """

    refusal: type[NotConvertible] = NotConvertible

    def __init__(self, sentence: str, where: str = "") -> None:
        super().__init__(sentence)
        self.where = where


class UnsupportedAxes(Unsupported):
    """An unsupported operation on time, the batch or a sample, perhaps since it takes one of them for another."""

    refusal = OtherLayout


@dataclass(frozen=True)
class Layout:
    """How a forward is given its input: what of, its axes, and all steps at once or one in each of its calls.

    `steps` is 0 for a sample that is the same at all steps, of which the forward knows the number. `values` are what is
    given, (time_steps or 1, batch, *shape).
    """

    name: str
    sources: tuple[Tensor, ...]
    axes: Axes
    values: Tensor
    steps: int
    by_step: bool = False

    @property
    def batch(self) -> int:
        """The number of samples."""
        return len(self.values[0])

    @property
    def of_any_batch(self) -> str:
        """What the forward takes, whatever the batch: `one step of (batch, 16)`."""
        return str(self).replace(f"batch={self.batch}", "batch")

    def __str__(self) -> str:
        return f"{self.name} of ({self.axes})"


INPUT = 0  # the index of a graph's first node


@dataclass(frozen=True)
class GraphReadout:
    """The node that a forward returns, how it is reduced over time, and at which of the author's lines.

    `over` is how it reads the node over time: None where it returns every step and leaves that to its caller. The
    `membrane` or the output, times a `factor`, and of that the probabilities where a `softmax` follows, or in its place
    a `sigmoid`. A `note` says what else might be read.
    """

    node: int
    over: Reduction | None = None
    membrane: bool = False
    factor: float = 1.0
    softmax: bool = False
    sigmoid: bool = False
    where: str = ""
    note: str = ""


@dataclass(frozen=True)
class Node:
    """A module with its path and the nodes before it, whose sum it takes in order.

    `module` is None for the network's input, and for a sum. `where` is the author's line that calls it, which names
    it in a refusal where it is a function and no module of the network; `membrane` marks what holds a neuron's state,
    and `joins` a module that takes its sources one by one and not their sum.
    """

    path: str
    module: nn.Module | None
    sources: tuple[int, ...] = ()
    where: str = ""
    membrane: bool = False
    joins: bool = False


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run, the network's input first, and what is read.

    `repeats_input`: the network takes one sample, and gives it to its nodes at every step itself. `layout` says what
    its forward takes. `answer` runs that forward on inputs (time_steps, batch, *shape), None for
    modules in order.
    """

    nodes: tuple[Node, ...]
    readout: GraphReadout
    repeats_input: bool = False
    layout: str = ""
    answer: Callable[[Tensor], Tensor] | None = field(default=None, compare=False)

    @property
    def needed(self) -> list[int]:
        """The indices of the nodes that the answer depends on, in order, without the input."""
        needed = {self.readout.node}
        for index in range(len(self.nodes) - 1, INPUT, -1):
            if index in needed:
                needed |= set(self.nodes[index].sources)
        return sorted(needed - {INPUT})

    def users(self, index: int) -> int:
        """Return how many of the needed nodes take a node's output."""
        return sum(index in self.nodes[other].sources for other in self.needed)

    def terms(self, index: int) -> tuple[int, ...]:
        """Return the nodes whose outputs are added, from the first to the last, to give a node's output.

        Floating-point addition is commutative but not associative: of two terms the one that is a sum comes first. A
        sum of two sums has no such order and stays a term, for its first one to be a node of its own.
        """
        node = self.nodes[index]
        if index == INPUT or node.module is not None or node.membrane:
            return (index,)
        first, second = node.sources
        if self._is_sum(second) and not self._is_sum(first):
            first, second = second, first
        return (*self.terms(first), second)

    def _is_sum(self, index: int) -> bool:
        return index != INPUT and self.nodes[index].module is None and not self.nodes[index].membrane


class ModuleRun(NamedTuple):
    """What a module made of an input (time_steps, batch, *shape), and its membrane at each step where it shows one.

    `spikes` are those of a neuron whose output is a multiple of them.
    """

    output: Tensor
    membrane: Tensor | None = None
    spikes: Tensor | None = None


class StepValue(NamedTuple):
    """The output of a node at a step; None where it is the same at every step."""

    node: int
    step: int | None


DRAWN_START = "is given a state that begins at random; --start rest lets it begin at 0 instead"
PADDING = StepValue(-2, None)  # a step of zeros, before the first or behind the last


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


@dataclass(eq=False)
class Term:
    """One value of a step: what a node gives, a constant, a state's start, or a function of other terms.

    `value` is a node's value at a step, or a constant's or start's tensor or number. `axes` are None where no node's
    value is part of it. `site` and `path` are the instruction and the module that made it. `name` is the author's,
    where a variable holds it, and `random` what drew a start. What is `plain` depends on no state and does not fire,
    so that nodes give it too. `kept` is the tensor's version and the tensor itself, as long as its author holds it.
    """

    operation: str
    terms: tuple[Term, ...] = ()
    value: Any = None
    axes: Axes | None = None
    shape: tuple[int, ...] = ()
    site: Any = None
    where: str = ""
    name: str = ""
    random: str = ""
    boolean: bool = False
    plain: bool = False
    path: str = ""
    kept: Any = field(default=None, repr=False)

    @property
    def is_leaf(self) -> bool:
        """Whether it is no function of others."""
        return not self.terms

    @property
    def bare(self) -> Term:
        """The term without what only stops its gradient."""
        return self.terms[0].bare if self.operation == "detach" else self


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
