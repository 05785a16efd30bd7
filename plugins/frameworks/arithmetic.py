"""Sums, products and scalings of a forward between its modules, and what follows an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks import function_modules
from spikeserve.plugins.frameworks.modifications import digest
from spikeserve.plugins.frameworks.nouns import (
    Call,
    GraphReadout,
    Node,
    Rule,
    Signal,
    StepValue,
    TimeReduction,
    TracedValue,
    Unsupported,
)

Combine = Callable[[list[StepValue]], StepValue]


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


def add(call: Call) -> TracedValue:
    """Return a sum or difference: of two signals in each step, of a step and those before it, or with a constant."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    if call.name == "rsub":
        first, second = second, first
    one, other = call.traced(first), call.traced(second)
    if one is None or other is None:
        return affine(call)
    if call.kwargs.get("alpha", 1) != 1:
        raise Unsupported("adds with an alpha, which has no node")
    for total, more in ((one, other), (other, one)) if call.name == "add" else ():
        if isinstance(more, Signal) and (summed := added_over_time(total, more, call.where)):
            return summed
    if isinstance(one, TimeReduction) or isinstance(other, TimeReduction):
        if any(isinstance(each, TimeReduction) and each.readout.softmax for each in (one, other)):
            raise Unsupported(
                "adds up probabilities of each step, and a readout makes them once: "
                "return the values before the softmax"
            )
        raise Unsupported("adds to what is read over time, which no readout does")
    if call.name != "add":
        other = _affine(call, second, other, torch.tensor(-1.0), None, -second)
    return _combined(call, [one, other], lambda values: _sum(call, *values), call.out)


def _sum(call: Call, one: StepValue, other: StepValue) -> StepValue:
    step_graph = call.tracer.step_graph
    if one.node == other.node:
        factor = torch.tensor(2.0)
        return step_graph.stateless(
            ("affine", 2.0), [one], lambda: Node("scale", function_modules.affine(factor), where=call.where)
        )
    return step_graph.stateless("add", [one, other], lambda: Node("sum", None, where=call.where))


def _combined(
    call: Call, signals: Sequence[Signal], combine: Combine, out: Tensor, sample: tuple[int, ...] | None = None
) -> Signal:
    """Return signals combined step by step: all of one shape, but where `sample` says what comes out."""
    if sample is None and all(signal.axes.time_last for signal in signals):
        moved = [replace(signal, axes=signal.axes.time_before()) for signal in signals]
        combined = _combined(call, moved, combine, out.transpose(1, 2))
        return replace(combined, axes=combined.axes.time_before())
    tracer, leading = call.tracer, signals[0].axes.leading
    seen = [tracer.seen(signal, call.name) for signal in signals]
    if any(signal.axes.leading != leading for signal in signals):
        raise Unsupported("takes signals whose axes of time or batch differ, which has no node")
    first = signals[0].axes.sample
    if sample is None and any(signal.axes.sample != first for signal in signals):
        raise Unsupported("takes signals of different shapes, which has no node")
    axes = signals[0].axes.around(sample or first)
    made = []
    for values, result in zip(zip(*seen, strict=True), axes.time_first(out), strict=True):
        tracer.require_no_membrane(values)
        value = combine(list(values))
        tracer.describe(value.node, axes.sample, values)
        if tracer.step_graph.nodes[value.node].module is None or tracer.step_graph.nodes[value.node].joins:
            tracer.step_graph.keep(value, result)
        made.append(value)
    return Signal(axes, tuple(made))


def _join(call: Call, signals: Sequence[Signal], key: Hashable, module: nn.Module, sample: tuple[int, ...]) -> Signal:
    def combine(values: list[StepValue]) -> StepValue:
        return call.tracer.step_graph.stateless(
            key, values, lambda: Node(call.name, module, where=call.where, joins=True)
        )

    return _combined(call, signals, combine, call.out, sample)


def affine(call: Call) -> TracedValue:
    """Return a sum, product or the like of a signal and constants: a factor and an offset, by what it makes of 0 and 1.

    Both are computed in float64 and rounded once.
    """
    arguments = (*call.args, *call.kwargs.values())
    tensor, *others = (each for each in arguments if call.traced(each) is not None)
    traced = call.traced(tensor)
    if others or traced is None:
        raise Unsupported("takes two values that depend on the input, which has no node")
    if call.out.shape != tensor.shape:
        raise Unsupported("spreads its values over more, which has no node")

    def of(number: float) -> Tensor:
        def filled(each: Any) -> Any:
            if each is tensor:
                return torch.full_like(tensor, number, dtype=torch.float64)
            return each.to(torch.float64, copy=True) if isinstance(each, Tensor) else each  # it may be written to

        made: Tensor = call.func(*map(filled, call.args), **{name: filled(each) for name, each in call.kwargs.items()})
        return made

    offset = of(0.0)
    factor = of(1.0) - offset
    if not bool(offset.isfinite().all()):
        raise Unsupported("divides by a signal, which has no node")
    if bool((factor.float() == 1).all()) and not bool(offset.any()):
        return traced
    if isinstance(traced, TimeReduction):
        if bool(offset.any()):
            raise Unsupported("adds to what is read over time, which no readout does")
        if bool((factor != factor.flatten()[0]).any()) or float(factor.flatten()[0]) <= 0:
            raise Unsupported("scales what is read over time by other than one positive number, which no readout does")
        return traced.times(float(factor.flatten()[0]))
    return _affine(call, tensor, traced, factor, offset if bool(offset.any()) else None, call.out)


