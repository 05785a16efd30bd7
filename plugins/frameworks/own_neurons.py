"""Neurons that are the author's own code: what element-wise functions leave from step to step, as one step of terms.

A value that a later layer takes, or that is returned, is the output of such a neuron. The first step's terms are its
template: a later step is the same neuron where its terms match the template's, current for current and constant for
constant, and where each start matches what one term of the template left the step before. That term is the state after.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks.axes import Axes, AxisKind, AxisPart
from spikeserve.plugins.frameworks.function_modules import multiply
from spikeserve.plugins.frameworks.modifications import digest
from spikeserve.plugins.frameworks.nouns import GraphReadout, Node, Signal, StepValue, Term, TimeReduction, Unsupported
from spikeserve.plugins.frameworks.own_neuron import OwnNeuron, below
from spikeserve.plugins.frameworks.state_finder import COMMUTING, operands, site
from spikeserve.plugins.frameworks.terms import CONSTANT, HAVE_NODES, JOINED, SOURCE, START

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.tracer import Tracer


@dataclass
class _CutTerms:
    """A cut of a neuron's terms at the outputs of these nodes. `parts` are the terms after it, by the whole ones."""

    nodes: set[int]
    parts: dict[Term, Term] = field(default_factory=dict)


@dataclass
class OwnNeurons:
    """The neurons of a run, as they are found."""

    tracer: Tracer
    neurons: list[OwnNeuron] = field(default_factory=list)
    _made: dict[Term, StepValue] = field(default_factory=dict)
    _cuts: dict[OwnNeuron, _CutTerms] = field(default_factory=dict)
    _walked: dict[Any, set[Term]] = field(default_factory=dict)
    _why: Unsupported | None = None

    @property
    def lose_a_state(self) -> bool:
        """Whether a neuron that takes what may be a state has none, or one of which no later step was seen."""

        def loses(neuron: OwnNeuron) -> bool:
            terms = (term for root in neuron.roots() for term in below(root, set()))
            return not neuron.updates or any(term.operation == START and term not in neuron.updates for term in terms)

        return bool(self.tracer.states) and any(map(loses, self.neurons))

    def signal(self, term: Term) -> Signal:
        """Return the output of the neuron that a term is of; raises Unsupported where the steps are no copies."""
        term = term.bare
        axes = term.axes or self._axes(term)
        for earlier in self._steps(term):
            if earlier not in self._made:
                self._made[earlier] = self._of(earlier, axes)
        return Signal(axes, (self._made[term],))

    def answer(self, term: Term) -> Signal | TimeReduction:
        """Return a returned term's readout: a neuron's output summed over time, scaled or not, or its last output."""
        term = term.bare
        if term.operation == "sigmoid":
            return self._probabilities(term)
        if term.operation in ("mul", "div") and len(term.terms) == 2 and term.terms[1].operation == CONSTANT:
            unscaled, factor = self.answer(term.terms[0]), float(term.terms[1].value)
            if isinstance(unscaled, TimeReduction):
                return unscaled.times(factor if term.operation == "mul" else 1 / factor)
            return self.signal(term)
        added, rest = list[Term](), term
        while rest.operation == "add":
            one, other = rest.terms
            one, other = (other, one) if other.site == term.site or other.operation == START else (one, other)
            added.append(other)
            rest = one
        if rest.operation != START or bool(torch.as_tensor(rest.value).any()) or len({x.site for x in added}) != 1:
            return self.signal(term)
        values = [self.signal(each).values[0] for each in reversed(added)]
        if len({value.node for value in values}) != 1 or len(values) < 2:
            return self.signal(term)
        steps = tuple(value.step or 0 for value in values)
        axes = term.axes or self._axes(term)
        return TimeReduction(GraphReadout(values[0].node, Reduction.SUM, where=term.where), steps, axes)

    def _probabilities(self, term: Term) -> Signal | TimeReduction:
        """Return a sigmoid as that of an answer, or as a neuron where neurons with a state come before each step's."""
        if self.tracer.step_graph.most_calls or self.tracer.states or any(neuron.first for neuron in self.neurons):
            with suppress(Unsupported):
                return self.signal(term)
        (of,) = term.terms
        read = Signal(of.axes, (of.value,)) if of.operation == SOURCE and of.axes else self.answer(of)
        if isinstance(read, Signal):
            value = read.values[0]
            read = TimeReduction(GraphReadout(value.node, where=term.where), (value.step or 0,), read.axes)
        return replace(read, readout=replace(read.readout, softmax=True, sigmoid=True))

    def _steps(self, term: Term) -> list[Term]:
        """Return a term and those below it that the same instruction made, which are its own in earlier steps."""
        walked = self._walked.setdefault(term.site, set())
        same = [each for each in below(term, walked) if each.site == term.site and not each.is_leaf]
        return same if term in same else [*same, term]

    def _axes(self, term: Term) -> Axes:
        if not term.shape or term.shape[0] != self.tracer.batch:
            raise Unsupported("gives what is no layer of the whole batch")
        return Axes.of(((AxisPart(AxisKind.BATCH, self.tracer.batch),),), term.shape[1:])

    def _of(self, term: Term, axes: Axes) -> StepValue:
        """Return the value of a term as the next step of a neuron, or as the first of a new one."""
        self._why = None
        alike = [neuron for neuron in self.neurons if neuron.output.site == term.site]
        for neuron in alike:
            cut = self._cuts.get(neuron)
            if self._matches(neuron, self._parted(term, cut) if cut else term, len(neuron.maps)):
                return self._value(neuron, term, axes)
        taken = dict.fromkeys(each.value.node for each in below(term, set()) if each.operation == SOURCE)
        if len(taken) > 1 and (concatenated_state := self._joined(term)) is not None:
            return concatenated_state
        later = any(each.operation == SOURCE and each.value.step for each in below(term, set()))
        for neuron in alike if later else ():
            if len(neuron.maps) == 1 and set(taken) == {each.value.node for each in neuron.sources()}:
                neuron.begin_later(term)
                return self._value(neuron, term, axes)
        if later:
            raise self._why or Unsupported("is of a later step, and no first one was seen", term.where)
        if len(taken) > 1 and (parted := self._of_parts(term, axes)) is not None:
            return parted
        if len(taken) > 1:
            first, second, *_ = (self.tracer.step_graph.nodes[node].path for node in taken)
            raise Unsupported(
                f"takes '{first}' and '{second}' at once, and a neuron takes one current: add them before it",
                term.where,
            )
        return self._value(self._new(term, axes), term, axes)

    def _new(self, term: Term, axes: Axes) -> OwnNeuron:
        """Return a new neuron whose first step this term is."""
        neuron = OwnNeuron(term, axes.sample)
        self._matches(neuron, term, 0)
        taken = dict.fromkeys(each.value.node for each in neuron.sources())
        make = lambda: Node(term.path or "neuron", neuron, where=term.where)  # noqa: E731
        neuron.own = self.tracer.step_graph.node(("own neuron", len(self.neurons)), tuple(taken), make)
        self.neurons.append(neuron)
        self.tracer.describe(neuron.own, axes.sample, ())
        return neuron

    def _of_parts(self, term: Term, axes: Axes) -> StepValue | None:
        """Return the value of a new neuron that takes what other neurons give, None where it still takes two currents.

        A term holds what those neurons compute, as far as layers took their outputs: there it is cut.
        """
        cut = _CutTerms(
            {self._made[each].node for each in below(term, set()) if each in self._made and not each.is_leaf}
        )
        parted = self._parted(term, cut)
        if len({each.value.node for each in below(parted, set()) if each.operation == SOURCE}) != 1:
            return None
        neuron = self._new(parted, axes)
        self._cuts[neuron] = cut
        return self._value(neuron, term, axes)

    def _parted(self, term: Term, cut: _CutTerms) -> Term:
        """Return a term in which what other neurons give, and sums and products of that, are values of nodes."""
        for each in below(term, set(cut.parts)):
            made = self._made.get(each)
            if each.is_leaf:
                cut.parts[each] = each
            elif made is not None and made.node in cut.nodes and each.axes is not None:
                cut.parts[each] = self.tracer.source(made, each.axes)
            else:
                terms = tuple(cut.parts[other] for other in each.terms)
                plain = all(other.plain or other.operation == CONSTANT for other in terms)
                plain = plain and each.operation in HAVE_NODES
                part = each if terms == each.terms else replace(each, terms=terms, plain=plain)
                several = plain and len({x.value.node for x in below(part, set()) if x.operation == SOURCE}) > 1
                if several and part.axes is not None and (value := self._joined(part)) is not None:
                    part = self.tracer.source(value, part.axes)
                cut.parts[each] = part
        return cut.parts[term]

    def _joined(self, term: Term) -> StepValue | None:
        """Return the sum or product of what two neurons give, None for anything else that takes two currents."""
        if term.operation not in ("add", "mul") or any(each.axes != term.axes for each in term.terms):
            return None
        values = [each.value if each.operation == SOURCE else self.signal(each).values[0] for each in term.terms]
        key, node = "add", Node("sum", None, where=term.where)
        if term.operation == "mul":
            key, node = "multiply", Node("mul", multiply(), where=term.where, joins=True)
        value = self.tracer.step_graph.stateless(key, values, lambda: node)
        self.tracer.describe(value.node, term.shape[1:], ())
        return value

    def _value(self, neuron: OwnNeuron, term: Term, axes: Axes) -> StepValue:
        value = StepValue(neuron.own, len(neuron.maps) - 1)
        version, tensor = (0, None) if term.kept is None else (term.kept[0], term.kept[1]())
        if tensor is not None and tensor._version == version:
            self.tracer.step_graph.keep(value, axes.time_first(tensor.float())[0])
        return value

    def _matches(self, neuron: OwnNeuron, term: Term, step: int) -> bool:
        """Return whether a term is the neuron's output at this step, and add what was found to the neuron if so."""
        match = _Match(neuron, step)
        if match.same(neuron.output, term, step):
            match.keep()
            return True
        self._why = match.why or self._why
        return False

    def finish(self, needed: Collection[int]) -> None:
        """Find the feedback of each needed neuron; raises Unsupported where it takes what it cannot have."""
        for neuron in self.neurons:
            if neuron.own not in needed:
                continue
            for start in neuron.starts():
                after = neuron.updates[start]
                if after.operation != SOURCE:
                    continue
                node = self.tracer.step_graph.nodes[after.value.node]
                if node.sources == (neuron.own,) and node.module is not None:
                    if neuron.hears not in (None, after):
                        raise Unsupported("hears itself by two connections, expected one", node.where)
                    neuron.hears, neuron.feedback = after, node.module
            taken = {each.value.node for each in neuron.sources()}
            node = self.tracer.step_graph.nodes[neuron.own]
            if len(taken) > 1 or (taken and min(taken) > neuron.own):
                other = self.tracer.step_graph.nodes[max(taken)].path
                raise Unsupported(
                    f"takes what '{other}' gave the step before, expected its own current, or its own output through "
                    "one connection",
                    node.where,
                )
            self.tracer.step_graph.nodes[neuron.own] = replace(node, sources=tuple(taken))


