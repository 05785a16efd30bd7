"""Sums, scalings and what follows an answer: the arithmetic of a forward between its modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.importers.frameworks.axes import Axes, Unclear
from training.importers.frameworks.call import Call, Rule
from training.importers.frameworks.fold import Value
from training.importers.frameworks.graph import Node, Reading
from training.importers.frameworks.meaning import Answer, Meaning, Signal, added_over_time
from training.importers.frameworks.torch_modules import Scaled


def add(call: Call) -> Meaning:
    """Return a sum: of two signals in each step, of a step and those before it, or with zeros."""
    if call.kwargs.get("alpha", 1) != 1:
        raise Unclear("adds with an alpha, which has no node")
    first, second = call.argument(0, "input"), call.argument(1, "other")
    one, other = call.meaning(first), call.meaning(second)
    if one is None or other is None:
        (tensor, held), constant = _with_constant(call)
        if call.out.shape != tensor.shape or bool(torch.as_tensor(constant).any()):
            raise Unclear("adds a constant, which has no node")
        return held
    for held, more in ((one, other), (other, one)):
        if isinstance(more, Signal) and (summed := added_over_time(held, more, call.where)):
            return summed
    if isinstance(one, Answer) or isinstance(other, Answer):
        raise Unclear("adds to what is read over time, which no readout does")
    return _summed(call, one, other)


def _with_constant(call: Call) -> tuple[tuple[Tensor, Signal | Answer], Any]:
    """Return which of two arguments depends on the input, with what it means, and the other, which does not."""
    first, second = call.argument(0, "input"), call.argument(1, "other")
    for held, constant in ((first, second), (second, first)):
        meaning = call.meaning(held)
        if meaning is not None and call.meaning(constant) is None:
            return (held, meaning), constant
    raise Unclear("multiplies two signals, which has no node")


def _summed(call: Call, one: Signal, other: Signal) -> Signal:
    recorder = call.recorder
    if one.axes.leading != other.axes.leading or one.axes.sample != other.axes.sample:
        raise Unclear("adds signals whose axes differ, which has no node")
    name = "sum"
    firsts, sample = recorder.seen(one, name)
    seconds, _ = recorder.seen(other, name)
    axes = Axes.of(one.axes.leading, sample)
    values = []
    for first, second, summed in zip(firsts, seconds, axes.time_first(call.out), strict=True):
        if any(recorder.fold.nodes[value.node].membrane for value in (first, second)):
            raise Unclear("adds to a neuron's membrane, which no node does")
        if first.node == second.node:
            values.append(_scaled(call, first, torch.tensor(2.0)))
            continue
        value = recorder.fold.stateless("add", [first, second], lambda: Node(name, None, where=call.where))
        recorder.describe(value.node, sample, [first, second])
        recorder.fold.keep(value, summed, summed)
        values.append(value)
    return Signal(axes, tuple(values))


def subtract(call: Call) -> Meaning:
    """Return what zeros are subtracted from."""
    second = call.argument(1, "other")
    if call.meaning(second) is None and not bool(torch.as_tensor(second).any()) and call.name == "sub":
        return call.taken[1]
    raise Unclear("subtracts, which has no node")


def multiply(call: Call) -> Meaning:
    """Return what is multiplied by a constant, or divided by one."""
    (held, meaning), constant = _with_constant(call)
    factor = torch.as_tensor(constant, dtype=torch.float64)
    if call.name == "div":
        if held is not call.argument(0, "input"):
            raise Unclear("divides by a signal, which has no node")
        factor = 1 / factor
    return _times(call, held, meaning, factor)


def negate(call: Call) -> Meaning:
    """Return what is negated."""
    tensor, meaning = call.taken
    return _times(call, tensor, meaning, torch.tensor(-1.0))


def _times(call: Call, tensor: Tensor, meaning: Signal | Answer, factor: Tensor) -> Meaning:
    if isinstance(meaning, Answer):
        if factor.numel() != 1 or float(factor) <= 0:
            raise Unclear("scales what is read over time by other than one positive number, which no readout does")
        return meaning.times(float(factor))
    own = max(0, factor.dim() - tensor.dim() + len(meaning.axes.leading))  # its axes of time and batch
    if any(size != 1 for size in factor.shape[:own]):
        raise Unclear("scales each step or sample by its own factor, which has no node")
    if call.out.shape != tensor.shape:
        raise Unclear("spreads its values over more, which has no node")
    narrow = factor.float().reshape(factor.shape[own:])
    if bool((narrow == 1).all()):
        return meaning
    name, module = "scale", Scaled(narrow)
    return call.recorder.applied(
        ("scale", tuple(narrow.shape), narrow.numpy().tobytes()),
        lambda: Node(name, module, where=call.where), meaning, tensor, call.out,
    )  # fmt: skip


def _scaled(call: Call, value: Value, factor: Tensor) -> Value:
    made = call.recorder.fold.stateless(
        ("scale", float(factor)), [value], lambda: Node("scale", Scaled(factor), where=call.where)
    )
    call.recorder.describe(made.node, call.recorder.shapes[value.node], [value])
    return made


def rectify(call: Call) -> Meaning:
    """Return what passes a ReLU unchanged, for it is never negative."""
    _, meaning = call.signal
    if not all(value.node in call.recorder.not_negative for value in meaning.values):
        raise Unclear("of values that may be negative has no node")
    return meaning


def softmax(call: Call) -> Meaning:
    """Return the probabilities of an answer."""
    tensor, meaning = call.taken
    dim = call.argument(1, "dim")
    if isinstance(meaning, Signal):
        if len(meaning.values) != 1:
            raise Unclear("makes probabilities of each step, which no readout does")
        value = meaning.values[0]
        meaning = Answer(Reading(value.node, where=call.where), (value.step or 0,), meaning.axes)
    if dim is None or dim % tensor.dim() != tensor.dim() - 1 or meaning.reading.softmax:
        raise Unclear("makes probabilities along another axis than the last, which no readout does")
    return replace(meaning, reading=replace(meaning.reading, softmax=True))


def argmax(call: Call) -> Meaning:
    """Return an answer of which only the class is taken."""
    return call.taken[1]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "iadd", "radd"), add),
    **dict.fromkeys(("sub", "subtract"), subtract),
    **dict.fromkeys(("mul", "multiply", "div", "divide", "true_divide"), multiply),
    **dict.fromkeys(("neg", "negative"), negate),
    **dict.fromkeys(("relu", "relu_"), rectify),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "argmax": argmax,
}
