"""An author's own neuron written down: the lines of its step, its states, and its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.models.spec.expressions import Expression, constant, evaluate, leaf, made
from spikeserve.models.spec.nodes import ProgramIntegrator, ProgramNeuron, Recurrent
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.models.spec.program import CURRENT, FEEDBACK, RESERVED, InvalidProgram, Program, read, unused, write
from spikeserve.training.importers.builder import Draft
from spikeserve.training.importers.connections import Array
from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.layer import MAX_ONE_TO_ONE, Layer, written_out
from spikeserve.training.importers.frameworks.own_neuron import OwnNeuron, below
from spikeserve.training.importers.frameworks.terms import ELEMENTWISE, NOTHING, SOURCE, Term

FIRES = {">": "fire_above", ">=": "fire"}
PASSES_ON = ("*", "minimum", "maximum", "hold")  # of spikes, what still is spikes


def own_neuron(layer: Layer) -> None:
    """Convert an author's own neuron: its step as a program."""
    neuron: OwnNeuron = layer.module
    try:
        written = Written.of(neuron)
    except Unclear as error:
        layer.refuse("its step", f"{error.where}: {error}")
        return
    drawn = dict.fromkeys(name for start, name in written.names.items() if start.random)
    if drawn:
        layer.findings.notes.append(
            f"Its forward draws at random where {', '.join(drawn)} of '{layer.name}' begin; here they begin at 0, as "
            "--start rest says."
        )
    text: dict[str, Any] = {"states": written.states, "step": written.lines}
    spikes = written.fires
    fields: dict[str, Any] = {
        "program": text | {"spikes" if spikes else "output": written.leaving},
        "parameters": {
            name: value if isinstance(value, float) else PER_NEURON for name, value in written.parameters.items()
        },
    }
    tensors = {name: value for name, value in written.parameters.items() if not isinstance(value, float)}
    if neuron.feedback is not None:
        recurrent, weights = _recurrent(layer, neuron)
        layer.refuse_unless(spikes, "its feedback", "it hears what it gives, which is no spikes")
        if recurrent is None or not spikes:
            return
        fields["recurrent"] = recurrent
        tensors |= weights
    layer.builder.add(Draft(layer.name, ProgramNeuron if spikes else ProgramIntegrator, fields, tensors))


def _recurrent(layer: Layer, neuron: OwnNeuron) -> tuple[Recurrent | None, dict[str, Array]]:
    """Return the connection by which a neuron hears itself, and what it gives before the first step."""
    connection = neuron.feedback
    if not isinstance(connection, nn.Linear | nn.Conv1d | nn.Conv2d):
        layer.refuse("its feedback", f"comes through a {type(connection).__name__}, expected a Linear or a convolution")
        return None, {}
    if math.prod(neuron.shape) > MAX_ONE_TO_ONE and not isinstance(connection, nn.Linear):
        layer.refuse("its feedback", f"is a convolution, which is written out for at most {MAX_ONE_TO_ONE} neurons")
        return None, {}
    weight, bias = written_out(connection, neuron.shape)
    start = next(start for start, after in neuron.updates.items() if after is neuron.hears)
    first = neuron.constant(start).expand(neuron.shape).reshape(-1).numpy()
    whole = bias is None or bool((first == bias).all())
    begins = whole or not first.any()
    if not begins or (bias is None and first.any()):
        layer.refuse("its feedback", "begins at other values than 0 or its bias")
    held = {"recurrent.weight": weight} | ({} if bias is None else {"recurrent.bias": bias})
    return Recurrent(bias=bias is not None, bias_at_start=whole), held


@dataclass(frozen=True)
class Written:
    """A neuron's step as a bundle has it. `names` are those of the states, by their start."""

    states: dict[str, float | str]
    lines: list[str]
    leaving: str
    fires: bool
    parameters: dict[str, float | Array]
    names: dict[Term, str]

    @classmethod
    def of(cls, neuron: OwnNeuron) -> Written:
        """Write a neuron down; raises Unclear where one of its functions has no operation."""
        return _Writer(neuron).written()


