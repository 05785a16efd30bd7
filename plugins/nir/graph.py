"""A NIR graph: nodes by name, each a type and its parameters, and edges between them; nested as in its file, or flat.

Flattened, a graph in a graph becomes its nodes, named "outer.inner", joined where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.training.errors import InvalidGraph

if TYPE_CHECKING:  # the process that reads a file imports this module, and would wait for pydantic
    from spikeserve.models.spec.parameters import Shape

Array: TypeAlias = NDArray[Any]
Edge: TypeAlias = tuple[str, str]

MAX_BYTES = 2**31  # of a file
MAX_GROUPS = 5_000  # a node is one, and metadata
MAX_EDGES = 20_000
MAX_DEPTH = 32

SPIKING = ("IF", "LIF", "CubaLIF")
INTEGRATING = ("I", "LI", "CubaLI")
WEIGHTED = ("Linear", "Affine", "Conv1d", "Conv2d")
DENSE = ("Linear", "Affine")
KNOWN = (
    *("Input", "Output", "Threshold", *SPIKING, *INTEGRATING, *WEIGHTED),
    *("Scale", "Delay", "Flatten", "SumPool2d", "AvgPool2d"),
)


@dataclass(frozen=True)
class GraphNode:
    """One node: NIR's name for its type, and its parameters as they stand in the file, in their own type."""

    name: str
    type: str
    parameters: Mapping[str, Any]

    def has(self, parameter: str) -> bool:
        """Return whether the file gives that parameter."""
        return parameter in self.parameters

    def array(self, parameter: str) -> Array:
        """Return a parameter that must be finite numbers; raises InvalidGraph where it is not."""
        if parameter not in self.parameters:
            raise InvalidGraph(f"node '{self.name}': {self.type} lacks {parameter}")
        value = np.asarray(self.parameters[parameter])
        if value.dtype.kind not in "fiu":
            raise InvalidGraph(
                f"node '{self.name}': {parameter} is {_shown(self.parameters[parameter])}, expected numbers"
            )
        if not value.size:
            raise InvalidGraph(f"node '{self.name}': {parameter} is empty, expected numbers")
        if not np.isfinite(value).all():
            raise InvalidGraph(f"node '{self.name}': {parameter} holds NaN or infinite values, expected finite ones")
        return value if value.dtype.kind == "f" else value.astype(np.float64)

    def positive(self, parameter: str) -> Array:
        """Return a parameter that must be more than 0 everywhere."""
        value = self.array(parameter)
        if not value.min() > 0:
            raise InvalidGraph(f"node '{self.name}': {parameter} is {value.min():g}, expected more than 0")
        return value

    def sizes(self, parameter: str) -> Shape | None:
        """Return a parameter as whole numbers, none of them for a scalar's axis, or None where the file has none."""
        value = self.parameters.get(parameter)
        if value is None:
            return None
        sizes = np.atleast_1d(np.asarray(value))
        if sizes.dtype.kind not in "fiu" or not np.isfinite(sizes).all() or np.any(sizes != np.round(sizes)):
            raise InvalidGraph(f"node '{self.name}': {parameter} is {_shown(value)}, expected whole numbers")
        return tuple(int(size) for size in sizes.ravel())


def _shown(value: object) -> str:
    """Return the beginning of a value on one line."""
    return " ".join(repr(value).split())[:80]


@dataclass(frozen=True)
class NestedGraph:
    """A graph with its metadata; a node may be a graph itself."""

    nodes: Mapping[str, GraphNode | NestedGraph]
    edges: tuple[Edge, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A graph of nodes without graphs among them."""

    nodes: Mapping[str, GraphNode]
    edges: tuple[Edge, ...]

    def sources(self, name: str) -> list[str]:
        """Return the nodes whose outputs are summed into `name`, in the file's order."""
        return self._ends[0].get(name, [])

    def takers(self, name: str) -> list[str]:
        """Return the nodes that take the output of `name`."""
        return self._ends[1].get(name, [])

    @cached_property
    def _ends(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        sources, takers = dict[str, list[str]](), dict[str, list[str]]()
        for before, after in self.edges:
            sources.setdefault(after, []).append(before)
            takers.setdefault(before, []).append(after)
        return sources, takers

    def of_type(self, *types: str) -> list[GraphNode]:
        """Return the nodes of some types."""
        return [node for node in self.nodes.values() if node.type in types]

    def without(self, names: set[str]) -> Graph:
        """Return the graph without some nodes and their edges."""
        return replace(
            self,
            nodes={name: node for name, node in self.nodes.items() if name not in names},
            edges=tuple(edge for edge in self.edges if not names & set(edge)),
        )


def flatten(graph: NestedGraph) -> Graph:
    """Return the graph without graphs among its nodes; raises InvalidGraph for an edge of a node that is not there."""
    nodes, edges, inner = dict[str, GraphNode](), list[Edge](), set[str]()

    def add(graph: NestedGraph, prefix: str) -> None:
        for name, node in graph.nodes.items():
            full = prefix + name
            if isinstance(node, NestedGraph):
                add(node, f"{full}.")
                continue
            if full in nodes:
                raise InvalidGraph(f"node '{full}': two nodes have that name once nested graphs are made flat")
            nodes[full] = GraphNode(full, node.type, node.parameters)
            if prefix:
                inner.add(full)
        for before, after in graph.edges:
            edges.append((prefix + _end(graph, before, "Output"), prefix + _end(graph, after, "Input")))

    add(graph, "")
    if len(edges) > MAX_EDGES:
        raise InvalidGraph(f"the graph made flat has more than {MAX_EDGES:,} edges, which is refused")
    passing = {name for name in inner if nodes[name].type in ("Input", "Output")}
    edges = list(dict.fromkeys(edges)) if passing else edges
    for name in passing:
        before = [source for source, taker in edges if taker == name and source != name]
        after = [taker for source, taker in edges if source == name and taker != name]
        edges = [edge for edge in edges if name not in edge]
        if len(edges) + len(before) * len(after) > MAX_EDGES:
            raise InvalidGraph(f"the graph made flat has more than {MAX_EDGES:,} edges, which is refused")
        edges += [(source, taker) for source in before for taker in after]
    return Graph({name: node for name, node in nodes.items() if name not in passing}, tuple(edges))


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
