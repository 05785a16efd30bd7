"""A network as a graph of modules for one step: how a traced forward folds into it, its proof, and its run.

Every value of the trace is the output of a node at a step. A module or function on the same nodes is the same node, at
whichever step: so where the steps are copies of each other they become one set of nodes, and where they are not, a
neuron gets two sources or the answer two nodes, and the network is refused. A module with a state has one node, which
runs once in each step, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, takewhile

import torch
from torch import Tensor, nn

from spikeserve.models.bundle import TOLERANCE, close
from spikeserve.plugins.frameworks.entry import first_line
from spikeserve.plugins.frameworks.framework import Framework
from spikeserve.plugins.frameworks.function_modules import BatchNormOfSteps, ConvOverTime, extended
from spikeserve.plugins.frameworks.nouns import INPUT, Graph, GraphReadout, ModuleRun, Node, StepValue, Unsupported
from spikeserve.plugins.frameworks.own_neuron import OwnNeuron
from spikeserve.training.errors import NotConvertible, RepeatedStep
from spikeserve.training.fit.losses import OVER_TIME

KEPT_VALUES = 2**22  # of a node's output that are kept for the proof, and at least
KEPT_STEPS = 5
MAX_ANSWER = 4096  # values of a node of which all steps are kept, since an answer may be read from it


def run_graph(graph: Graph, framework: Framework, steps: Tensor) -> Iterator[tuple[int, ModuleRun]]:
    """Run each needed node from rest over all steps (time_steps, batch, *shape), by the framework's own modules.

    Raises NotConvertible where a module does not take what is before it.
    """
    outputs: dict[int, Tensor] = {INPUT: steps}
    needed = graph.needed
    last_use = {source: index for index in needed for source in graph.nodes[index].sources}
    for index in needed:
        result = run_node(graph.nodes[index], framework, outputs)
        outputs[index] = result.output
        yield index, result
        for source in [source for source in outputs if last_use.get(source, index + 1) <= index]:
            del outputs[source]


@torch.no_grad()
def run_node(node: Node, framework: Framework, outputs: Mapping[int, Tensor]) -> ModuleRun:
    """Run one node over all steps on the outputs of those before it."""
    first, *others = (outputs[source] for source in node.sources)
    if node.joins and node.module is not None:
        joined = node.module(*(each.flatten(0, 1) for each in (first, *others)))
        return ModuleRun(joined.unflatten(0, first.shape[:2]))
    arriving = sum(others, first)
    if node.module is None:
        return ModuleRun(arriving)
    if isinstance(node.module, BatchNormOfSteps | ConvOverTime):
        return ModuleRun(node.module(arriving))
    if isinstance(node.module, OwnNeuron):
        return node.module.run(arriving)
    try:
        return framework.run(node.module, arriving)
    except Exception as error:  # a framework may raise anything
        reason = first_line(error)
        raise NotConvertible(f"'{node.path}' fails when it is stepped by itself: {reason}") from error


@dataclass
class StepGraph:
    """The nodes of one step, as the trace finds them, by their computation and sources."""

    nodes: list[Node] = field(default_factory=lambda: [Node("input", None)])
    _indices: dict[tuple[Hashable, tuple[int, ...]], int] = field(default_factory=dict)
    _calls: dict[int, int] = field(default_factory=dict)
    _outputs: dict[int, dict[int, Tensor]] = field(default_factory=dict)

    def node(self, key: Hashable, sources: tuple[int, ...], make: Callable[[], Node]) -> int:
        """Return the node that computes `key` of `sources`, a new one if there is none."""
        full = (key, sources)
        if full not in self._indices:
            made = make()
            taken = {node.path for node in self.nodes}
            path, number = made.path, 2
            while path in taken:
                path, number = f"{made.path}_{number}", number + 1
            self._indices[full] = len(self.nodes)
            self.nodes.append(replace(made, path=path, sources=sources))
        return self._indices[full]

    def stateless(self, key: Hashable, values: Sequence[StepValue], make: Callable[[], Node]) -> StepValue:
        """Return the output of a node without a state, of values of one step."""
        steps = {value.step for value in values if value.step is not None}
        if len(steps) > 1:
            first, second, *_ = sorted(steps)
            raise Unsupported(
                f"takes values of step {first} and of step {second} at once, which only a neuron's state may"
            )
        node = self.node(key, tuple(value.node for value in values), make)
        return StepValue(node, steps.pop() if steps else None)

    def stateful(self, module: nn.Module, value: StepValue, make: Callable[[], Node]) -> StepValue:
        """Return the output of a module with a state at its next step; raises NotConvertible at any other."""
        call, path = self.calls(module), make().path
        earlier = next((node for node in self.nodes if node.module is module), None)
        if value.step is not None and value.step < call:
            raise RepeatedStep(f"'{path}' runs more than once in a step, and would share its state")
        if value.step is not None and value.step > call:
            raise NotConvertible(f"'{path}' takes step {value.step} of its input as its step {call}")
        if earlier is not None and not self._same(earlier.sources[0], value.node, call):
            before, after = self.nodes[earlier.sources[0]].path, self.nodes[value.node].path
            raise NotConvertible(
                f"'{path}' takes '{before}' first and '{after}' in its call {call}: the steps are not copies of each "
                "other, or it would share its state"
            )
        self._calls[id(module)] = call + 1
        sources = (value.node,) if earlier is None else earlier.sources
        return StepValue(self.node(id(module), sources, make), call)

    def _same(self, first: int, other: int, step: int) -> bool:
        """Return whether a node computes at a step what another did at those before, as far as batch norms go.

        A network may have batch norms of which it takes another at each step: those become one node.
        """
        if first == other:
            return True
        one, another = self.nodes[first], self.nodes[other]
        norms = extended(one.module, step, another.module)
        if norms is not None and one.sources == another.sources:
            self.nodes[first] = replace(one, module=norms)
            return True
        keys = {index: key for (key, _), index in self._indices.items() if index in (first, other)}
        if len(keys) < 2 or keys[first] != keys[other] or len(one.sources) != len(another.sources):
            return False
        return all(self._same(*pair, step) for pair in zip(one.sources, another.sources, strict=True))

    def calls(self, module: nn.Module) -> int:
        """Return how many steps a module with a state has run."""
        return self._calls.get(id(module), 0)

    @property
    def most_calls(self) -> int:
        """The most often that a module with a state has run."""
        return max(self._calls.values(), default=0)

    def keep(self, value: StepValue, returned: Tensor) -> None:
        """Store a node's output at a step, (batch, *sample), for the proof, unless it is stored or large."""
        by_step, step = self._outputs.setdefault(value.node, {}), value.step or 0
        small = returned[0].numel() <= MAX_ANSWER or (step + 1) * returned.numel() <= KEPT_VALUES
        if step not in by_step and (small or step < KEPT_STEPS):
            by_step[step] = returned.clone()

    def _kept(self, index: int) -> list[Tensor]:
        """Return a node's outputs that are stored, from step 0 on without a gap."""
        by_step = self._outputs.get(index, {})
        return [by_step[step] for step in takewhile(by_step.__contains__, count())]

    def require_answer(self, readout: GraphReadout, steps: Sequence[int], returned: Tensor) -> None:
        """Raise NotConvertible where what a forward returned is not what is read of a node over these steps.

        `returned` is (batch, *sample), or of the steps one by one (steps, batch, *sample) where it reads none of them.
        It is compared once the graph is proven, which finds what nodes gave that were not seen.
        """
        outputs = self._outputs.get(readout.node, {})
        if any(step not in outputs for step in steps):
            return
        values = torch.stack([outputs[step] for step in steps])
        read = (values if readout.over is None else OVER_TIME[readout.over](values)[None]).flatten(0, 1).flatten(1)
        read = read * readout.factor
        possible = [read.softmax(-1), read.log_softmax(-1)] if readout.softmax else [read]
        possible = [read.sigmoid()] if readout.sigmoid else possible
        possible += [] if returned.is_floating_point() else [read.argmax(-1)]
        if not any(all_close(one, returned) for one in possible):
            what = f"the {readout.over} over time" if readout.over else "the output"
            raise NotConvertible(
                f"what it returns is not {what} of '{self.nodes[readout.node].path}', as it was understood"
            )

    def proven(self, readout: GraphReadout, framework: Framework, inputs: Tensor, *, repeats: bool) -> Graph:
        """Return the graph, each node run from rest on what those before it gave, and compared with what it gave.

        `inputs` is the network's input (time_steps, batch, *shape), of one step where it `repeats`. Nodes are compared
        one by one: a connection may round otherwise in a larger batch, so that spikes which differ by that would part
        the whole runs. A sample's values, unlike spikes, need only be close.
        """
        graph = Graph(tuple(self.nodes), readout)
        outputs, membranes, repeating = {INPUT: inputs}, dict[int, Tensor](), {INPUT} if repeats else set[int]()
        for index in graph.needed:
            node, kept = graph.nodes[index], self._kept(index)
            if node.module is not None and not node.joins and framework.kind(node.module) is None:
                return graph  # its class is refused later, with all others
            has_state = isinstance(node.module, OwnNeuron | ConvOverTime) or (
                node.module is not None and framework.takes(node.module) is not None
            )
            by_step = len(node.module.norms) if isinstance(node.module, BatchNormOfSteps) else 0
            if repeating.issuperset(node.sources) and not has_state and not by_step:
                repeating.add(index)
            arriving = _of_as_many_steps(node, outputs, repeating, by_step or len(kept))
            if node.membrane:
                alone = membranes.get(node.sources[0])
            elif isinstance(node.module, OwnNeuron) and node.module.hears is not None:
                heard = self._kept(node.module.hears.value.node)
                alone = node.module.run(arriving[node.sources[0]], heard).output
            else:
                result = run_node(node, framework, arriving)
                alone = result.output
                membranes |= {} if result.membrane is None else {index: result.membrane}
            if kept and alone is not None and not all_close(alone[: len(kept)], torch.stack(kept[: len(alone)])):
                how = "when it is stepped from rest" if has_state else "of what comes before it"
                raise NotConvertible(f"'{node.path}' gives other values in the forward than {how}")
            if kept or alone is not None:
                outputs[index] = torch.stack([*kept, *(() if alone is None else alone[len(kept) :])])
                self._outputs[index] = dict(enumerate(outputs[index])) | self._outputs.get(index, {})
        return graph

    def computes(self, readout: GraphReadout) -> list[tuple[Hashable, ...]]:
        """Describe each needed node and its sources, to compare with another graph."""
        graph = Graph(tuple(self.nodes), readout)
        places = {index: place for place, index in enumerate([INPUT, *graph.needed])}
        keys = {index: key for (key, _), index in self._indices.items()}
        made: list[tuple[Hashable, ...]] = []
        for index in graph.needed:
            node, key = self.nodes[index], keys.get(index)
            named = node.path if isinstance(key, int) else key  # by its id a module is the same in one run only
            named = node.module.described() if isinstance(node.module, OwnNeuron) else named
            made.append((named, *(places[source] for source in node.sources)))
        return made


def _of_as_many_steps(node: Node, outputs: Mapping[int, Tensor], repeating: set[int], most: int) -> dict[int, Tensor]:
    """Return the outputs of a node's sources, cut to as many steps as there are of all, or to `most` that are known."""
    steps = min((len(outputs[source]) for source in node.sources if source not in repeating), default=most or 1)
    return {
        source: outputs[source].expand(steps, *outputs[source].shape[1:])
        if source in repeating
        else outputs[source][:steps]
        for source in node.sources
    }


def all_close(values: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether two tensors of equal size are equal but for rounding, in whatever shape and unit."""
    one, other = (tensor.detach().reshape(-1).double().numpy() for tensor in (values, expected))
    return one.shape == other.shape and bool(close(one, other, tolerance).all())
