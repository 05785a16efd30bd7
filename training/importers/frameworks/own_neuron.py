"""One neuron of an author's own code: the terms of its first step, and which of them its states become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeserve.models.spec.parameters import Shape
from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.framework import Run
from spikeserve.training.importers.frameworks.terms import CONSTANT, ELEMENTWISE, NOTHING, SOURCE, START, Term


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
        found = {term for root in self.roots() for term in below(root, set()) if term in self.updates}
        return sorted(found, key=list(self.updates).index)

    def sources(self) -> list[Term]:
        """Return the values of other nodes that it takes, but not its own feedback."""
        found = [term for root in self.roots() for term in below(root, set()) if term.operation == SOURCE]
        return [term for term in dict.fromkeys(found) if term is not self.hears]

    def run(self, steps: Tensor, heard: Sequence[Tensor] = ()) -> Run:
        """Return the output over all steps (time_steps, batch, *shape), by the functions that its author called.

        `heard` is what its feedback gave in as many steps as are known; beyond those it is computed, and may round
        otherwise.
        """
        held = {start: self.constant(start).expand(steps.shape[1:]) for start in self.starts()}
        first = next((self.updates[start] for start in held if self.updates[start] is not self.hears), self.output)
        outputs, membranes = list[Tensor](), list[Tensor]()
        for step, current in enumerate(steps):
            values: dict[Term, Tensor] = dict(held)
            for root in self.roots():
                self._evaluate(root, values, current)
            outputs.append(values[self.output])
            membranes.append(values[first])
            if self.hears is not None and self.feedback is not None:
                values[self.hears] = heard[step] if step < len(heard) else self.feedback(values[self.output])
            held = {start: values[self.updates[start]] for start in held}
        return Run(torch.stack(outputs), torch.stack(membranes) if first is not self.output else None)

    def _evaluate(self, root: Term, values: dict[Term, Tensor], current: Tensor) -> None:
        for term in below(root, set(values)):
            if term.operation == SOURCE:
                values[term] = current
            elif term.is_leaf and term.operation != NOTHING:
                values[term] = self.constant(term)
            elif term.operation == NOTHING:
                continue
            else:
                given = [
                    each.value if each.operation == CONSTANT and term.operation == "pow" else values[each]
                    for each in term.terms
                    if each.operation != NOTHING
                ]
                row = ELEMENTWISE[term.operation]
                values[term] = row.run(*_filled(term, given)).float().expand(current.shape)

    def constant(self, term: Term) -> Tensor:
        """Return a constant or start as it spreads over the layer."""
        value = torch.as_tensor(term.value).detach().float()
        own = max(0, value.dim() - len(self.shape))
        rows = value.reshape(-1, *value.shape[own:]) if own else value[None]
        if not torch.equal(rows, rows[:1].expand_as(rows)) and not bool(rows.isnan().any()):
            raise Unclear(f"takes a value of its own for each sample of the batch ({term.where})")
        return rows[0]

    def described(self) -> tuple[Any, ...]:
        """Return what it computes, to compare with a neuron of another run."""
        places: dict[Term, int] = {}
        made: list[Any] = []
        for root in self.roots():
            for term in below(root, set(places)):
                places[term] = len(places)
                value = _digest(self.constant(term)) if term.operation in (CONSTANT, START) else None
                made.append((term.operation, *(places[each] for each in term.terms), value))
        return (*made, *((places[start], places[self.updates[start]]) for start in self.starts() if start in places))


def _filled(term: Term, given: list[Any]) -> list[Any]:
    """Return arguments with None in place of those that were left out."""
    left = iter(given)
    return [None if each.operation == NOTHING else next(left) for each in term.terms]


def _digest(value: Tensor) -> tuple[Any, ...]:
    return (*value.shape, value.contiguous().numpy().tobytes())


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
