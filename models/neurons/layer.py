"""A layer of neurons through time, once for every engine that computes with whole arrays.

At each step a recurrent layer first hears its own spikes of the step before, which at the first step since rest are
none: they come back as the program's `feedback`. A recurrent bias counts from the first step on, or from the second
(`recurrent.bias_at_start`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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


CURRENTS, COMING_BACK = leaf(CURRENT), leaf(FEEDBACK)


class Stepped(NamedTuple):
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

    def step(self, state: NeuronState, current: Array, begun: Any) -> Stepped:
        """Take one step on from `state`.

        `begun`: whether there was a step since rest, true or false for all samples or for each (batch, 1), or 1 or 0
        in a graph's value.
        """
        values = {**self._fixed, **{place: state[name] for name, place in self._places.items()}, CURRENTS: current}
        if self.recur is not None:
            values[COMING_BACK] = self.recur(state[SPIKES], begun if self.counts_steps else True)
        for each in self._changing:
            values[each] = self.operations[each.operation](*[values[operand] for operand in each.operands])
        leaving = values[self.program.leaving]
        after = {name: values[value] for name, value in self.program.after.items()}
        if self.recur is not None:
            after[SPIKES] = leaving
        return Stepped(leaving, values[self.program.membrane], after)

    def scan(self, state: NeuronState, currents: Iterable[Array], begun: Any) -> Iterator[Stepped]:
        """Take a step for each of `currents`, on from `state`."""
        for current in currents:
            stepped = self.step(state, current, begun)
            yield stepped
            state, begun = stepped.state, True

    @cached_property
    def _places(self) -> dict[str, Expression]:
        return {name: leaf(name) for name in self.program.states}

    @cached_property
    def _fixed(self) -> dict[Expression, Any]:
        """What no step changes: the parameters, the constants, and what is computed from these alone."""
        fixed: dict[Expression, Any] = {}
        given = {CURRENT, FEEDBACK, *self.program.states}
        for each in in_order(self.program.roots):
            if each.operation == "leaf":
                if each.detail not in given:
                    fixed[each] = self.parameters(str(each.detail))
            elif each.operation == "constant":
                fixed[each] = self.constant(float(each.detail or 0.0))
            elif all(operand in fixed for operand in each.operands):
                fixed[each] = self.operations[each.operation](*[fixed[operand] for operand in each.operands])
        return fixed

    @cached_property
    def _changing(self) -> list[Expression]:
        """The operations of a step, in order."""
        return [each for each in in_order(self.program.roots) if each.operands and each not in self._fixed]
