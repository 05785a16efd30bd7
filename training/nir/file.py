"""NIR's file format, HDF5, read and written with h5py alone: any version of the `nir` package may have made the file.

    /version                the nir package's version
    /node                   a graph: type "NIRGraph", edges (n, 2) of names, nodes/<name>/…, metadata/…
    /node/nodes/<name>      a node: its type, and one data set for each parameter

A file is somebody else's: only plain data inside the file is read (no link to another file, no external storage),
and no more than `MOST_BYTES` of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from training.errors import InvalidGraph
from training.nir.graph import GraphNode, NestedGraph

MOST_BYTES = 2**31
MOST_NODES = 5_000
DEEPEST = 32
WRITTEN_AS = "1.0.4"  # the nir version whose fields are written


@dataclass(frozen=True)
class NirFile:
    """A file as read: its graph, the version that it names and the SHA-256 of its bytes."""

    graph: NestedGraph
    version: str
    sha256: str


@dataclass
class _Budget:
    """What may still be read of a file."""

    bytes: int = MOST_BYTES
    nodes: int = MOST_NODES

    def take(self, path: str, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise InvalidGraph(f"'{path}': the file unfolds to more than {MOST_BYTES:,} bytes, which is refused")

    def take_node(self) -> None:
        self.nodes -= 1
        if self.nodes < 0:
            raise InvalidGraph(f"the graph has more than {MOST_NODES:,} nodes, which is refused")


def read(path: Path) -> NirFile:
    """Read a NIR file; raises InvalidGraph with one sentence where it is none, or not one that can be read safely."""
    if not path.is_file():
        raise InvalidGraph(f"'{path}' is not a file")
    if path.stat().st_size > MOST_BYTES:
        raise InvalidGraph(f"'{path}' has more than {MOST_BYTES:,} bytes, which is refused")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with h5py.File(path, "r") as file:
            reader = _Reader()
            root = reader.group(file, "node") if "node" in file else None
            if root is None:
                raise InvalidGraph(f"'{path}' is HDF5, but no NIR file: it has no group 'node'")
            version = reader.value(file, "version") if "version" in file else "unknown"
            return NirFile(reader.graph(root), str(version), digest)
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise InvalidGraph(f"'{path}' is not a NIR file: {str(error).splitlines()[0]}") from error


@dataclass
class _Reader:
    budget: _Budget = field(default_factory=_Budget)

    def graph(self, group: h5py.Group, depth: int = 0) -> NestedGraph:
        if depth > DEEPEST:
            raise InvalidGraph(f"'{group.name}': graphs lie in graphs more than {DEEPEST} deep, which is refused")
        if self.type(group) != "NIRGraph":
            # A file may hold one node alone; it is a graph of one.
            node = self.node(group, "node")
            return NestedGraph({"node": node}, ())
        nodes = self.group(group, "nodes")
        return NestedGraph(
            {name: self.either(nodes, name, depth) for name in nodes},
            tuple(self.edges(group)),
            self.tree(self.group(group, "metadata"), depth) if "metadata" in group else {},
        )

    def either(self, nodes: h5py.Group, name: str, depth: int) -> GraphNode | NestedGraph:
        group = self.group(nodes, name)
        self.budget.take_node()
        return self.graph(group, depth + 1) if self.type(group) == "NIRGraph" else self.node(group, name)

    def node(self, group: h5py.Group, name: str) -> GraphNode:
        parameters = {
            key: self.value(group, key)
            for key in group
            if key not in ("type", "metadata") and not isinstance(self.linked(group, key), h5py.Group)
        }
        return GraphNode(name, self.type(group), parameters)

    def type(self, group: h5py.Group) -> str:
        if "type" not in group:
            raise InvalidGraph(f"'{group.name}': has no type")
        return str(self.value(group, "type"))

    def edges(self, group: h5py.Group) -> Iterator[tuple[str, str]]:
        edges = np.asarray(self.value(group, "edges") if "edges" in group else [])
        if edges.size and (edges.ndim != 2 or edges.shape[1] != 2):
            raise InvalidGraph(f"'{group.name}': edges have shape {edges.shape}, expected pairs of names")
        for before, after in edges.tolist():
            yield _text(before), _text(after)

    def tree(self, group: h5py.Group, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            raise InvalidGraph(f"'{group.name}': metadata more than {DEEPEST} deep is refused")
        return {
            key: self.value(group, key)
            if group.get(key, getclass=True) is h5py.Dataset
            else self.tree(self.group(group, key), depth + 1)
            for key in group
        }

    def group(self, parent: h5py.Group, key: str) -> h5py.Group:
        found = self.linked(parent, key)
        if not isinstance(found, h5py.Group):
            raise InvalidGraph(f"'{parent.name}': '{key}' is not a group")
        return found

    def value(self, parent: h5py.Group, key: str) -> Any:
        dataset = self.linked(parent, key)
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise InvalidGraph(f"'{parent.name}': '{key}' is not plain data inside the file")
        self.budget.take(dataset.name, dataset.nbytes)
        value = dataset[()]
        return _text(value) if isinstance(value, bytes | str) else value

    def linked(self, parent: h5py.Group, key: str) -> Any:
        if key not in parent:
            raise InvalidGraph(f"'{parent.name}': has no '{key}'")
        if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
            raise InvalidGraph(f"'{parent.name}': '{key}' is a link, which is refused")
        return parent[key]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def write(path: Path, graph: NestedGraph) -> None:
    """Write a graph as a NIR file; it appears whole or not at all."""
    incoming = path.with_name(f".{path.name}.incoming")
    try:
        with h5py.File(incoming, "w") as file:
            file.create_dataset("version", data=WRITTEN_AS)
            _write_graph(file.create_group("node"), graph)
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)


def _write_graph(group: h5py.Group, graph: NestedGraph) -> None:
    group.create_dataset("type", data="NIRGraph")
    pairs = np.array(graph.edges, dtype=object).reshape(-1, 2)
    group.create_dataset("edges", data=pairs, dtype=h5py.string_dtype())
    nodes = group.create_group("nodes")
    for name, node in graph.nodes.items():
        inner = nodes.create_group(name)
        if isinstance(node, NestedGraph):
            _write_graph(inner, node)
        else:
            _write_tree(inner, {"type": node.type, **node.parameters})
    if graph.metadata:
        _write_tree(group.create_group("metadata"), graph.metadata)


def _write_tree(group: h5py.Group, tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _write_tree(group.create_group(key), value)
        else:
            group.create_dataset(key, data=value)
