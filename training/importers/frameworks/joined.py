"""A Linear that takes the input and the spikes of the step before side by side: a connection for each of the two."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeserve.training.importers.frameworks.axes import Axes, Unclear
from spikeserve.training.importers.frameworks.graph import Node
from spikeserve.training.importers.frameworks.meaning import Signal
from spikeserve.training.importers.frameworks.scout import operands, site
from spikeserve.training.importers.frameworks.terms import JOINED, SOURCE, START, Term

if TYPE_CHECKING:
    from spikeserve.training.importers.frameworks.trace import Recorder

CATS = frozenset(("cat", "concat", "concatenate"))


def joined(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term | None:
    """Return what is joined with a state, None where no part is one. Each part is held as it is now."""
    name, given = operands(func, args, kwargs)
    if name not in CATS or not isinstance(args[0] if args else kwargs.get("tensors"), list | tuple):
        return None
    where = site()
    parts = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    states = {key for key in parts if (where, key) in recorder.states}
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if not states:
        return None
    if axis not in (1, -1) or any(part.dim() != 2 for part in parts.values()):
        raise Unclear("joins states along another axis than that of the neurons")
    terms = []
    for key, value in parts.items():
        term = recorder.term(value)
        if term is None or term.plain:
            meaning = recorder.meaning(value)
            if (key in states) != (meaning is None) or not isinstance(meaning, Signal | None):
                raise Unclear("joins values of several steps")
            term = Term(START if key in states else SOURCE, value=meaning)
        terms.append(Term(JOINED, (term,), value=(key in states, value.detach().clone())))
    return Term(JOINED, tuple(terms), where=recorder.line())


def linear(recorder: Recorder, term: Term, weight: Tensor, bias: Tensor | None, path: str) -> Term:
    """Return what a Linear makes of what is joined: the sum of one Linear for each part, whose bias is the first's."""
    made: list[Term] = []
    begin = 0
    for part in term.terms:
        size = part.value[1].shape[1]
        module = nn.Linear(size, len(weight), bias=bias is not None and not begin).requires_grad_(False)
        module.weight.data = weight[:, begin : begin + size].detach().clone()
        if module.bias is not None and bias is not None:
            module.bias.data = bias.detach().clone()
        made.append(_of_part(recorder, part, module, f"{path}_{len(made)}" if made else path, term.where))
        begin += size
    summed, *others = made
    for other in others:
        axes = summed.axes or other.axes
        summed = Term("add", (summed, other), axes=axes, shape=other.shape, site=(JOINED, path), where=term.where)
    return summed


def _of_part(recorder: Recorder, part: Term, module: nn.Linear, path: str, where: str) -> Term:
    is_state, values = part.value
    (held,) = part.terms
    out: Tensor = torch.nn.functional.linear(values, module.weight, module.bias)
    if is_state and held.operation == START:
        return Term(START, value=out, where=where, shape=tuple(out.shape))
    signal = held.value if isinstance(held.value, Signal) else recorder.own.signal(held)
    key = (JOINED, path, hashlib.sha256(module.weight.numpy().tobytes()).hexdigest())
    signal = recorder.applied(key, lambda: Node(path, module, where=where), signal, values, out)
    return recorder.source(signal.values[0], Axes.of(signal.axes.leading, tuple(out.shape[1:])))