class _Writer:
    """The names and expressions of one neuron."""

    def __init__(self, neuron: OwnNeuron) -> None:
        self.neuron = neuron
        self.parameters: dict[str, float | Array] = {}
        self.names: dict[Term, str] = {}
        self.called: dict[Expression, str] = {}  # what the author calls a value
        self._known: dict[Term, Expression] = {}
        self._taken = set(RESERVED)

    def written(self) -> Written:
        neuron, states = self.neuron, dict[Term, Term]()
        for start in neuron.starts():
            after = neuron.updates[start]
            if after is neuron.hears:
                continue
            same = next((each for each in states if states[each] is after and self._begin_alike(each, start)), None)
            states |= {} if same else {start: after}
            self.names[start] = self.names[same] if same else self._free(start.name or after.name or "state")
        begins = {self.names[start]: self._begins(start, self.names[start]) for start in states}
        output, *updates = (self._expression(root) for root in (neuron.output, *states.values()))
        firing = {each: made(FIRES[each.operation], *each.operands) for each in _comparisons(output)}
        output, *updates = evaluate([output, *updates], firing, _again)
        called = {firing.get(each, each): name for each, name in self.called.items()}
        starts = {name: constant(0.0) if isinstance(start, float) else leaf(start) for name, start in begins.items()}
        program = Program(starts, dict(zip(begins, updates, strict=True)), output, output, spiking=False)
        lines, leaving = write(program, called)
        fires = _is_read(begins, lines, leaving)
        return Written(begins, lines, leaving, fires, self.parameters, self.names)

    def _expression(self, root: Term) -> Expression:
        for term in below(root, set(self._known)):
            given = [None if each.operation == NOTHING else self._known[each] for each in term.terms]
            try:
                found = self._leaf(term) if term.is_leaf else ELEMENTWISE[term.operation].write(*given)
            except Unclear as error:
                raise Unclear(str(error), term.where) from error
            if term.name and found.operands:
                self.called.setdefault(found, term.name)
            self._known[term] = found
        return self._known[root]

    def _leaf(self, term: Term) -> Expression:
        if term in self.names:
            return leaf(self.names[term])
        if term.operation == SOURCE:
            return leaf(CURRENT)
        if self.neuron.hears is not None and self.neuron.updates.get(term) is self.neuron.hears:
            return leaf(FEEDBACK)
        if isinstance(term.value, Tensor):
            value = self.neuron.constant(term)
            if term.boolean and bool((value == value.flatten()[0]).all()):
                return constant(float(value.flatten()[0]))
            return leaf(self._parameter(value, term.name or "k"))
        return constant(0.0 if term.operation == NOTHING else float(np.float32(term.value)))

    def _begin_alike(self, one: Term, other: Term) -> bool:
        shape = self.neuron.shape
        return torch.equal(*(self.neuron.constant(each).expand(shape) for each in (one, other)))

    def _begins(self, start: Term, name: str) -> float | str:
        value = self.neuron.constant(start)
        same = bool((value == value.flatten()[0]).all())
        return float(value.flatten()[0]) if same else self._parameter(value, f"{name}_start")

    def _parameter(self, value: Tensor, name: str) -> str:
        """Return the name of a parameter of this value, of one that there is already if it is the same."""
        array = np.asarray(value.numpy(), np.float32)
        same = bool((array == array.flat[0]).all())
        held: float | Array = float(array.flat[0]) if same else np.broadcast_to(array, self.neuron.shape)
        stem = name.rstrip("_0123456789")
        for other, known in self.parameters.items():
            if other.rstrip("_0123456789") == stem and np.array_equal(known, held):
                return other
        free = self._free(name)
        self.parameters[free] = held
        return free

    def _free(self, name: str) -> str:
        return unused(name, self._taken)


def _is_read(states: Mapping[str, float | str], lines: list[str], leaving: str) -> bool:
    """Return whether what leaves is a whole number of spikes, as a program's reader has it."""
    try:
        read(states, lines, leaving, spiking=True)
    except InvalidProgram:
        return False
    return True


def _comparisons(output: Expression) -> list[Expression]:
    """Return the comparisons by which an output fires."""
    found, waiting = list[Expression](), [output]
    while waiting:
        each = waiting.pop()
        if each.operation in FIRES:
            found.append(each)
        elif each.operation in PASSES_ON:
            waiting += each.operands
    return found


def _again(each: Expression, operands: Sequence[Expression]) -> Expression:
    return made(each.operation, *operands) if operands else each
