"""An author's own neuron written down: the lines of its step, its states, and its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeserve.training.importers.connections import Array
from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.own_neuron import OwnNeuron, below
from spikeserve.training.importers.frameworks.terms import CONSTANT, ELEMENTWISE, NOTHING, SOURCE, START, Term, op

INFIX = ("+", "-", "*", "/", ">", ">=", "==")
BINDS = {"+": 2, "-": 2, "*": 3, "/": 3, "neg": 4}  # how tightly an operation holds its operands together
FIRES = {">": "fire_above", ">=": "fire"}
OF_TRUTHS = ("*", "minimum", "maximum", "hold")
RESERVED = frozenset(
    ("current", "feedback", "abs", "minimum", "maximum", "select", "exp", "floor", "trunc", "hold", *FIRES.values())
) | {"fire_multiple"}


@dataclass
class Program:
    """A neuron's step as a bundle has it; `tensors` are those parameters that each neuron has its own of."""

    states: dict[str, float | str] = field(default_factory=dict)
    step: list[str] = field(default_factory=list)
    leaves: str = ""
    spikes: bool = False
    parameters: dict[str, float | Array] = field(default_factory=dict)


def program(neuron: OwnNeuron) -> Program:
    """Return the program of a neuron; raises Unclear where one of its functions has no operation."""
    return _Writer(neuron).program


