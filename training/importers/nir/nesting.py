"""Nested graphs made flat: a graph in a graph becomes its nodes, named "outer.inner", joined where it was."""

from __future__ import annotations

from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.nir.graph import Edge, Graph, GraphNode, NestedGraph
from spikeserve.training.importers.nir.limits import MAX_EDGES


def flatten(graph: NestedGraph) -> Graph:
    """Return the graph without graphs among its nodes; raises InvalidGraph for an edge of a node that is not there."""
    flat = _Flat()
    flat.add(graph, "")
    passing = {name for name in flat.inner if flat.nodes[name].type in ("Input", "Output")}
    edges = list(dict.fromkeys(flat.edges)) if passing else flat.edges
    for name in passing:
        before = [source for source, taker in edges if taker == name and source != name]
        after = [taker for source, taker in edges if source == name and taker != name]
        edges = [edge for edge in edges if name not in edge]
        if len(edges) + len(before) * len(after) > MAX_EDGES:
            raise InvalidGraph(f"the graph made flat has more than {MAX_EDGES:,} edges, which is refused")
        edges += [(source, taker) for source in before for taker in after]
    return Graph({name: node for name, node in flat.nodes.items() if name not in passing}, tuple(edges))


class _Flat:
    def __init__(self) -> None:
        self.nodes: dict[str, GraphNode] = {}
        self.edges: list[Edge] = []
        self.inner: set[str] = set()

    def add(self, graph: NestedGraph, prefix: str) -> None:
        for name, node in graph.nodes.items():
            full = prefix + name
            if isinstance(node, NestedGraph):
                self.add(node, f"{full}.")
                continue
            if full in self.nodes:
                raise InvalidGraph(f"node '{full}': two nodes have that name once nested graphs are made flat")
            self.nodes[full] = GraphNode(full, node.type, node.parameters)
            if prefix:
                self.inner.add(full)
        self.edges += [
            (prefix + _end(graph, before, "Output"), prefix + _end(graph, after, "Input"))
            for before, after in graph.edges
        ]


def _end(graph: NestedGraph, name: str, port: str) -> str:
    """Return the node that an edge's end means: of a nested graph its Output or Input, by path where it names one."""
    node = graph.nodes.get(name)
    if isinstance(node, NestedGraph):
        ports = [key for key, inner in node.nodes.items() if isinstance(inner, GraphNode) and inner.type == port]
        if len(ports) != 1:
            raise InvalidGraph(f"node '{name}': the graph in it has {len(ports)} nodes of type {port}, expected one")
        return f"{name}.{ports[0]}"
    if node is not None:
        return name
    outer, _, inner_name = name.partition(".")
    outer_node = graph.nodes.get(outer)
    if isinstance(outer_node, NestedGraph) and inner_name:
        return f"{outer}.{_end(outer_node, inner_name, port)}"
    raise InvalidGraph(f"an edge names the node '{name}', which the graph does not have")
