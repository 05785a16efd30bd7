"""Element-wise functions of a traced forward, as terms of a neuron's step."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.plugins.frameworks.axes import Axes, AxisKind
from spikeserve.plugins.frameworks.nouns import DRAWN_START, Node, Signal, Term, Unsupported, UnsupportedValue
from spikeserve.plugins.frameworks.own_neuron import OwnNeuron, below
from spikeserve.plugins.frameworks.state_finder import CALL_AUTHORS, operands, site
from spikeserve.plugins.frameworks.terms import (
    CONSTANT,
    ELEMENTWISE,
    LOGICAL,
    NOTHING,
    OPENING,
    ROUNDS_ONCE,
    SAME,
    SAME_SHAPE,
    SOURCE,
    START,
)

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.tracer import Tracer


NUMBERS = (bool, int, float, np.integer, np.floating)
OF_BOOLEANS = frozenset(("mul", "minimum", "maximum", "min", "max", "where", "masked_fill", "detach"))
IGNORED = frozenset(("dtype", "out", "memory_format", "inplace", "non_blocking", "copy", "device"))


class AllStepsAtOnce(Unsupported):
    """A function of all steps at once."""


def completed(call: Term, out: Tensor) -> Term:
    """Return the term that a call of terms made; raises Unsupported where a step has no such value."""
    name, first = call.operation, call.terms[0]
    boolean = _is_boolean(name, call.terms)
    if name in SAME:
        if not out.dtype.is_floating_point and not first.boolean:
            raise Unsupported(f"converts to {out.dtype}, and a network computes in float32")
        _require_float32(out)
        if not first.is_leaf:
            first.kept = (out._version, weakref.ref(out))
        return first
    if not boolean and out.dtype not in (torch.float32, torch.bool):
        raise Unsupported(f"computes in {out.dtype}, and a network computes in float32")
    if not boolean and out.dtype == torch.bool and name not in ELEMENTWISE:
        raise Unsupported("computes with truth values, expected float32")
    if name in LOGICAL and not all(term.boolean for term in call.terms):
        raise Unsupported("joins the bits of numbers, expected truth values")
    known = [term.axes for term in call.terms if term.axes is not None]
    axes: Axes | None = known[0] if known else None
    if any(other != axes for other in known) or (axes is not None and axes.shape != tuple(out.shape)):
        raise Unsupported(
            "spreads its values over more, or takes values of different shapes, which no neuron's step does"
        )
    if name == "sub" and first.bare is call.terms[1].bare:
        return Term(CONSTANT, value=0.0, where=call.where)  # a surrogate gradient's value, which is none
    if name in ("add", "sub") and _is_zero(call.terms[1]):
        return first
    if name == "add" and _is_zero(first):
        return call.terms[1]
    return replace(call, axes=axes, shape=tuple(out.shape), boolean=boolean, kept=(out._version, weakref.ref(out)))


def elementwise_call(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term | None:
    """Return a call as a term of its operands as they are before it runs, which `completed` makes what the call gives.

    None where no operand is a neuron's own; raises Unsupported.
    """
    name, arguments = operands(func, args, kwargs)
    if name == "__setitem__":  # `values[mask] = value` is a choice
        mask, name = arguments[1], "masked_fill"
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != arguments[0].shape:
            return None
    if name == "copy":
        name, arguments = "clone", {0: arguments[1]}
    if name not in ELEMENTWISE and name not in SAME and name not in ROUNDS_ONCE:
        return None
    if name in SAME_SHAPE and func(*args, **kwargs).shape != args[0].shape:
        return None
    where = site()
    states = {key for key in arguments if (where, key) in tracer.states}
    plain = not states and not any(_is_open(tracer, name, value) for value in arguments.values())
    if plain and not any(isinstance(tracer.traced(value), Signal) for value in arguments.values()):
        return None
    if name in ROUNDS_ONCE:
        raise Unsupported(f"rounds once where a network rounds twice; write {ROUNDS_ONCE[name]} in its place")
    if name in SAME or name == "detach":
        arguments = {0: arguments[0]}
        names: tuple[str, ...] = ("input",)
    else:
        names = ELEMENTWISE[name].names
    if name in ("max", "min") and not isinstance(arguments.get(1, arguments.get("other")), Tensor):
        return None
    keys = _bound(names, arguments)
    if plain and not all(_is_as_made(tracer, arguments[key]) for key in keys):
        return None
    terms = tuple(_term(tracer, arguments[key], state=key in states) for key in keys)
    if any(term is None for term in terms):
        return None
    if name == "detach" and terms[0] is not None and terms[0].is_leaf:
        name = "clone"
    known = tuple(term for term in terms if term is not None)
    return Term(name, known, site=where, where=tracer.line(), plain=plain, path=tracer.module())


CALL_AUTHORS.add(elementwise_call.__code__)


def neuron_of_all_steps(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> Signal:
    """Return the output of a function without a state of all steps at once: of a neuron that only fires, say."""
    name, arguments = operands(func, args, kwargs)
    signals = [value for value in arguments.values() if isinstance(tracer.traced(value), Signal)]
    others = [value for value in arguments.values() if tracer.traced(value) is not None and value is not signals[0]]
    signal = tracer.traced(signals[0])
    if name not in ELEMENTWISE or others or not isinstance(signal, Signal):
        raise AllStepsAtOnce("takes all steps at once beside a state, expected one step at a time")
    source = Term(SOURCE, value=signal.values[0])
    terms = [
        source if arguments[key] is signals[0] else _term(tracer, arguments[key], state=False)
        for key in _bound(ELEMENTWISE[name].names, arguments)
    ]
    term = Term(name, tuple(term for term in terms if term is not None), where=tracer.line())
    axes = signal.axes.time_before() if signal.axes.time_last else signal.axes
    if axes is not signal.axes and any(len(each.shape) for each in term.terms):
        raise Unsupported("takes a constant that is not one number, with time as the last axis")
    neuron = OwnNeuron(replace(term, boolean=_is_boolean(name, term.terms)), axes.sample)
    key, make = neuron.described(), lambda: Node(name, neuron, where=term.where)
    return tracer.applied(key, make, signal, signals[0], out.float())


def _bound(names: tuple[str, ...], arguments: dict[int | str, Any]) -> list[int | str]:
    """Return the key of each of a function's parameters; raises Unsupported for arguments that a step has not."""
    if "number" in arguments:
        keys: list[int | str] = ["tensor", "number"]
    else:
        keys = [place if place in arguments else name for place, name in enumerate(names)]
    for key, value in arguments.items():
        usual = value is None or key in IGNORED or (key in ("alpha", "value") and value == 1)
        if key not in keys and not usual:
            cause = "rounds a product and a sum at once: write them as two" if key in ("alpha", "value") else "is given"
            raise Unsupported(f"{cause} ({key}={value!r}), which no neuron's step has")
    arguments |= {key: None for key in keys if key not in arguments}
    return keys


