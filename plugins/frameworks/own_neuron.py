"""One neuron of an author's own code: the terms of its step, its run, and the program that a bundle has of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.models.spec.expressions import Expression, constant, evaluate, leaf, made
from spikeserve.models.spec.nodes import ProgramIntegrator, ProgramNeuron, Recurrent
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.models.spec.program import CURRENT, FEEDBACK, RESERVED, InvalidProgram, Program, read, unused, write
from spikeserve.plugins.frameworks.modifications import digest
from spikeserve.plugins.frameworks.nouns import ModuleRun, Term, Unsupported
from spikeserve.plugins.frameworks.terms import CONSTANT, ELEMENTWISE, NOTHING, SOURCE, START
from spikeserve.training.importers.builder import Draft
from spikeserve.training.importers.connections import Array

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.framework import Layer


class OwnNeuron(nn.Module):
    """One neuron of an author's own: its output's term in the first step, and the state after each start.

    `shape` is that of its layer, `maps` the terms of each step by those of the template, and `own` its node. `hears`
    is what it gave the step before, through the connection `feedback`. `first` is the step whose terms the template
    is: 1 where the author's first step leaves out a state, which is 0 there.
    """

    def __init__(self, output: Term, shape: Shape) -> None:
        super().__init__()
        self.output, self.shape = output, shape
        self.updates: dict[Term, Term] = {}
        self.maps: list[dict[Term, Term]] = []
        self.own: int = -1
        self.first = 0
        self._copies: dict[Term, Term] = {}
        self.feedback: nn.Module | None = None
        self.hears: Term | None = None

    def begin_later(self, output: Term) -> None:
        """Take the second step as the template, in place of a first one that leaves out states."""
        self.first, self.updates, self.maps = 1, {}, [{}, {}]
        self.output = self.copied(output)

    def copied(self, term: Term) -> Term:
        """Return a term of the second step as one of the template, where what the first left is a state."""
        for each in below(term, set(self._copies)):
            steps = {other.value.step for other in below(each, set()) if other.operation == SOURCE}
            made = each
            if steps and steps <= {0}:
                made = Term(START, value=0.0, name=each.name, where=each.where)
            elif each.operation == SOURCE and each.value.step == 1:
                made = replace(each, value=each.value._replace(step=0))
            elif each.terms:
                made = replace(each, terms=tuple(self._copies[other] for other in each.terms))
            self._copies[each] = made
            self.maps[1][made] = each
        return self._copies[term]

    def roots(self) -> Iterator[Term]:
        """Return the output, and the states after a step that it depends on."""
        seen: set[Term] = set()
        waiting = [self.output]
        while waiting:
            root = waiting.pop()
            yield root
            starts = [term for term in below(root, seen) if term in self.updates]
            waiting += [self.updates[start] for start in starts if self.updates[start] not in seen]

    def starts(self) -> list[Term]:
        """Return the starts of its states, in the order in which they were met."""
        starts = {term for root in self.roots() for term in below(root, set()) if term in self.updates}
        return sorted(starts, key=list(self.updates).index)

    def sources(self) -> list[Term]:
        """Return the values of other nodes that it takes, but not its own feedback."""
        sources = [term for root in self.roots() for term in below(root, set()) if term.operation == SOURCE]
        return [term for term in dict.fromkeys(sources) if term is not self.hears]

    def run(self, steps: Tensor, heard: Sequence[Tensor] = ()) -> ModuleRun:
        """Return the output over all steps (time_steps, batch, *shape), by the functions that its author called.

        `heard` is what its feedback gave in as many steps as are known; beyond those it is computed, and may round
        otherwise.
        """
        states = {start: self.constant(start).expand(steps.shape[1:]) for start in self.starts()}
        first = next((self.updates[start] for start in states if self.updates[start] is not self.hears), self.output)
        outputs, membranes = list[Tensor](), list[Tensor]()
        for step, current in enumerate(steps):
            values: dict[Term, Tensor] = dict(states)
            for root in self.roots():
                self._evaluate(root, values, current)
            outputs.append(values[self.output])
            membranes.append(values[first])
            if self.hears is not None and self.feedback is not None:
                values[self.hears] = heard[step] if step < len(heard) else self.feedback(values[self.output])
            states = {start: values[self.updates[start]] for start in states}
        return ModuleRun(torch.stack(outputs), torch.stack(membranes) if first is not self.output else None)

    def _evaluate(self, root: Term, values: dict[Term, Tensor], current: Tensor) -> None:
        for term in below(root, set(values)):
            if term.operation == SOURCE:
                values[term] = current
            elif not term.is_leaf:
                arguments = [
                    each.value if each.operation == CONSTANT and term.operation == "pow" else values.get(each)
                    for each in term.terms
                ]
                values[term] = ELEMENTWISE[term.operation].run(*arguments).float().expand(current.shape)
            elif term.operation != NOTHING:
                values[term] = self.constant(term)

    def constant(self, term: Term) -> Tensor:
        """Return a constant or start as it spreads over the layer."""
        value = torch.as_tensor(term.value).detach().float()
        own = max(0, value.dim() - len(self.shape))
        rows = value.reshape(-1, *value.shape[own:]) if own else value[None]
        if not torch.equal(rows, rows[:1].expand_as(rows)) and not bool(rows.isnan().any()):
            raise Unsupported(f"takes a value of its own for each sample of the batch ({term.where})")
        return rows[0]

    def described(self) -> tuple[Any, ...]:
        """Return a key of its computation, to compare with a neuron of another run."""
        places: dict[Term, int] = {}
        made: list[Any] = []
        for root in self.roots():
            for term in below(root, set(places)):
                places[term] = len(places)
                value = digest(self.constant(term)) if term.operation in (CONSTANT, START) else None
                made.append((term.operation, *(places[each] for each in term.terms), value))
        return (*made, *((places[start], places[self.updates[start]]) for start in self.starts() if start in places))


def below(root: Term, seen: set[Term]) -> Iterator[Term]:
    """Return a term and those that it is made of, each once and behind its own; `seen` are left out, and added to."""
    waiting = [(root, False)]
    while waiting:
        term, ready = waiting.pop()
        if ready:
            yield term
        elif term not in seen:
            seen.add(term)
            waiting.append((term, True))
            waiting += [(each, False) for each in reversed(term.terms)]


FIRES = {">": "fire_above", ">=": "fire"}
PASSES_ON = ("*", "minimum", "maximum", "hold")  # of spikes, what still is spikes


def own_neuron(layer: Layer) -> None:
    """Convert an author's own neuron: its step as a program."""
    neuron: OwnNeuron = layer.module
    writer = _Writer(neuron)
    try:
        states, lines, leaving = writer.written()
    except Unsupported as error:
        layer.refuse("its step", f"{error.where}: {error}")
        return
    drawn = dict.fromkeys(name for start, name in writer.names.items() if start.random)
    if drawn:
        layer.findings.notes.append(
            f"Its forward draws at random where {', '.join(drawn)} of '{layer.name}' begin; here they begin at 0, as "
            "--start rest says."
        )
    spikes = _is_read(states, lines, leaving)
    tensors = {name: value for name, value in writer.parameters.items() if not isinstance(value, float)}
    fields: dict[str, Any] = {
        "program": {"states": states, "step": lines, "spikes" if spikes else "output": leaving},
        "parameters": writer.parameters | dict.fromkeys(tensors, PER_NEURON),
    }
    if neuron.feedback is not None:
        recurrent, weights = _recurrent(layer, neuron, neuron.feedback)
        layer.refuse_unless(spikes, "its feedback", "it hears what it gives, which is no spikes")
        if recurrent is None or not spikes:
            return
        fields["recurrent"] = recurrent
        tensors |= weights
    layer.builder.add(Draft(layer.name, ProgramNeuron if spikes else ProgramIntegrator, fields, tensors))