def multiply(call: Call) -> TracedValue:
    """Return a product of two signals, or what is multiplied or divided by a constant."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    one, other = call.traced(first), call.traced(second)
    if call.name == "mul" and isinstance(one, Signal) and isinstance(other, Signal):
        one, other = (_spread(call, tensor, signal) for tensor, signal in ((first, one), (second, other)))
        return _join(call, [one, other], "multiply", function_modules.multiply(), one.axes.sample)
    return affine(call)


def _spread(call: Call, tensor: Tensor, signal: Signal) -> Signal:
    """Return a signal as it spreads over channels, height or width, by a transposed convolution whose weights are 1."""
    first, shape = len(signal.axes.leading), signal.axes.sample
    target = tuple(call.out.shape[first:])
    if shape == target:
        return signal
    spreads = len(shape) == len(target) == 3
    if not spreads or any(own not in (1, other) for own, other in zip(shape, target, strict=True)):
        raise Unsupported("takes signals of different shapes, which has no node")
    kernel = tuple(1 if own == other else other for own, other in zip(shape[1:], target[1:], strict=True))
    ones = nn.ConvTranspose2d(shape[0], target[0], (kernel[0], kernel[1]), groups=shape[0], bias=False)
    ones.requires_grad_(False).weight.fill_(1.0)
    out = tensor.expand(*tensor.shape[:first], *target)
    return call.apply(("spread", target, kernel), ones, "spread", signal, tensor, out)


def _affine(call: Call, tensor: Tensor, signal: Signal, factor: Tensor, offset: Tensor | None, out: Tensor) -> Signal:
    constants = [_of_a_sample(constant, signal) for constant in (factor, offset) if constant is not None]
    key = ("affine", *map(digest, constants))
    name = "scale" if offset is None else "shift"
    return call.apply(key, function_modules.affine(*constants), name, signal, tensor, out)


def _of_a_sample(constant: Tensor, signal: Signal) -> Tensor:
    """Return a constant of a whole tensor as one of a sample; raises Unsupported where each step or sample has its own.

    One that is the same everywhere is a number.
    """
    values = constant.detach().float()
    if bool((values == values.flatten()[0]).all()):
        return values.flatten()[0]
    rows = values.flatten(0, len(signal.axes.leading) - 1)
    if bool((rows != rows[0]).any()):
        raise Unsupported("takes a constant for each step or sample, which has no node")
    return rows[0]


def matmul(call: Call) -> TracedValue:
    """Return the matrix product of two signals for each head, or with constant weights, which is a Linear."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    one, other = call.traced(first), call.traced(second)
    if isinstance(one, Signal) and isinstance(other, Signal):
        return _join(call, [one, other], "matmul", function_modules.matmul(), call.out.shape[len(one.axes.leading) :])
    if isinstance(one, Signal) and second.dim() == 2:
        linear = nn.Linear(second.shape[0], second.shape[1], bias=False).requires_grad_(False)
        linear.weight.data = second.detach().t().contiguous()
        key = ("matmul", digest(linear.weight))
        return call.apply(key, linear, "linear", one, first, call.out)
    raise Unsupported("multiplies by a signal from the right, which has no node")


def einsum(call: Call) -> TracedValue:
    """Return a signal times constant weights along its last axis, as `bi,io->bo` and `bti,oi->bto` write it."""
    equation, signal, weight, *others = call.args
    match = re.fullmatch(r"(\w*)(\w),(\w)(\w)->(\w*)(\w)", equation.replace(" ", "")) if not others else None
    if match is None or match[1] != match[5] or {match[3], match[4]} != {match[2], match[6]} or match[2] == match[6]:
        raise Unsupported("multiplies otherwise than a matrix does along the last axis, which has no node")
    return matmul(replace(call, args=(signal, weight if match[3] == match[2] else weight.t()), name="matmul"))


def concatenate(call: Call, signals: Sequence[Signal], place: int) -> TracedValue:
    """Return signals side by side along an axis of a sample."""
    leading = len(signals[0].axes.leading)
    if place < leading:
        raise Unsupported("joins steps or batches of what has time already, which has no node")
    axis = place - leading
    return _join(call, signals, ("cat", axis), function_modules.concatenate(axis), tuple(call.out.shape[leading:]))


def rectify(call: Call) -> TracedValue:
    """Apply a ReLU, which needs no node where its input is never negative."""
    tensor, traced = call.signal
    if all(value.node in call.tracer.not_negative for value in traced.values):
        return traced
    return call.apply("relu", nn.ReLU(), "relu", traced, tensor, call.out)


def softmax(call: Call) -> TracedValue:
    """Return the probabilities of an answer: of all its values, or by a sigmoid of each."""
    tensor, traced = call.taken
    sigmoid = call.name == "sigmoid"
    dim = -1 if sigmoid else call.argument(1, "dim")
    if isinstance(traced, Signal):
        value = traced.values[0]
        if sigmoid and not call.tracer.step_graph.nodes[value.node].membrane:
            raise Unsupported("has no node")
        if len(traced.values) != 1:
            raise Unsupported("makes probabilities of each step, which no readout does")
        traced = TimeReduction(GraphReadout(value.node, where=call.where), (value.step or 0,), traced.axes)
    if dim is None or dim % tensor.dim() != tensor.dim() - 1 or traced.readout.softmax:
        raise Unsupported("makes probabilities along another axis than the last, which no readout does")
    return replace(traced, readout=replace(traced.readout, softmax=True, sigmoid=sigmoid))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "rsub"), add),
    **dict.fromkeys(("mul", "div"), multiply),
    **dict.fromkeys(("matmul", "bmm", "mm"), matmul),
    "einsum": einsum,
    "neg": affine,
    "relu": rectify,
    **dict.fromkeys(("softmax", "log_softmax", "sigmoid"), softmax),
    "argmax": lambda call: call.taken[1],  # an answer of which only the class is taken
}
