"""From an HDF5 file to its graph, in a process that may crash: `file` calls `read_graph` there.

HDF5's C library trusts what it reads: a damaged file can send it round a circle for ever, or crash it
(https://github.com/HDFGroup/hdf5/issues/1707 is one of many). Only another process can be stopped, or can crash alone.

A file is not to be trusted. Only numbers and text that lie inside the file are read: no link to another file, no
external storage, nothing that HDF5 would have to make up. Each group is read once, so that groups in a circle end, and
their number is bounded. So is this process's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import h5py
import numpy as np

from spikeserve.plugins.nir.graph import MAX_DEPTH, MAX_EDGES, MAX_GROUPS, Array, GraphNode, NestedGraph
from spikeserve.training.errors import InvalidGraph

Read = TypeVar("Read")

_NUMBERS = "biufc"  # numpy's kinds


class Reader:
    """Reads one open file; every method raises InvalidGraph, and h5py's own errors where the file is damaged."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()  # h5py's ids of groups, equal where the object in the file is the same

    def file(self, file: h5py.File) -> tuple[NestedGraph, str]:
        """Return the file's graph and the version that it names."""
        if "node" not in file:
            raise InvalidGraph("it is HDF5, but no NIR file: it has no group 'node'")
        root = self.group(file, "node")
        version = self.value(file, "version") if "version" in file else "unknown"
        return self.graph(root), self.plain(file, str(version))

    def graph(self, group: h5py.Group, depth: int = 0) -> NestedGraph:
        """Return the graph that a group holds."""
        if depth > MAX_DEPTH:
            raise InvalidGraph(f"'{group.name}': graphs lie in graphs more than {MAX_DEPTH} deep, which is refused")
        nodes = self.group(group, "nodes")
        return NestedGraph(
            {name: self.either(nodes, name, depth) for name in nodes},
            tuple(self.edges(group)),
            self.tree(self.group(group, "metadata"), depth) if "metadata" in group else {},
        )

    def either(self, nodes: h5py.Group, name: str, depth: int) -> GraphNode | NestedGraph:
        """Return a node, or the graph that stands for one."""
        group = self.group(nodes, name)
        return self.graph(group, depth + 1) if self.type(group) == "NIRGraph" else self.node(group, name)

    def node(self, group: h5py.Group, name: str) -> GraphNode:
        """Return a node with all its parameters."""
        parameters = {
            key: self.value(group, key)
            for key in group
            if key not in ("type", "metadata") and not isinstance(self.linked(group, key), h5py.Group)
        }
        return GraphNode(name, self.type(group), parameters)

    def type(self, group: h5py.Group) -> str:
        """Return a node's type."""
        if "type" not in group:
            raise InvalidGraph(f"'{group.name}': has no type")
        return self.plain(group, str(self.value(group, "type")))

    def edges(self, group: h5py.Group) -> Iterator[tuple[str, str]]:
        """Return a graph's edges."""
        edges = np.asarray(self.value(group, "edges") if "edges" in group else [])
        if edges.size and (edges.ndim != 2 or edges.shape[1] != 2):
            raise InvalidGraph(f"'{group.name}': edges have shape {edges.shape}, expected pairs of names")
        if len(edges) > MAX_EDGES:
            raise InvalidGraph(f"'{group.name}': has more than {MAX_EDGES:,} edges, which is refused")
        for before, after in edges.tolist():
            yield self.plain(group, str(before)), self.plain(group, str(after))

    def tree(self, group: h5py.Group, depth: int) -> dict[str, Any]:
        """Return metadata: dicts of dicts, with text, numbers and arrays at their ends."""
        if depth > MAX_DEPTH:
            raise InvalidGraph(f"'{group.name}': metadata more than {MAX_DEPTH} deep is refused")
        return {
            key: self.value(group, key)
            if isinstance(self.linked(group, key), h5py.Dataset)
            else self.tree(self.group(group, key), depth + 1)
            for key in group
        }

    def group(self, parent: h5py.Group, key: str) -> h5py.Group:
        """Return a group that has not been read yet."""
        group = self.linked(parent, key)
        if not isinstance(group, h5py.Group):
            raise InvalidGraph(f"'{parent.name}': '{key}' is not a group")
        if group.id in self.seen:
            raise InvalidGraph(f"'{parent.name}': '{key}' is a group that the file holds elsewhere too")
        self.seen.add(group.id)
        if len(self.seen) > MAX_GROUPS:
            raise InvalidGraph(f"the file has more than {MAX_GROUPS:,} groups, which is refused")
        return group

    def value(self, parent: h5py.Group, key: str) -> Any:
        """Return a data set as text, a number, or an array of either (of text as objects)."""
        dataset = self.linked(parent, key)
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual or dataset.shape is None:
            raise InvalidGraph(f"'{parent.name}': '{key}' is not plain data inside the file")
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if not is_text and dataset.dtype.kind not in _NUMBERS:
            raise InvalidGraph(f"'{parent.name}': '{key}' holds neither numbers nor text")
        return self.text(dataset) if is_text else dataset[()]

    def text(self, dataset: h5py.Dataset) -> str | Array:
        """Return text or an array of it."""
        read = np.asarray(dataset[()], object)
        text = np.empty(read.shape, object)
        for index, value in np.ndenumerate(read):
            text[index] = value.decode() if isinstance(value, bytes) else str(value)
        return text if text.ndim else str(text[()])

    def plain(self, parent: h5py.Group, name: str) -> str:
        """Return a name that can be shown: a line break or a terminal's escape sequence could say anything."""
        if not name.isprintable():
            raise InvalidGraph(f"'{parent.name}': the name {name[:80]!r} is not plain text")
        return name

    def linked(self, parent: h5py.Group, key: str) -> Any:
        """Return a group's member by name; raises InvalidGraph for links."""
        if self.plain(parent, key) not in parent:
            raise InvalidGraph(f"'{parent.name}': has no '{key}'")
        if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
            raise InvalidGraph(f"'{parent.name}': '{key}' is a link, which is refused")
        return parent[key]


def read_graph(path: str) -> tuple[NestedGraph, str]:
    """Return a file's graph and the version that it names; raises InvalidGraph, and MemoryError."""
    return opened(path, Reader().file, "a NIR file")


def opened(path: str, use: Callable[[h5py.File], Read], expected: str) -> Read:
    """Open a file of HDF5, which should be `expected`, and use it; raises InvalidGraph, and MemoryError."""
    try:
        with h5py.File(path, "r") as file:
            return use(file)
    except (InvalidGraph, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly every built-in error for one damaged file or another
        reason = str(error).splitlines() or [type(error).__name__]
        raise InvalidGraph(f"it is not {expected}: {reason[0]}") from error