def _recurrent(layer: Layer, neuron: OwnNeuron, feedback: nn.Module) -> tuple[Recurrent | None, dict[str, Array]]:
    """Return the connection by which a neuron hears itself, and what it gives before the first step."""
    recurrent, tensors = layer.recurrent(feedback)
    if recurrent is None:
        return None, {}
    start = next(start for start, after in neuron.updates.items() if after is neuron.hears)
    first = neuron.constant(start).expand(neuron.shape).reshape(-1).numpy()
    bias = tensors.get("recurrent.bias", np.zeros(1, np.float32))
    whole = bool((first == bias).all())
    if not whole and (first.any() or not recurrent.bias):
        layer.refuse("its feedback", "begins at other values than 0 or its bias")
    return recurrent.model_copy(update={"bias_at_start": whole or not recurrent.bias}), tensors


class _Writer:
    """The names and expressions of one neuron. `names` are those of its states, by their start."""

    def __init__(self, neuron: OwnNeuron) -> None:
        self.neuron = neuron
        self.parameters: dict[str, float | Array] = {}
        self.names: dict[Term, str] = {}
        self.called: dict[Expression, str] = {}  # what the author calls a value
        self._known: dict[Term, Expression] = {}
        self._taken = set(RESERVED)

    def written(self) -> tuple[dict[str, float | str], list[str], str]:
        """Return its states, the lines of its step and what leaves; raises Unsupported for one without an operation."""
        neuron, states = self.neuron, dict[Term, Term]()
        for start in neuron.starts():
            after = neuron.updates[start]
            if after is neuron.hears:
                continue
            same = next((each for each in states if states[each] is after and self._begin_alike(each, start)), None)
            states |= {} if same else {start: after}
            self.names[start] = self.names[same] if same else unused(start.name or after.name or "state", self._taken)
        begins = {self.names[start]: self._begins(start, self.names[start]) for start in states}
        output, *updates = (self._expression(root) for root in (neuron.output, *states.values()))
        firing = {each: made(FIRES[each.operation], *each.operands) for each in _comparisons(output)}
        output, *updates = evaluate([output, *updates], firing, lambda each, operands: each.of(operands))
        called = {firing.get(each, each): name for each, name in self.called.items()}
        starts = {name: constant(0.0) if isinstance(start, float) else leaf(start) for name, start in begins.items()}
        program = Program(starts, dict(zip(begins, updates, strict=True)), output, output, spiking=False)
        return begins, *write(program, called)

    def _expression(self, root: Term) -> Expression:
        for term in below(root, set(self._known)):
            arguments = [None if each.operation == NOTHING else self._known[each] for each in term.terms]
            try:
                expression = self._leaf(term) if term.is_leaf else ELEMENTWISE[term.operation].write(*arguments)
            except InvalidProgram as error:
                raise Unsupported(str(error), term.where) from error
            if term.name and expression.operands:
                self.called.setdefault(expression, term.name)
            self._known[term] = expression
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
        parameter: float | Array = float(array.flat[0]) if same else np.broadcast_to(array, self.neuron.shape)
        stem = name.rstrip("_0123456789")
        for other, known in self.parameters.items():
            if other.rstrip("_0123456789") == stem and np.array_equal(known, parameter):
                return other
        free = unused(name, self._taken)
        self.parameters[free] = parameter
        return free


def _is_read(states: Mapping[str, float | str], lines: list[str], leaving: str) -> bool:
    """Return whether what leaves is a whole number of spikes, as a program's reader has it."""
    try:
        read(states, lines, leaving, spiking=True)
    except InvalidProgram:
        return False
    return True


def _comparisons(output: Expression) -> list[Expression]:
    """Return the comparisons by which an output fires."""
    comparisons, waiting = list[Expression](), [output]
    while waiting:
        each = waiting.pop()
        if each.operation in FIRES:
            comparisons.append(each)
        elif each.operation in PASSES_ON:
            waiting += each.operands
    return comparisons
