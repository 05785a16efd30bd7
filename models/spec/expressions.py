"""One step of a neuron as a graph of expressions: operations on float32 values, each of which rounds once.

An `Expression` is an operation and its operands. What is made twice of the same operands is one object, so that it is
computed once. What each operation computes is `models.neurons.operations`; every engine has one row for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from threading import Lock
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

Number: TypeAlias = "Expression | float"

# The operations, and how many operands each takes; `constant` and `leaf` have none.
ARITY: Mapping[str, int] = {
    **dict.fromkeys(("neg", "abs", "exp", "sqrt", "floor", "trunc", "hold"), 1),
    **dict.fromkeys(("+", "-", "*", "/", ">", ">=", "==", "minimum", "maximum"), 2),
    **dict.fromkeys(("fire", "fire_above", "fire_multiple"), 2),
    "select": 3,
}
FIRES = ("fire", "fire_above", "fire_multiple")


@dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """An operation and its operands; `detail` is a leaf's name or a constant's number."""

    operation: str
    operands: tuple[Expression, ...] = ()
    detail: str | float | None = None

    def __add__(self, other: Number) -> Expression:
        return made("+", self, other)

    def __radd__(self, other: Number) -> Expression:
        return made("+", other, self)

    def __sub__(self, other: Number) -> Expression:
        return made("-", self, other)

    def __rsub__(self, other: Number) -> Expression:
        return made("-", other, self)

    def __mul__(self, other: Number) -> Expression:
        return made("*", self, other)

    def __rmul__(self, other: Number) -> Expression:
        return made("*", other, self)

    def __truediv__(self, other: Number) -> Expression:
        return made("/", self, other)

    def __rtruediv__(self, other: Number) -> Expression:
        return made("/", other, self)

    def of(self, operands: Sequence[Expression]) -> Expression:
        """Make the same expression of other operands."""
        return _one(self.operation, tuple(operands), self.detail)

    def __neg__(self) -> Expression:
        return made("neg", self)

    def __abs__(self) -> Expression:
        return made("abs", self)

    def __pow__(self, power: int) -> Expression:
        if not isinstance(power, int) or power < 1:
            raise TypeError(f"a power is {power}, expected a whole number above 0")
        result = self
        for _ in range(power - 1):
            result = result * self
        return result

    # What surrogate gradients ask of a tensor, under its names.

    def abs(self) -> Expression:
        """Drop the sign."""
        return made("abs", self)

    def clamp(self, *, min: float) -> Expression:  # noqa: A002  (PyTorch's name)
        """Give the least value in place of what is less."""
        return made("maximum", self, min)

    def sigmoid(self) -> Expression:
        """Apply the logistic function, which no step has, but gradients do."""
        return made("sigmoid", self)

    def __gt__(self, other: Number) -> Expression:
        return made(">", self, other)

    def __ge__(self, other: Number) -> Expression:
        return made(">=", self, other)

    def __lt__(self, other: Number) -> Expression:
        return made(">", other, self)

    def __le__(self, other: Number) -> Expression:
        return made(">=", other, self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a value of a step is no yes or no, expected select(condition, yes, no) instead of an if, "
            "and minimum or maximum instead of min or max"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Real):
            raise TypeError("== gives no value of a step, expected equal(first, second)")
        return self is other

    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy leaves `number * expression` to the expression, and refuses all else

    # There is one of each: a copy, or what is read of a pickle, is the same.

    def __deepcopy__(self, _: object) -> Expression:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _one, (self.operation, self.operands, self.detail)


_every: WeakValueDictionary[tuple[object, ...], Expression] = WeakValueDictionary()
_lock = Lock()


def _one(operation: str, operands: tuple[Expression, ...] = (), detail: str | float | None = None) -> Expression:
    # A constant's sign counts: 0.0 == -0.0.
    key = (operation, operands, detail, math.copysign(1.0, detail) if isinstance(detail, float) else None)
    with _lock:  # or two threads that read bundles would each make one, and a program would not find its own
        return _every.setdefault(key, Expression(operation, operands, detail))


def made(operation: str, *operands: Number) -> Expression:
    """Make the expression of an operation; a number becomes a constant."""
    return _one(operation, tuple(each if isinstance(each, Expression) else constant(each) for each in operands))


def leaf(name: str) -> Expression:
    """Make an expression for what is given by that name: a state, a parameter, the current or the feedback."""
    return _one("leaf", (), name)


def constant(number: float) -> Expression:
    """Make an expression of a number, which an engine rounds to the nearest float32; raises TypeError for none."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{str(number)[:40]} is no number, expected one, or a value of the step")
    return _one("constant", (), float(number))


def minimum(first: Number, second: Number) -> Expression:
    """Give the first where it is less than the second, else the second."""
    return made("minimum", first, second)


def maximum(first: Number, second: Number) -> Expression:
    """Give the first where it is greater than the second, else the second."""
    return made("maximum", first, second)


def select(condition: Number, yes: Number, no: Number) -> Expression:
    """Choose `yes` where the condition is above 0, else `no`."""
    return made("select", condition, yes, no)


def equal(first: Number, second: Number) -> Expression:
    """Give 1 where two values are equal, else 0."""
    return made("==", first, second)


def exp(value: Number) -> Expression:
    """Raise e to the power of a value, as `models.spec.exponential` defines it to the bit."""
    return made("exp", value)


def sqrt(value: Number) -> Expression:
    """Take the square root; of a negative number that is NaN, and of -0 it is -0."""
    return made("sqrt", value)


def floor(value: Number) -> Expression:
    """Give the greatest whole number that is not above a value."""
    return made("floor", value)


def trunc(value: Number) -> Expression:
    """Drop the fraction of a value."""
    return made("trunc", value)


def fire(charged: Number, threshold: Number) -> Expression:
    """Give 1 where what is charged reaches the threshold, else 0; training gives it a surrogate gradient."""
    return made("fire", charged, threshold)


def fire_above(charged: Number, threshold: Number) -> Expression:
    """Give 1 where what is charged is above the threshold, else 0; training gives it a surrogate gradient."""
    return made("fire_above", charged, threshold)


def fire_multiple(charged: Number, threshold: Number) -> Expression:
    """Count the whole thresholds that are charged, where both are positive, else 0; it has a surrogate gradient too."""
    return made("fire_multiple", charged, threshold)


def hold(value: Number) -> Expression:
    """Give the value itself, through which training passes no gradient."""
    return made("hold", value)


def in_order(roots: Iterable[Expression]) -> list[Expression]:
    """List every expression that `roots` are made of, each once, operands first."""
    ordered: list[Expression] = []
    evaluate([*roots], {}, lambda each, _: ordered.append(each))
    return ordered


Value = TypeVar("Value")


def evaluate(
    roots: Sequence[Expression],
    known: Mapping[Expression, Value],
    compute: Callable[[Expression, Sequence[Value]], Value],
) -> list[Value]:
    """Compute the values of `roots` from what is `known`, by `compute(expression, values of its operands)`."""
    values = dict(known)
    waiting = [*roots][::-1]
    while waiting:
        expression = waiting.pop()
        if expression in values:
            continue
        if missing := [each for each in expression.operands if each not in values]:
            waiting += [expression, *reversed(missing)]
        else:
            values[expression] = compute(expression, [values[each] for each in expression.operands])
    return [values[root] for root in roots]