class _Match:
    """One attempt to see a term as a neuron's output at a step."""

    def __init__(self, neuron: OwnNeuron, step: int) -> None:
        self.neuron = neuron
        self.why: Unsupported | None = None
        self._terms: list[dict[Term, Term]] = [{} for _ in range(step + 1)]
        self._updates: dict[Term, Term] = {}

    def keep(self) -> None:
        """Add what was found to the neuron."""
        maps = self.neuron.maps
        maps += [{} for _ in range(len(self._terms) - len(maps))]
        for step_map, terms in zip(maps, self._terms, strict=False):
            step_map |= terms
        self.neuron.updates |= self._updates

    def same(self, template: Term, term: Term, step: int) -> bool:
        """Return whether a template's term is this one at a step."""
        known = self._terms[step].get(template)
        if known is None and step < len(self.neuron.maps):
            known = self.neuron.maps[step].get(template)
        if known is not None:
            return known is term or self._constants(known, term)
        if step == self.neuron.first and (step or template is not term):
            return self._no(template, term)
        alike = self._same(template, term, step)
        if alike:
            self._terms[step][template] = term
        return alike

    def _same(self, template: Term, term: Term, step: int) -> bool:
        kind = template.operation
        if kind == START:
            return step == 0 or self._is_left(template, term, step)
        if kind != term.operation or len(template.terms) != len(term.terms):
            return self._no(template, term)
        if kind == SOURCE:
            first, now = template.value, term.value
            same = first.node == now.node and (first.step is None or first.step + step == now.step)
            return same or self._no(template, term)
        if kind == CONSTANT:
            return self._constants(template, term) or self._no(template, term)
        if all(self.same(*pair, step) for pair in zip(template.terms, term.terms, strict=True)):
            return True
        return kind in COMMUTING and all(
            self.same(*pair, step) for pair in zip(template.terms, term.terms[::-1], strict=True)
        )

    def _is_left(self, start: Term, term: Term, step: int) -> bool:
        """Return whether a term is what the state that begins at `start` holds when this step begins."""
        after = self.neuron.updates.get(start) or self._updates.get(start)
        if after is not None:
            return self.same(after, term, step - 1)
        if term is start:
            return True
        first = self.neuron.first
        if step == first + 1:
            before = _steps_of(term) <= {*range(step)}
            after = (self.neuron.copied(term) if first else term) if before else None
        else:
            earlier = self.neuron.maps[step - 1]
            after = next((template for template, other in earlier.items() if other is term), None)
        if after is None:
            return self._no(start, term)
        self._updates[start] = after
        return True

    def _constants(self, one: Term, other: Term) -> bool:
        if one.operation != CONSTANT or other.operation != CONSTANT:
            return False
        first, second = one.value, other.value
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return first.shape == second.shape and torch.equal(first, second)
        return not isinstance(first, Tensor) and not isinstance(second, Tensor) and bool(first == second)

    def _no(self, template: Term, term: Term) -> bool:
        """Note why it does not match, by the author's line."""
        if self.why is None:
            where = next((each.where for each in (term, *term.terms, template) if each.where), "")
            numbers = term.operation == template.operation == CONSTANT
            what = "takes another number" if numbers else "computes something else"
            self.why = Unsupported(f"{what} than in the first step, and each step has to be the same", where)
        return False


