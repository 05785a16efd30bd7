"""A NIR graph as it stands in its file: nodes by name, each a type and its parameters, and edges between them."""

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
        if sizes.dtype.kind not in "fiu" or not np.array_equal(sizes, np.round(sizes)):
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
        return self._sources.get(name, [])

    def takers(self, name: str) -> list[str]:
        """Return the nodes that take the output of `name`."""
        return self._takers.get(name, [])

    @cached_property
    def _sources(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for before, after in self.edges:
            found.setdefault(after, []).append(before)
        return found

    @cached_property
    def _takers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for before, after in self.edges:
            found.setdefault(before, []).append(after)
        return found

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
