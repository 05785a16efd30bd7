"""A flat graph put in order: input and output found, cycles folded, each node after those that it takes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

import numpy as np

from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.nir.graph import DENSE, KNOWN, SPIKING, Graph, GraphNode
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import require_size

INPUT = "Input"
OUTPUT = "Output"
Warn = Callable[[str], None]  # takes a sentence on what was repaired


@dataclass(frozen=True)
class OrderedNode:
    """A node in its place: the nodes that it sums (none is the network's input), and its recurrent connection."""

    node: GraphNode
    sources: tuple[str | None, ...]
    loop: GraphNode | None = None


@dataclass(frozen=True)
class OrderedGraph:
    """A graph in order; `input_shape` is None where the file does not say."""

    input_shape: Shape | None
    nodes: tuple[OrderedNode, ...]


def arrange(graph: Graph, warn: Warn) -> OrderedGraph:
    """Put a graph in order.

    Raises InvalidGraph where it has another number of inputs or outputs than one, a node that cannot be served, or a
    cycle other than a spiking node through one Linear or Affine to itself.
    """
    _require_known(graph)
    _require_ends(graph)
    graph = replace(graph, edges=tuple(dict.fromkeys(graph.edges)))
    entry, leaving = graph.of_type(INPUT)[0].name, graph.of_type(OUTPUT)[0].name
    graph = _without_dead_ends(graph, entry, leaving, warn)
    graph, loops = _fold(graph)
    last = graph.sources(leaving)
    if len(last) != 1:
        listed = ", ".join(f"'{name}'" for name in last)
        raise InvalidGraph(f"the output sums {listed}; expected one spiking or integrating node before it")
    order = [graph.nodes[name] for name in _ordered(graph) if name not in (entry, leaving)]
    if not order:
        raise InvalidGraph("the input is the output: there is no node between them")
    return OrderedGraph(
        graph.nodes[entry].sizes("shape"),
        tuple(
            OrderedNode(
                node,
                tuple(None if source == entry else source for source in graph.sources(node.name)),
                loops.get(node.name),
            )
            for node in order
        ),
    )


def cycles(graph: Graph) -> list[list[str]]:
    """Return the cycles that folding looks at, each as the names along it: a node and itself, or two nodes."""
    edges = set(graph.edges)
    loops = [[name, name] for name in graph.nodes if (name, name) in edges]
    loops += [[a, b, a] for a, b in graph.edges if a != b and (b, a) in edges and graph.nodes[a].type in SPIKING]
    return loops


def _require_known(graph: Graph) -> None:
    for node in graph.nodes.values():
        if node.type not in KNOWN:
            raise InvalidGraph(f"node '{node.name}': {node.type} is not served; there are {', '.join(KNOWN)}")


def _require_ends(graph: Graph) -> None:
    for kind in (INPUT, OUTPUT):
        present = graph.of_type(kind)
        if len(present) != 1:
            listed = "".join(f", '{node.name}'" for node in present)
            raise InvalidGraph(f"the graph has {len(present)} nodes of type {kind}{listed}, expected one")


def _without_dead_ends(graph: Graph, entry: str, leaving: str, warn: Warn) -> Graph:
    reached = _reachable(entry, graph.takers)
    for name in graph.nodes:
        if name not in reached and graph.takers(name):
            raise InvalidGraph(f"node '{name}': nothing leads to it from the input")
    needed = _reachable(leaving, graph.sources)
    if entry not in needed:
        raise InvalidGraph("no path leads from the input to the output")
    for name in graph.nodes:
        if name not in needed:
            warn(f"node '{name}': no path leads from it to the output; it is left out")
    return graph.without(set(graph.nodes) - needed)


def _reachable(start: str, following: Callable[[str], list[str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        new = [name for name in following(waiting.pop()) if name not in seen]
        seen.update(new)
        waiting += new
    return seen


def _fold(graph: Graph) -> tuple[Graph, dict[str, GraphNode]]:
    """Take each cycle of a spiking node through one dense connection out of the graph; return those connections."""
    loops: dict[str, GraphNode] = {}
    for cycle in cycles(graph):
        name, through = cycle[0], cycle[-2]
        if graph.nodes[name].type not in SPIKING:
            raise InvalidGraph(f"node '{name}': {graph.nodes[name].type} feeds itself; only a spiking node can")
        if through != name and not _is_loop(graph, name, through):
            continue  # a cycle of another kind, which ordering will name
        if name in loops:
            raise InvalidGraph(f"node '{name}': has two recurrent connections, expected one")
        loops[name] = graph.nodes[through] if through != name else _identity(graph.nodes[name])
        graph = replace(graph, edges=tuple(edge for edge in graph.edges if edge != (name, name)))
    return graph.without({node.name for node in loops.values()} & set(graph.nodes) - set(loops)), loops


def _is_loop(graph: Graph, name: str, through: str) -> bool:
    return graph.nodes[through].type in DENSE and graph.sources(through) == [name] and graph.takers(through) == [name]


def _identity(node: GraphNode) -> GraphNode:
    """Return the connection that an edge from a node to itself is."""
    size = max((np.size(value) for value in node.parameters.values()), default=0)
    require_size(f"node '{node.name}': feeds itself through a weight that", (size, size))
    return GraphNode(f"{node.name} to itself", "Linear", {"weight": np.eye(size, dtype=np.float32)})


def _ordered(graph: Graph) -> list[str]:
    sorter = TopologicalSorter({name: graph.sources(name) for name in graph.nodes})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        around = " → ".join(f"'{name}'" for name in error.args[1])
        raise InvalidGraph(
            f"the cycle {around} cannot be served; expected an IF, LIF or CubaLIF through one Linear or Affine to "
            "itself"
        ) from error
