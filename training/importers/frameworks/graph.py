"""A network as a graph of modules for one step: what a traced forward is folded into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import nn

INPUT = 0  # the index of a graph's first node


class Over(StrEnum):
    """How the values of all steps become one."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    LAST = "last"


@dataclass(frozen=True)
class Reading:
    """What a forward returns of its last node, and at which of the author's lines.

    `over` is how it reads the node over time: None where it returns every step and leaves that to its caller. The
    `membrane` or the output, times a `factor`, and of that the probabilities where a `softmax` follows. A `note` says
    what else might be read.
    """

    node: int
    over: Over | None = None
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
    reading: Reading
    repeats_input: bool = False

    @property
    def needed(self) -> list[int]:
        """The indices of the nodes that the answer depends on, in order, without the input."""
        needed = {self.reading.node}
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
