"""The steps of a traced forward folded into one graph per step.

Every value of the trace is the output of a node at a step. A module or function on the same nodes is the same node, at
whichever step: so where the steps are copies of each other they become one set of nodes, and where they are not, a
neuron gets two sources or the answer two nodes, and the network is refused. A module with a state has one node, which
runs once in each step, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikeserve.training.errors import NotConvertible, RepeatedStep
from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.batch_norms import extended
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.graph import INPUT, Graph, Node, Over, Reading
from spikeserve.training.importers.frameworks.run_graph import run_node

KEPT_VALUES = 2**22  # of a node's output that are kept for the proof, and at least
KEPT_STEPS = 5
MAX_ANSWER = 4096  # values of a node of which all steps are kept, since an answer may be read from it

READ: Mapping[Over, Callable[[Tensor], Tensor]] = {
    Over.SUM: lambda values: values.sum(0),
    Over.MEAN: lambda values: values.mean(0),
    Over.MAX: lambda values: values.amax(0),
    Over.LAST: lambda values: values[-1],
}


class Value(NamedTuple):
    """The output of a node at a step; None where it is the same at every step."""

    node: int
    step: int | None


@dataclass
class _Kept:
    """What a node was given and returned at its first steps, (batch, *sample) each."""

    given: list[Tensor] = field(default_factory=list)
    returned: list[Tensor] = field(default_factory=list)


@dataclass
class Fold:
    """Nodes as the trace finds them, by what they compute of which others."""

    nodes: list[Node] = field(default_factory=lambda: [Node("input", None)])
    _found: dict[tuple[Hashable, tuple[int, ...]], int] = field(default_factory=dict)
    _calls: dict[int, int] = field(default_factory=dict)
    _kept: dict[int, _Kept] = field(default_factory=dict)
    _outputs: dict[int, dict[int, Tensor]] = field(default_factory=dict)

    def node(self, key: Hashable, sources: tuple[int, ...], make: Callable[[], Node]) -> int:
        """Return the node that computes `key` of `sources`, a new one if there is none."""
        full = (key, sources)
        if full not in self._found:
            made = make()
            taken = {node.path for node in self.nodes}
            path, number = made.path, 2
            while path in taken:
                path, number = f"{made.path}_{number}", number + 1
            self._found[full] = len(self.nodes)
            self.nodes.append(replace(made, path=path, sources=sources))
        return self._found[full]

    def stateless(self, key: Hashable, values: Sequence[Value], make: Callable[[], Node]) -> Value:
        """Return what a node without a state gives of values of one step."""
        steps = {value.step for value in values if value.step is not None}
        if len(steps) > 1:
            first, second, *_ = sorted(steps)
            raise Unclear(f"takes values of step {first} and of step {second} at once, which only a neuron's state may")
        node = self.node(key, tuple(value.node for value in values), make)
        return Value(node, steps.pop() if steps else None)

    def stateful(self, module: nn.Module, value: Value, make: Callable[[], Node]) -> Value:
        """Return what a module with a state gives at its next step; raises NotConvertible where it is not that step."""
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
        return Value(self.node(id(module), sources, make), call)

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
        keys = {index: key for (key, _), index in self._found.items() if index in (first, other)}
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

    def keep(self, value: Value, given: Tensor, returned: Tensor) -> None:
        """Keep what a node was given and returned at a step, (batch, *sample), unless it is kept or much."""
        kept = self._kept.setdefault(value.node, _Kept())
        step = value.step or 0
        if returned[0].numel() <= MAX_ANSWER:
            self._outputs.setdefault(value.node, {}).setdefault(step, returned.clone())
        if step == len(kept.given) and (step < KEPT_STEPS or (step + 1) * returned.numel() <= KEPT_VALUES):
            kept.given.append(given.clone())
            kept.returned.append(returned.clone())

    def require_answer(self, reading: Reading, steps: Sequence[int], returned: Tensor) -> None:
        """Raise NotConvertible where what a forward returned is not what is read of a node over these steps."""
        outputs = self._outputs.get(reading.node, {})
        if reading.over is None or any(step not in outputs for step in steps):
            return
        values = torch.stack([outputs[step] for step in steps]).flatten(2)
        read = READ[reading.over](values) * reading.factor
        possible = [read.softmax(-1), read.log_softmax(-1)] if reading.softmax else [read]
        if not any(torch.allclose(one.reshape(-1), returned.reshape(-1), rtol=1e-4, atol=1e-4) for one in possible):
            raise NotConvertible(
                f"what it returns is not the {reading.over} over time of '{self.nodes[reading.node].path}', as it was "
                "understood"
            )

    def proven(self, reading: Reading, framework: Framework) -> Graph:
        """Return the graph, each node run from rest on what it was given in the trace and compared with what it gave.

        A connection may round otherwise in a larger batch, so that values, unlike spikes, need only be close.
        """
        graph = Graph(tuple(self.nodes), reading)
        for index in graph.needed:
            node, kept = graph.nodes[index], self._kept.get(index)
            if node.module is None or node.joins or framework.kind(node.module) is None or not kept or not kept.given:
                continue  # its class is refused later, with all others; or it has no state and runs at a late step only
            alone = run_node(Node(node.path, node.module, (INPUT,)), framework, {INPUT: torch.stack(kept.given)}).output
            returned = torch.stack(kept.returned)
            if alone.numel() != returned.numel() or not torch.allclose(
                alone.reshape(returned.shape), returned, rtol=1e-4, atol=1e-4
            ):
                raise NotConvertible(
                    f"'{node.path}' gives other values in the forward than when it is stepped from rest"
                )
        return graph