def _is_open(tracer: Tracer, name: str, value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    term, traced = tracer.term(value), tracer.traced(value)
    if term is not None and not term.plain and (traced is not None or term.operation != CONSTANT):
        return True
    return isinstance(traced, Signal) and name in OPENING and not traced.is_read


def _is_as_made(tracer: Tracer, value: Any) -> bool:
    """Return whether a value lies in memory as a node gives it, so that no other node has to arrange it first."""
    traced = tracer.traced(value)
    if not isinstance(traced, Signal) or len(traced.values) != 1:
        return traced is None
    order, node = traced.axes.order, traced.values[0].node
    return order == tuple(range(len(order))) and tracer.shapes.get(node) == traced.axes.sample


def _term(tracer: Tracer, value: Any, *, state: bool) -> Term | None:
    """Return an operand's term, None where it is a value of which only the network's own rules know."""
    if value is None:
        return Term(NOTHING)
    if isinstance(value, NUMBERS):
        return Term(START if state else CONSTANT, value=float(value), where=tracer.line())
    if not isinstance(value, Tensor):
        raise Unsupported(f"takes a {type(value).__name__}, which no neuron's step does")
    own = tracer.term(value)
    if own is not None and own.plain and len({each for each in below(own, set()) if each.operation == SOURCE}) > 1:
        own = None  # a node that joins them is what a neuron takes
    if own is not None and state and own.operation == START:  # one tensor may be where several states begin
        return replace(own, name=own.name or tracer.variable(value))
    if own is not None:
        own.name = own.name or tracer.variable(value)
        return own
    traced = tracer.traced(value)
    if isinstance(traced, Signal):
        return _source(tracer, traced)
    random = traced.sentence if isinstance(traced, UnsupportedValue) and traced.random and state else ""
    if traced is not None and not random:
        return None
    if random and not tracer.from_rest:
        raise Unsupported(DRAWN_START)
    _require_float32(value)
    term = Term(
        START if state else CONSTANT, value=value.detach().clone(), where=tracer.line(), random=random,
        name=tracer.variable(value), shape=tuple(value.shape), boolean=_is_truth(value),
    )  # fmt: skip
    if not state:
        tracer.hold(value, term)
    return term


def _source(tracer: Tracer, signal: Signal) -> Term:
    if len(signal.values) != 1 or [part.kind for axis in signal.axes.leading for part in axis] != [AxisKind.BATCH]:
        raise AllStepsAtOnce("takes all steps at once beside a state, expected one step at a time")
    if len(signal.axes.leading) != 1:
        raise Unsupported("takes values whose first axis is not the batch")
    values = tracer.seen(signal, "current")
    tracer.require_no_membrane(values)
    return tracer.source(values[0], signal.axes.around(signal.axes.sample))


def _is_truth(value: Tensor) -> bool:
    """Return whether a constant is all 0 or all 1, and no parameter that may become something else."""
    if value.dtype == torch.bool:
        return True
    return not isinstance(value, nn.Parameter) and (not bool(value.any()) or bool((value == 1).all()))


def _require_float32(tensor: Tensor) -> None:
    if tensor.dim() and (tensor.is_complex() or tensor.dtype.is_floating_point) and tensor.dtype != torch.float32:
        raise Unsupported(f"computes in {tensor.dtype}, and a network computes in float32")


def _is_boolean(name: str, terms: tuple[Term, ...]) -> bool:
    """Return whether a function gives only 0 and 1."""
    if name in ELEMENTWISE and ELEMENTWISE[name].boolean:
        return True
    if name == "sub":
        return _is_number(terms[0], 1.0) and terms[1].boolean
    if name == "heaviside":
        return _is_number(terms[1], 0.0) or _is_number(terms[1], 1.0)
    if name in OF_BOOLEANS:
        values = terms[1:] if name == "where" else terms
        return all(term.boolean or _is_number(term, 0.0) or _is_number(term, 1.0) for term in values)
    return False


def _is_number(term: Term, number: float) -> bool:
    return term.operation == CONSTANT and bool((torch.as_tensor(term.value) == number).all())


def _is_zero(term: Term) -> bool:
    return term.operation == CONSTANT and not isinstance(term.value, Tensor) and term.value == 0