def _steps_of(term: Term) -> set[int]:
    return {each.value.step or 0 for each in below(term, set()) if each.operation == SOURCE}


CATS = frozenset(("cat", "concat", "concatenate"))


def concatenated_state(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term | None:
    """Return a concatenation with a state as a term, None where no part is a state; each part is copied."""
    name, arguments = operands(func, args, kwargs)
    if name not in CATS or not isinstance(args[0] if args else kwargs.get("tensors"), list | tuple):
        return None
    where = site()
    parts = {key: value for key, value in arguments.items() if isinstance(value, Tensor)}
    states = {key for key in parts if (where, key) in tracer.states}
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if not states:
        return None
    if axis not in (1, -1) or any(part.dim() != 2 for part in parts.values()):
        raise Unsupported("joins states along another axis than that of the neurons")
    terms = []
    for key, value in parts.items():
        term = tracer.term(value)
        if term is None or term.plain:
            traced = tracer.traced(value)
            if (key in states) != (traced is None) or not isinstance(traced, Signal | None):
                raise Unsupported("joins values of several steps")
            term = Term(START if key in states else SOURCE, value=traced)
        terms.append(Term(JOINED, (term,), value=(key in states, value.detach().clone())))
    return Term(JOINED, tuple(terms), where=tracer.line())


def concatenated_linear(tracer: Tracer, term: Term, weight: Tensor, bias: Tensor | None, path: str) -> Term:
    """Return a Linear of a concatenation: the sum of one Linear for each part, of which the first has the bias."""
    made: list[Term] = []
    begin = 0
    for part in term.terms:
        size = part.value[1].shape[1]
        module = nn.Linear(size, len(weight), bias=bias is not None and not begin).requires_grad_(False)
        module.weight.data = weight[:, begin : begin + size].detach().clone()
        if module.bias is not None and bias is not None:
            module.bias.data = bias.detach().clone()
        made.append(_of_part(tracer, part, module, f"{path}_{len(made)}" if made else path, term.where))
        begin += size
    summed, *others = made
    for other in others:
        axes = summed.axes or other.axes
        summed = Term("add", (summed, other), axes=axes, shape=other.shape, site=(JOINED, path), where=term.where)
    return summed


def _of_part(tracer: Tracer, part: Term, module: nn.Linear, path: str, where: str) -> Term:
    is_state, values = part.value
    (term,) = part.terms
    out: Tensor = torch.nn.functional.linear(values, module.weight, module.bias)
    if is_state and term.operation == START:
        return Term(START, value=out, where=where, shape=tuple(out.shape))
    signal = term.value if isinstance(term.value, Signal) else tracer.own.signal(term)
    key = (JOINED, path, *digest(module.weight))
    signal = tracer.applied(key, lambda: Node(path, module, where=where), signal, values, out)
    return tracer.source(signal.values[0], signal.axes.around(tuple(out.shape[1:])))
