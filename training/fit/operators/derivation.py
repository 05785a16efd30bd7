"""The backward pass of a step, derived from its forward pass: reverse-mode differentiation of expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

from spikeserve.models.neurons import once, program_of
from spikeserve.models.spec.expressions import FIRES, Expression, constant, in_order, leaf, made, select
from spikeserve.models.spec.neuron_parameters import NEUTRAL
from spikeserve.models.spec.nodes import Neuron
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.models.spec.program import CURRENT as ARRIVING
from spikeserve.models.spec.program import FEEDBACK as COMING_BACK
from spikeserve.models.spec.program import Program
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.surrogate import DERIVATIVES

CURRENT, FEEDBACK, SLOPE, TO_LEAVING = leaf(ARRIVING), leaf(COMING_BACK), leaf("slope of"), leaf("gradient of leaving")
ZERO = constant(0.0)
MOST_COMBINATIONS = 20_000  # of so many values that are tried; beyond, what a step reads is stored


@dataclass(frozen=True)
class Rule:
    """What a step's code depends on, and so what functions are made for.

    `trained` are the parameters that a gradient is wanted of, and `surrogate` is None where no gradient is.
    """

    program: Program
    trained: tuple[str, ...] = ()
    surrogate: Surrogate | None = None

    @cached_property
    def starts_elsewhere(self) -> bool:
        """Whether a state at rest is anything but 0."""
        return any(start.operation == "leaf" or start.detail for start in self.program.starts.values())


@once
def general(node: Neuron, trained: tuple[str, ...]) -> Neuron:
    """Copy a node with "per_neuron" for all parameters that change anything or are trained.

    The equations leave no such parameter out, as they do with a gain of 1.
    """
    values = node.values().items()
    return node.with_values(
        {name: PER_NEURON for name, value in values if name in trained or value != NEUTRAL.get(name)}
    )


@once
def rule_of(
    node: Neuron, trained: tuple[str, ...] = (), surrogate: Surrogate | None = None, *, detach_reset: bool = True
) -> Rule:
    """Make the rule of a node."""
    return Rule(program_of(general(node, trained), detach_reset=detach_reset), trained, surrogate)


@dataclass(frozen=True)
class Step:
    """One step of a layer and its gradients, as expressions.

    Forward, from the leaves `current`, `feedback` (of a recurrent layer), the states before and the parameters:
    `leaving` and the states after. Backward, from the gradients of those and from what the forward pass stored: the
    gradients of the current, the feedback, the states before, and the trained parameters. The gradients that come in
    are the leaves TO_LEAVING and `gradient_of` each state.
    """

    states: tuple[str, ...]
    parameters: tuple[str, ...]
    trained: tuple[str, ...]
    leaving: Expression
    after: tuple[Expression, ...]
    stored: tuple[Expression, ...]
    to_current: Expression
    to_feedback: Expression | None
    to_before: tuple[Expression, ...]
    to_trained: tuple[Expression, ...]

    @classmethod
    def of(cls, rule: Rule) -> Step:
        """Derive the step of a rule."""
        program = rule.program
        states, leaving, after = program.states, program.leaving, tuple(program.after.values())
        known = set(in_order([leaving, *after]))
        parameters = tuple(name for name in program.parameters if leaf(name) in known)
        gradients = _gradients([(leaving, TO_LEAVING), *zip(after, map(gradient_of, states), strict=True)], rule)

        def to(name: str) -> Expression:
            return gradients.get(leaf(name), constant(0.0))

        to_before = tuple(map(to, states))
        trained = tuple(name for name in rule.trained if name in parameters)
        to_trained = tuple(map(to, trained))
        to_current, to_feedback = to(ARRIVING), to(COMING_BACK) if program.hears_itself else None
        outputs = [to_current, *to_before, *to_trained, *([] if to_feedback is None else [to_feedback])]
        inputs = {*map(leaf, parameters), SLOPE, TO_LEAVING, *map(gradient_of, states)}
        stored = _fewest(outputs, known, inputs)
        return cls(states, parameters, trained, leaving, after, stored, to_current, to_feedback, to_before, to_trained)


def gradient_of(state: str) -> Expression:
    """Make the leaf of a state's gradient, a name that no state and no parameter has."""
    return leaf(f"gradient of state {state}")