class _Writer:
    """The work of writing one program down."""

    def __init__(self, neuron: OwnNeuron) -> None:
        self.neuron, self.program = neuron, Program()
        self._written: dict[Term, Term] = {}  # a term, and the operations that it is written as
        self._names: dict[Term, str] = {}
        self._taken = set(RESERVED)
        self._states = {start: neuron.updates[start] for start in neuron.starts()}
        for root in neuron.roots():
            self._write(root)
        output = self._firing(self._written[neuron.output])
        self.program.spikes = neuron.output.boolean
        updates = {
            start: self._written[after] for start, after in self._states.items() if after is not neuron.hears
        }
        self._name_leaves(updates)
        self._lines(output, updates)

    def _write(self, root: Term) -> None:
        for term in below(root, set(self._written)):
            if term.is_leaf:
                self._written[term] = term
                continue
            given = [None if each.operation == NOTHING else self._written[each] for each in term.terms]
            try:
                made = ELEMENTWISE[term.operation].write(*given)
            except Unclear as error:
                raise Unclear(str(error), term.where) from error
            made.name, made.where = made.name or term.name, term.where
            self._written[term] = made

    def _firing(self, term: Term) -> Term:
        """Return the output with its comparisons as what fires, wherever else they are used too."""
        fires = {}
        waiting = [term]
        while waiting:
            each = waiting.pop()
            if each.operation in FIRES:
                fires[each] = FIRES[each.operation]
            elif each.operation in OF_TRUTHS:
                waiting += each.terms
        for each, name in fires.items():
            each.operation = name
        return term

    def _name_leaves(self, updates: dict[Term, Term]) -> None:
        for start in self._states:
            if start in updates:
                name = self._names[start] = self._free(start.name or "state")
                self.program.states[name] = self._begins(start, name)
            else:
                self._names[start] = "feedback"
        for term in self._written:
            if term.operation == SOURCE and term is not self.neuron.hears:
                self._names[term] = "current"

    def _begins(self, start: Term, name: str) -> float | str:
        value = self.neuron.constant(start)
        if bool((value == value.flatten()[0]).all()):
            return float(value.flatten()[0])
        return self._parameter(value, f"{name}_start")

    def _parameter(self, value: Tensor, name: str) -> str:
        """Return the name of a parameter of this value, one that there is already if its value and name are the same."""
        same = bool((value == value.flatten()[0]).all())
        array = np.asarray(value.numpy(), np.float32)
        held: float | Array = float(array.flat[0]) if same else np.broadcast_to(array, self.neuron.shape)
        for other, known in self.program.parameters.items():
            if other.rstrip("_0123456789") == name.rstrip("_0123456789") and np.array_equal(known, held):
                return other
        free = self._free(name)
        self.program.parameters[free] = held
        return free

    def _free(self, name: str) -> str:
        stem = re.sub(r"\W", "_", name).strip("_") or "value"
        stem = stem if not stem[0].isdigit() else f"value_{stem}"
        free, number = stem, 2
        while free in self._taken:
            free, number = f"{stem}_{number}", number + 1
        self._taken.add(free)
        return free

    def _lines(self, output: Term, updates: dict[Term, Term]) -> None:
        """Write a line for each value that is used more than once, that leaves, or that a state becomes."""
        order: list[Term] = []
        seen: set[Term] = set()
        for root in (output, *updates.values()):
            order += below(root, seen)
        uses = dict.fromkeys(order, 0)
        for term in order:
            for each in term.terms:
                uses[each] += 1
        roots = {output, *updates.values()}
        own = [term for term in order if not term.is_leaf and (uses[term] > 1 or term in roots)]
        reads = {term: set(self._inlined(term, own)) for term in own}
        for term in own:
            becomes = [
                start
                for start, after in updates.items()
                if after is term and not any(start in reads[later] for later in own[own.index(term) + 1 :])
            ]
            copied = {start for start, after in updates.items() if after in updates}  # which take another's old value
            becomes = [start for start in becomes if start not in {updates[each] for each in copied}]
            if becomes and term not in self._names:
                self._names[term] = self._names[becomes[0]]
                updates = {start: after for start, after in updates.items() if start is not becomes[0]} | {
                    becomes[0]: term
                }
            else:
                self._names[term] = self._free(term.name or ("s" if term is output and self.program.spikes else "x"))
            self.program.step.append(f"{self._names[term]} = {self._expression(term, top=True)}")
        for start, after in _in_order({s: a for s, a in updates.items() if self._names.get(a) != self._names[s]}):
            self.program.step.append(f"{self._names[start]} = {self._shown(after)}")
        if output.is_leaf:
            self._names[output] = self._names.get(output) or self._free("x")
        self.program.leaves = self._names[output]

    def _inlined(self, term: Term, own: list[Term]) -> Iterator[Term]:
        for each in term.terms:
            yield each
            if each not in own:
                yield from self._inlined(each, own)

    def _shown(self, term: Term) -> str:
        if term in self._names:
            return self._names[term]
        if term.operation in (CONSTANT, START):
            if isinstance(term.value, Tensor):
                value = self.neuron.constant(term)
                self._names[term] = self._parameter(value, term.name or "k")
                return self._names[term]
            return _number(term.value)
        return self._expression(term)

    def _expression(self, term: Term, *, top: bool = False) -> str:
        shown = [self._operand(term, place, each) for place, each in enumerate(term.terms)]
        if term.operation in INFIX:
            text = f"{shown[0]} {term.operation} {shown[1]}"
            return text
        if term.operation == "neg":
            return f"-{shown[0]}"
        return f"{term.operation}({', '.join(shown)})"

    def _operand(self, term: Term, place: int, each: Term) -> str:
        text = self._shown(each)
        if each.is_leaf or each in self._names or each.operation not in (*INFIX, "neg"):
            return f"({text})" if text.startswith("-") and term.operation in INFIX and place else text
        if term.operation not in (*INFIX, "neg"):
            return text
        outer, inner = BINDS.get(term.operation, 1), BINDS.get(each.operation, 1)
        return f"({text})" if inner < outer or (inner == outer and (place or outer == 1)) else text


def _in_order(updates: dict[Term, Term]) -> list[tuple[Term, Term]]:
    """Return copies in an order in which none takes what another has written over; raises Unclear where there is none."""
    left, ordered = dict(updates), list[tuple[Term, Term]]()
    while left:
        free = [start for start in left if not any(start is after for other, after in left.items() if other is not start)]
        if not free:
            raise Unclear("swaps two states, which no order of lines does")
        ordered.append((free[0], left.pop(free[0])))
    return ordered


def _number(value: Any) -> str:
    number = np.float32(torch.as_tensor(value).item())
    return str(number.item()) if float(number).is_integer() and abs(number) < 1e6 else np.format_float_positional(number, unique=True) if 1e-4 <= abs(number) < 1e6 else str(number)
