"""The equations of a step as a graph of expressions, which any backend can write out in its own language.

The rules of `models.neurons` and the surrogates of `training.fit.surrogate` are written for anything that has +, -, *
and /. Here that is an `Expression`: an operation and its operands. What is made twice of the same operands is one
object, so that a backend computes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar

import torch

from spikeserve.models.spec.nodes import Fire

Number: TypeAlias = "Expression | float"


@dataclass(frozen=True, eq=False)
class Expression:
    """An operation, its operands, and what else it needs: a leaf's name, a constant's number, a fire rule.

    The operations: leaf, constant, +, -, *, /; fire (charged, threshold); select (where the first is above 0, the
    second, else the third); held (the first, through which no gradient passes); positive (0 in place of what is less);
    exponential (as the spec defines it); abs; sigmoid; nearest (how many whole thresholds are nearest to what is
    charged, at least 1).
    """

    operation: str
    operands: tuple[Expression, ...] = ()
    detail: Any = None

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

    def __pow__(self, power: int) -> Expression:
        result = self
        for _ in range(power - 1):
            result = result * self
        return result

    def abs(self) -> Expression:
        """Return the value without its sign."""
        return made("abs", self)

    def clamp(self, *, min: int) -> Expression:  # noqa: A002  (PyTorch's name)
        """Return the value, and 0 in place of what is less."""
        if min != 0:
            raise ValueError(f"clamp: min is {min}, expected 0")
        return made("positive", self)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Expression:
        """Stand in for a tensor in the one function of PyTorch's that the surrogates call."""
        if function is not torch.sigmoid or kwargs:
            raise TypeError(f"no expression for {function}")
        return made("sigmoid", args[0])


@cache
def _one(operation: str, operands: tuple[Expression, ...], detail: Any) -> Expression:
    return Expression(operation, operands, detail)


def made(operation: str, *operands: Number, detail: Any = None) -> Expression:
    """Return the expression of an operation; a number becomes a constant."""
    every = (operand if isinstance(operand, Expression) else constant(operand) for operand in operands)
    return _one(operation, tuple(every), detail)


def leaf(name: str) -> Expression:
    """Return what a backend loads by that name."""
    return _one("leaf", (), name)


def constant(number: float) -> Expression:
    """Return a number."""
    return _one("constant", (), float(number))


@dataclass(frozen=True)
class ExpressionArithmetic:
    """How expressions fire, for the equations."""

    detach_reset: bool = True

    def fire(self, charged: Expression, threshold: Expression, rule: Fire) -> Expression:
        """Return the spikes."""
        return made("fire", charged, threshold, detail=rule)

    def select(self, spikes: Expression, fired: Expression, silent: Expression) -> Expression:
        """Return `fired` where there is a spike, else `silent`."""
        return made("select", spikes, fired, silent)

    def held(self, spikes: Expression) -> Expression:
        """Return the spikes as the reset sees them."""
        return made("held", spikes) if self.detach_reset else spikes

    def positive(self, values: Expression) -> Expression:
        """Return the values, with 0 in place of negative ones."""
        return made("positive", values)

    def waiting(self, counter: Expression) -> Expression:
        """Return 1 where a counter is above 0, else 0."""
        return made("held", made("fire", counter, counter - counter, detail=Fire.ABOVE_THRESHOLD))

    def still(self, values: Expression) -> Expression:
        """Return the values, through which no gradient passes."""
        return made("held", values)

    def exponential(self, values: Expression) -> Expression:
        """Return e to the power of the values."""
        return made("exponential", values)


def in_order(roots: Iterable[Expression]) -> list[Expression]:
    """Return every expression that `roots` are made of, operands first."""
    found: dict[Expression, None] = {}

    def visit(expression: Expression) -> None:
        if expression not in found:
            for operand in expression.operands:
                visit(operand)
            found[expression] = None

    for root in roots:
        visit(root)
    return list(found)


Value = TypeVar("Value")


def evaluate(
    roots: Sequence[Expression],
    known: Mapping[Expression, Value],
    compute: Callable[[Expression, Sequence[Value]], Value],
) -> list[Value]:
    """Return the values of `roots`: what is `known`, and what `compute` makes of an expression and its operands."""
    values: dict[Expression, Value] = dict(known)

    def value(expression: Expression) -> Value:
        if expression not in values:
            operands = [value(operand) for operand in expression.operands]
            values[expression] = compute(expression, operands)
        return values[expression]

    return [value(root) for root in roots]