def _gradients(outputs: Sequence[tuple[Expression, Expression]], rule: Rule) -> Mapping[Expression, Expression]:
    """Return the gradient of everything that `outputs` are made of, each of which comes with its own."""
    gradients: dict[Expression, Expression] = {}

    def add(expression: Expression, gradient: Expression) -> None:
        present = gradients.get(expression)
        gradients[expression] = gradient if present is None else present + gradient

    for output, gradient in outputs:
        add(output, gradient)
    for result in reversed(in_order(output for output, _ in outputs)):
        to_result, backward, passed = gradients.get(result), BACKWARD.get(result.operation), tuple[Expression, ...]()
        if to_result is None:
            continue
        if result.operation in FIRES:
            passed = _of_fire(result, to_result, rule)
        elif backward is not None:
            passed = backward(to_result, result, *result.operands)
        for operand, to_operand in zip(result.operands, passed, strict=False):
            if to_operand is not ZERO:
                add(operand, to_operand)
    return gradients


def _of_fire(expression: Expression, gradient: Expression, rule: Rule) -> tuple[Expression, ...]:
    """Take the surrogate's derivative, centred on the threshold, or on its multiple that is nearest."""
    if rule.surrogate is None:
        return ()
    charged, threshold = expression.operands
    several = expression.operation == "fire_multiple"
    nearest = made("nearest", charged, threshold) if several else constant(1.0)
    centre = nearest * threshold if several else threshold
    to_charged = gradient * DERIVATIVES[rule.surrogate](charged - centre, SLOPE)
    return to_charged, ZERO - (to_charged * nearest if several else to_charged)


def _chosen(condition: Expression, gradient: Expression) -> tuple[Expression, Expression]:
    """Give the gradient to the first of two values where the condition holds, else to the second."""
    return select(condition, gradient, ZERO), select(condition, ZERO, gradient)


def _to_condition(condition: Expression, gradient: Expression) -> Expression:
    """Give the gradient to spikes, which have a surrogate, and to no other condition: it is cut to above 0 or not."""
    return gradient if condition.operation in FIRES else ZERO


# The gradients of an operation's operands, from that of its result, the result and the operands. None passes what is
# held, a comparison, or what is cut to whole numbers.
BACKWARD: Mapping[str, Callable[..., tuple[Expression, ...]]] = {
    "+": lambda to, _, __, ___: (to, to),
    "-": lambda to, _, __, ___: (to, ZERO - to),
    "*": lambda to, _, first, second: (to * second, to * first),
    "/": lambda to, result, _, second: (to / second, ZERO - to * result / second),
    "neg": lambda to, _, __: (ZERO - to,),
    "abs": lambda to, _, value: (select(value, to, select(value < ZERO, ZERO - to, ZERO)),),
    "minimum": lambda to, _, first, second: _chosen(second > first, to),
    "maximum": lambda to, _, first, second: _chosen(first > second, to),
    "select": lambda to, _, condition, yes, no: (_to_condition(condition, to * (yes - no)), *_chosen(condition, to)),
    "exp": lambda to, result, _: (to * result,),
    "sqrt": lambda to, result, _: (to / (result + result),),
}


def _fewest(outputs: Sequence[Expression], known: set[Expression], inputs: set[Expression]) -> tuple[Expression, ...]:
    """Return the fewest expressions of the forward pass from which, with the `inputs`, all `outputs` follow.

    Each is stored for every step of every neuron, and memory is what a scan waits for.
    """

    def follows(stored: tuple[Expression, ...]) -> bool:
        seen = inputs.union(stored)
        waiting = list(outputs)
        while waiting:
            expression = waiting.pop()
            if expression in seen:
                continue
            seen.add(expression)
            if expression.operation == "leaf":
                return False
            waiting += expression.operands
        return True

    candidates = [
        each
        for each in reversed(in_order(outputs))
        if each in known and each not in inputs and each.operation not in ("constant", "hold")
    ]
    leaves = tuple(each for each in candidates if each.operation == "leaf")  # from which all follows
    for size in range(len(leaves)):
        if comb(len(candidates), size) > MOST_COMBINATIONS:
            break
        for chosen in combinations(candidates, size):
            if follows(chosen):
                return chosen
    return leaves
