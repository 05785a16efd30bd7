"""The backward pass of a step, derived from its forward pass: reverse-mode differentiation of expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from spikeserve.models.neurons import NeuronLayer, NeuronState, at_rest
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import Fire, Neuron, Spiking
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators.expressions import (
    Expression,
    ExpressionArithmetic,
    constant,
    in_order,
    leaf,
    made,
)
from spikeserve.training.fit.surrogate import DERIVATIVES

CURRENT, FEEDBACK, SLOPE, TO_LEAVING = leaf("current"), leaf("feedback"), leaf("slope"), leaf("gradient.leaving")
SPIKES = "spikes"  # the state that is no summand of a step: a recurrent layer hears it as its feedback


@dataclass(frozen=True)
class Rule:
    """What a step's code depends on, and so what kernels are compiled for.

    `node` has no name, and "per_neuron" for each parameter that changes anything; `trained` are the parameters that a
    gradient is wanted of, and `surrogate` is None where no gradient is.
    """

    node: Neuron
    trained: tuple[str, ...] = ()
    surrogate: Surrogate | None = None
    detach_reset: bool = True

    @classmethod
    def of(
        cls,
        node: Neuron,
        trained: Iterable[str] = (),
        surrogate: Surrogate | None = None,
        detach_reset: bool = True,
    ) -> Rule:
        """Return the rule of a node."""
        trained = tuple(sorted(trained))
        general: dict[str, object] = {"name": "neuron", "inputs": None}
        for name, parameter in NEURON_PARAMETERS.items():
            value = getattr(node, name, None)
            if name in trained or (value is not None and value != parameter.neutral):
                general[name] = PER_NEURON
        return cls(node.model_copy(update=general), trained, surrogate, detach_reset)


@dataclass(frozen=True)
class Step:
    """One step of a layer and its gradients, as expressions.

    Forward, from the leaves `current`, `feedback` (of a recurrent layer), the states before and the parameters:
    `leaving` and the states after. Backward, from the gradients of those and from what the forward pass stored: the
    gradients of the current, the feedback, the states before, and the trained parameters. The gradients that come in
    are the leaves `gradient.leaving` and `gradient.<state>`.
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
        node, used = rule.node, dict[str, None]()

        def parameter(name: str) -> Expression:
            used[name] = None
            return leaf(name)

        recurrent = isinstance(node, Spiking) and node.recurrent is not None
        layer = NeuronLayer[Expression].of(
            node, parameter, ExpressionArithmetic(rule.detach_reset), lambda _, __: FEEDBACK
        )
        rest = at_rest(node, leaf, constant(0.0))._asdict()
        states = tuple(name for name, value in rest.items() if value is not None and name != SPIKES)
        before = {name: leaf(name) for name in states}
        leaving, last = layer.step(NeuronState(**before, **({SPIKES: None} if recurrent else {})), CURRENT, True)
        after = tuple(getattr(last, name) for name in states)
        known = set(in_order([leaving, *after]))
        parameters = tuple(name for name in used if leaf(name) in known)
        gradients = _gradients([(leaving, TO_LEAVING), *zip(after, _to(states), strict=True)], rule)

        def to(name: str) -> Expression:
            return gradients.get(leaf(name), constant(0.0))

        to_before = tuple(map(to, states))
        trained = tuple(name for name in rule.trained if name in parameters)
        to_trained = tuple(map(to, trained))
        to_current, to_feedback = to("current"), to("feedback") if recurrent else None
        wanted = [to_current, *to_before, *to_trained, *([to_feedback] if to_feedback else [])]
        given = {*map(leaf, parameters), SLOPE, TO_LEAVING, *_to(states)}
        stored = _fewest(wanted, known, given)
        return cls(states, parameters, trained, leaving, after, stored, to_current, to_feedback, to_before, to_trained)


def _to(states: Iterable[str]) -> list[Expression]:
    return [leaf(f"gradient.{name}") for name in states]


def _gradients(outputs: Sequence[tuple[Expression, Expression]], rule: Rule) -> Mapping[Expression, Expression]:
    """Return the gradient of everything that `outputs` are made of, each of which comes with its own."""
    gradients: dict[Expression, Expression] = {}

    def add(expression: Expression, gradient: Expression) -> None:
        present = gradients.get(expression)
        gradients[expression] = gradient if present is None else present + gradient

    for output, gradient in outputs:
        add(output, gradient)
    for expression in reversed(in_order(output for output, _ in outputs)):
        if expression in gradients and expression.operation in BACKWARD:
            BACKWARD[expression.operation](expression, gradients[expression], add, rule)
    return gradients


Add = Callable[[Expression, Expression], None]
ZERO = constant(0.0)


def _plus(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    for operand in expression.operands:
        add(operand, gradient)


def _minus(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    first, second = expression.operands
    add(first, gradient)
    add(second, ZERO - gradient)


def _times(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    first, second = expression.operands
    add(first, gradient * second)
    add(second, gradient * first)


def _divided(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    first, second = expression.operands
    add(first, gradient / second)
    add(second, ZERO - gradient * expression / second)


def _fire(expression: Expression, gradient: Expression, add: Add, rule: Rule) -> None:
    """Add the surrogate's derivative, centred on the threshold, or on its multiple that is nearest."""
    if rule.surrogate is None:
        return
    charged, threshold = expression.operands
    several = expression.detail is Fire.MULTIPLE
    nearest = made("nearest", charged, threshold) if several else constant(1.0)
    centre = nearest * threshold if several else threshold
    to_charged = gradient * DERIVATIVES[rule.surrogate](charged - centre, SLOPE)  # type: ignore[arg-type, operator]
    add(charged, to_charged)
    add(threshold, ZERO - (to_charged * nearest if several else to_charged))


def _select(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    spikes, fired, silent = expression.operands
    add(spikes, gradient * (fired - silent))
    add(fired, made("select", spikes, gradient, ZERO))
    add(silent, made("select", spikes, ZERO, gradient))


def _positive(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    add(expression.operands[0], made("select", expression, gradient, ZERO))


def _exponential(expression: Expression, gradient: Expression, add: Add, _: Rule) -> None:
    add(expression.operands[0], gradient * expression)


# What each operation adds to the gradients of its operands; no gradient passes what is held, and leaves have none.
BACKWARD: Mapping[str, Callable[[Expression, Expression, Add, Rule], None]] = {
    "+": _plus,
    "-": _minus,
    "*": _times,
    "/": _divided,
    "fire": _fire,
    "select": _select,
    "positive": _positive,
    "exponential": _exponential,
}


def _fewest(wanted: Sequence[Expression], known: set[Expression], given: set[Expression]) -> tuple[Expression, ...]:
    """Return the fewest expressions of the forward pass from which, with what is `given`, all `wanted` follow.

    Each is stored for every step of every neuron, and memory is what a scan waits for.
    """

    def follows(stored: tuple[Expression, ...]) -> bool:
        seen: set[Expression] = set()
        waiting = list(wanted)
        while waiting:
            expression = waiting.pop()
            if expression in seen or expression in given or expression in stored:
                continue
            seen.add(expression)
            if expression.operation == "leaf":
                return False
            waiting += expression.operands
        return True

    candidates = [
        each
        for each in reversed(in_order(wanted))
        if each in known and each not in given and each.operation not in ("constant", "held")
    ]
    for size in range(len(candidates) + 1):
        for chosen in combinations(candidates, size):
            if follows(chosen):
                return chosen
    raise AssertionError("the leaves of a step are among the candidates")
