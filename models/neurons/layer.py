"""A layer of neurons through time, once for every engine that computes with whole arrays.

At each step a recurrent layer first hears its own spikes of the step before, which at the first step since rest are
none: they come back as the program's `feedback`. A recurrent bias counts from the first step on, or from the second
(`recurrent.bias_at_start`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from spikeserve.models.spec.expressions import Expression, in_order, leaf
from spikeserve.models.spec.nodes import Neuron
from spikeserve.models.spec.program import CURRENT, FEEDBACK, SPIKES, Program

Array = TypeVar("Array", bound=Any)  # a NumPy array, a tensor, a graph's value

# The state of a layer between two steps, by name: the program's states, and a recurrent layer's last `spikes`.
NeuronState: TypeAlias = Mapping[str, Any]
Operations: TypeAlias = Mapping[str, Callable[..., Any]]
Parameters: TypeAlias = Callable[[str], Any]  # a parameter's name -> its value in the engine's kind of array

# (spikes of the step before, whether the bias counts) -> the current that they send back, of the same shape. Whether
# the bias counts is true or false for all samples or for each (batch, 1), and 1 or 0 in a value where a step becomes a
# graph.
Recurrence: TypeAlias = Callable[[Array, Any], Array]


class StepResult(NamedTuple):
    """What one step gives: what leaves, the membrane after it, and the state."""

    leaving: Any
    membrane: Any
    state: NeuronState


def at_rest(node: Neuron, program: Program, parameters: Parameters, zeros: Array) -> dict[str, Array]:
    """Make a layer's state before the first step; `zeros` has the state's shape (batch, *shape)."""

    def start(value: Expression) -> Any:
        if value.operation == "leaf":
            return zeros + parameters(str(value.detail))
        return zeros + value.detail if value.detail else zeros

    state = {name: start(value) for name, value in program.starts.items()}
    return state if node.recurrent is None else {**state, SPIKES: zeros}


def counts_steps(node: Neuron) -> bool:
    """Tell whether a layer's first step since rest differs from the others by more than its state."""
    return node.recurrent is not None and not node.recurrent.bias_at_start


@dataclass(frozen=True)
class NeuronLayer(Generic[Array]):
    """A layer in one kind of array, whose `operations` and `constant` say how to compute with it.

    `recur` is its recurrent connection, where it has one.
    """

    program: Program
    parameters: Parameters
    operations: Operations
    constant: Callable[[float], Any]
    recur: Recurrence[Array] | None = None
    counts_steps: bool = False

    def step(self, state: NeuronState, current: Array, begun: Any) -> StepResult:
        """Take one step on from `state`.

        `begun`: whether there was a step since rest, true or false for all samples or for each (batch, 1), or 1 or 0
        in a graph's value.
        """
        schedule, values = self._schedule, self._fixed.copy()
        for name, place in schedule.states:
            values[place] = state[name]
        values[schedule.current] = current
        if self.recur is not None:
            values[schedule.feedback] = self.recur(state[SPIKES], begun if self.counts_steps else True)
        for place, operation, operands in self._changing:
            values[place] = operation(*[values[operand] for operand in operands])
        leaving = values[schedule.leaving]
        after = {name: values[place] for name, place in schedule.after}
        if self.recur is not None:
            after[SPIKES] = leaving
        return StepResult(leaving, values[schedule.membrane], after)

    def scan(self, state: NeuronState, currents: Iterable[Array], begun: Any) -> Iterator[StepResult]:
        """Take a step for each of `currents`, on from `state`."""
        for current in currents:
            stepped = self.step(state, current, begun)
            yield stepped
            state, begun = stepped.state, True

    @cached_property
    def _schedule(self) -> _Schedule:
        return _Schedule.of(self.program)

    @cached_property
    def _fixed(self) -> list[Any]:
        """The values that no step changes, each in its place, and None in the others."""
        values: list[Any] = [None] * self._schedule.size
        for place, number in self._schedule.constants:
            values[place] = self.constant(number)
        for place, name in self._schedule.parameters:
            values[place] = self.parameters(name)
        for place, operation, operands in self._schedule.once:
            values[place] = self.operations[operation](*[values[operand] for operand in operands])
        return values

    @cached_property
    def _changing(self) -> list[tuple[int, Callable[..., Any], list[int]]]:
        return [(place, self.operations[operation], operands) for place, operation, operands in self._schedule.each]


@dataclass(frozen=True)
class _Schedule:
    """A program as places in a list of values, and the operations in the order in which they fill them.

    An operation is its place, its name and the places of its operands. What is computed from parameters and constants
    alone is computed `once`, and the rest at `each` step.
    """

    size: int
    states: list[tuple[str, int]]
    constants: list[tuple[int, float]]
    parameters: list[tuple[int, str]]
    once: list[tuple[int, str, list[int]]]
    each: list[tuple[int, str, list[int]]]
    after: list[tuple[str, int]]
    leaving: int
    membrane: int
    current: int = 0
    feedback: int = 1

    @classmethod
    @lru_cache(256)
    def of(cls, program: Program) -> _Schedule:
        """Lay out a program."""
        changing = [leaf(CURRENT), leaf(FEEDBACK), *map(leaf, program.states)]
        order = [*changing, *(each for each in in_order(program.roots) if each not in changing)]
        places = {expression: place for place, expression in enumerate(order)}
        once, each = list[tuple[int, str, list[int]]](), list[tuple[int, str, list[int]]]()
        for expression in order:
            if expression.operands:
                varies = not {*changing}.isdisjoint(expression.operands)
                changing += [expression] if varies else []
                operation = (places[expression], expression.operation, [places[of] for of in expression.operands])
                (each if varies else once).append(operation)
        return cls(
            len(order),
            [(name, places[leaf(name)]) for name in program.states],
            [(places[of], float(of.detail or 0.0)) for of in order if of.operation == "constant"],
            [(places[leaf(name)], name) for name in program.parameters if leaf(name) in places],
            once,
            each,
            [(name, places[value]) for name, value in program.after.items()],
            places[program.leaving],
            places[program.membrane],
        )
