"""What an author's own neuron computes: the terms of a step, and what each function of torch is there.

Each element-wise function of torch is a row: how it runs, and the operations of a program that it is written as. What
PyTorch rounds otherwise than a program can (`lerp`, `addcmul`, an `alpha`) is refused, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spikeserve.models.spec.expressions import Expression, exp, floor, made, maximum, minimum, select, trunc
from spikeserve.models.spec.program import InvalidProgram

SOURCE, CONSTANT, START = "source", "constant", "start"
NOTHING = "nothing"  # an argument that is left out
JOINED = "joined"  # what stands beside a state of the step before


class Elementwise(NamedTuple):
    """A function of torch: its parameters, how it runs on float32, and how a program writes it.

    `boolean` marks what gives only 0 and 1.
    """

    names: tuple[str, ...]
    run: Callable[..., Tensor]
    write: Callable[..., Expression]
    boolean: bool = False


def _compared(operation: str, run: Callable[..., Tensor], *, swapped: bool = False) -> Elementwise:
    def write(one: Expression, other: Expression) -> Expression:
        return made(operation, other, one) if swapped else made(operation, one, other)

    return Elementwise(("input", "other"), run, write, boolean=True)


def _plain(operation: str, run: Callable[..., Tensor], *names: str) -> Elementwise:
    return Elementwise(names or ("input", "other"), run, lambda *values: made(operation, *values))


def _differs(one: Expression, other: Expression) -> Expression:
    return made("==", made("==", one, other), 0.0)


def _clamped(value: Expression, low: Expression | None = None, high: Expression | None = None) -> Expression:
    value = value if low is None else maximum(value, low)
    return value if high is None else minimum(value, high)


def _power(value: Expression, exponent: Expression) -> Expression:
    if exponent.detail not in (2.0, 3.0):
        raise InvalidProgram("raises to another power than 2 or 3, which a neuron's step has not")
    return value ** int(exponent.detail)


def _rounded(value: Expression) -> Expression:
    """Write a rounding to the nearest whole number, and of two as near to the even one."""
    below = floor(value)
    over, odd = value - below, below - 2.0 * floor(below * 0.5)
    return below + ((over > 0.5) + made("==", over, 0.5) * odd)


def _leaky(value: Expression, slope: Expression | float = 0.01) -> Expression:
    return select(value > 0.0, value, value * slope)


def _step(value: Expression, at_zero: Expression) -> Expression:
    if at_zero.detail in (0.0, 1.0):
        return value >= 0.0 if at_zero.detail else value > 0.0
    return select(made("==", value, 0.0), at_zero, value > 0.0)


def _chosen(condition: Expression, one: Expression, other: Expression) -> Expression:
    return condition if (one.detail, other.detail) == (1.0, 0.0) else select(condition, one, other)


def _without(name: str) -> Elementwise:
    """Return the row of a function that a program has not: a surrogate gradient may hold it, if it cancels out."""

    def write(*_: Expression) -> Expression:
        raise InvalidProgram(f"torch.{name} has no operation in a neuron's step")

    return Elementwise(("input",), getattr(torch, name), write)


_BOTH = ("input", "other")

ELEMENTWISE: dict[str, Elementwise] = {
    "add": _plain("+", torch.add),
    "sub": _plain("-", torch.sub),
    "mul": _plain("*", torch.mul),
    "div": _plain("/", torch.div),
    # `c / x` of a number runs as the reciprocal of x, times c
    "rdiv": Elementwise(_BOTH, lambda one, other: one.reciprocal() * other, lambda one, other: 1.0 / one * other),
    "reciprocal": Elementwise(("input",), torch.reciprocal, lambda value: 1.0 / value),
    "neg": _plain("neg", torch.neg, "input"),
    "abs": _plain("abs", torch.abs, "input"),
    **dict.fromkeys(("minimum", "min"), _plain("minimum", torch.minimum)),
    **dict.fromkeys(("maximum", "max"), _plain("maximum", torch.maximum)),
    "gt": _compared(">", torch.gt),
    "ge": _compared(">=", torch.ge),
    "lt": _compared(">", torch.lt, swapped=True),
    "le": _compared(">=", torch.le, swapped=True),
    "eq": _compared("==", torch.eq),
    "ne": Elementwise(_BOTH, torch.ne, _differs, boolean=True),
    "logical_not": Elementwise(
        ("input",), lambda value: value == 0, lambda value: made("==", value, 0.0), boolean=True
    ),
    "logical_and": Elementwise(_BOTH, torch.mul, lambda one, other: one * other, boolean=True),
    "logical_or": Elementwise(_BOTH, torch.maximum, maximum, boolean=True),
    "logical_xor": Elementwise(_BOTH, torch.ne, _differs, boolean=True),
    "sign": Elementwise(("input",), torch.sign, lambda value: (value > 0.0) - (value < 0.0)),
    "heaviside": Elementwise(
        ("input", "values"), lambda value, at_zero: torch.where(value == 0, at_zero, (value > 0).float()), _step
    ),
    "clamp": Elementwise(("input", "min", "max"), torch.clamp, _clamped),
    "hardtanh": Elementwise(("input", "min_val", "max_val"), torch.clamp, _clamped),
    "clamp_min": Elementwise(("input", "min"), torch.clamp_min, _clamped),
    "clamp_max": Elementwise(("input", "max"), torch.clamp_max, lambda value, high: _clamped(value, None, high)),
    "relu": Elementwise(("input",), torch.relu, lambda value: maximum(value, 0.0)),
    "relu6": Elementwise(("input",), torch.nn.functional.relu6, lambda value: minimum(maximum(value, 0.0), 6.0)),
    "leaky_relu": Elementwise(("input", "negative_slope"), torch.nn.functional.leaky_relu, _leaky),
    "where": Elementwise(
        ("condition", "input", "other"), lambda condition, one, other: torch.where(condition > 0, one, other), _chosen
    ),
    "masked_fill": Elementwise(
        ("input", "mask", "value"),
        lambda target, mask, value: torch.where(mask > 0, value, target),
        lambda target, mask, value: select(mask, value, target),
    ),
    "pow": Elementwise(("input", "exponent"), torch.pow, _power),
    "square": Elementwise(("input",), torch.square, lambda value: value * value),
    "exp": _plain("exp", torch.exp, "input"),
    "sqrt": _plain("sqrt", torch.sqrt, "input"),
    "sigmoid": Elementwise(("input",), torch.sigmoid, lambda value: 1.0 / (1.0 + exp(-value))),
    "floor": _plain("floor", torch.floor, "input"),
    "trunc": _plain("trunc", torch.trunc, "input"),
    "ceil": Elementwise(("input",), torch.ceil, lambda value: -floor(-value)),
    "frac": Elementwise(("input",), torch.frac, lambda value: value - trunc(value)),
    "round": Elementwise(("input",), torch.round, _rounded),
    "addcdiv": Elementwise(("input", "tensor1", "tensor2"), torch.addcdiv, lambda base, one, other: base + one / other),
    "detach": _plain("hold", lambda value: value, "input"),
    **{
        name: _without(name)
        for name in ("tanh", "atan", "erf", "log", "log1p", "rsqrt", "sin", "cos", "expm1", "sinh", "cosh")
    },
}
LOGICAL = frozenset(("logical_not", "logical_and", "logical_or", "logical_xor"))
HAVE_NODES = frozenset(("add", "sub", "mul", "div", "neg", "relu", "detach", "max", "min"))
OPENING = frozenset(ELEMENTWISE) - HAVE_NODES  # what makes a neuron of plain values: it fires, or has no node
SAME_SHAPE = frozenset(("reshape", "view", "view_as", "reshape_as", "expand", "expand_as", "broadcast_to"))
SAME = frozenset(  # what gives its operand as it is
    (
        *("contiguous", "clone", "float", "to", "cpu", "type_as", "alias", "requires_grad", "type", *SAME_SHAPE),
        *("int", "long", "bool", "double", "half", "bfloat16"),
    )
)
ROUNDS_ONCE = {  # what PyTorch computes in one rounding, and its cure
    "lerp": "a + w * (b - a)",
    "addcmul": "a + b * c",
}
