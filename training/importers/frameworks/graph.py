"""A network as a graph of modules for one step, which a traced forward becomes; and its run over all steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.entry import first_line
from spikeserve.training.importers.frameworks.framework import Framework, ModuleRun
from spikeserve.training.importers.frameworks.function_modules import BatchNormOfSteps
from spikeserve.training.importers.frameworks.own_neuron import OwnNeuron

INPUT = 0  # the index of a graph's first node


class Reduction(StrEnum):
    """How the values of all steps become one."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    LAST = "last"


@dataclass(frozen=True)
class GraphReadout:
    """The node that a forward returns, how it is reduced over time, and at which of the author's lines.

    `over` is how it reads the node over time: None where it returns every step and leaves that to its caller. The
    `membrane` or the output, times a `factor`, and of that the probabilities where a `softmax` follows. A `note` says
    what else might be read.
    """

    node: int
    over: Reduction | None = None
    membrane: bool = False
    factor: float = 1.0
    softmax: bool = False
    where: str = ""
    note: str = ""


@dataclass(frozen=True)
class Node:
    """A module with its path and the nodes before it, whose sum it takes in order.

    `module` is None for the network's input, and for a sum. `where` is the author's line that calls it, which names
    it in a refusal where it is a function and no module of the network; `membrane` marks what holds a neuron's state,
    and `joins` a module that takes its sources one by one and not their sum. `given_state` is whether its author hands
    a neuron its state at each step.
    """

    path: str
    module: nn.Module | None
    sources: tuple[int, ...] = ()
    where: str = ""
    membrane: bool = False
    joins: bool = False
    given_state: bool = False


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run, the network's input first, and what is read.

    `repeats_input`: the network takes one sample, and gives it to its nodes at every step itself.
    """

    nodes: tuple[Node, ...]
    readout: GraphReadout
    repeats_input: bool = False

    @property
    def needed(self) -> list[int]:
        """The indices of the nodes that the answer depends on, in order, without the input."""
        needed = {self.readout.node}
        for index in range(len(self.nodes) - 1, INPUT, -1):
            if index in needed:
                needed |= set(self.nodes[index].sources)
        return sorted(needed - {INPUT})

    def users(self, index: int) -> int:
        """Return how many of the needed nodes take a node's output."""
        return sum(index in self.nodes[other].sources for other in self.needed)

    def terms(self, index: int) -> tuple[int, ...]:
        """Return the nodes whose outputs are added, from the first to the last, to give a node's output.

        Floating-point addition is commutative but not associative: of two terms the one that is a sum comes first. A
        sum of two sums has no such order and stays a term, for its first one to be a node of its own.
        """
        node = self.nodes[index]
        if index == INPUT or node.module is not None or node.membrane:
            return (index,)
        first, second = node.sources
        if self._is_sum(second) and not self._is_sum(first):
            first, second = second, first
        return (*self.terms(first), second)

    def _is_sum(self, index: int) -> bool:
        return index != INPUT and self.nodes[index].module is None and not self.nodes[index].membrane


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


def run_node(node: Node, framework: Framework, outputs: Mapping[int, Tensor]) -> ModuleRun:
    """Run one node over all steps on the outputs of those before it."""
    if node.joins and node.module is not None:
        inputs = [outputs[source] for source in node.sources]
        with torch.no_grad():
            return ModuleRun(node.module(*(each.flatten(0, 1) for each in inputs)).unflatten(0, inputs[0].shape[:2]))
    arriving = outputs[node.sources[0]]
    for source in node.sources[1:]:
        arriving = arriving + outputs[source]
    if node.module is None:
        return ModuleRun(arriving)
    if isinstance(node.module, BatchNormOfSteps):
        with torch.no_grad():
            return ModuleRun(node.module(arriving))
    if isinstance(node.module, OwnNeuron):
        return node.module.run(arriving)
    try:
        with torch.no_grad():
            return framework.run(node.module, arriving)
    except Exception as error:  # a framework may raise anything
        reason = first_line(error)
        raise NotConvertible(f"'{node.path}' fails when it is stepped by itself: {reason}") from error
