"""NIR's file format, HDF5, read and written with h5py alone: any version of the `nir` package may have made the file.

    /version                the nir package's version
    /node                   a graph: type "NIRGraph", edges (n, 2) of names, nodes/<name>/…, metadata/…
    /node/nodes/<name>      a node: its type, and one data set for each parameter

A file is not to be trusted: it is read with checks (`reader`), in a process of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spikeserve.models.folders import write_whole
from spikeserve.models.isolated import Limits, NoAnswer, call
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Weighted
from spikeserve.plugins.nir.graph import MAX_BYTES, GraphNode, NestedGraph
from spikeserve.plugins.nir.reader import read_graph
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.files import require_plain
from spikeserve.training.importers.builder import require_size

LOOP = "w_rec"
CELL = "lif"

_DERIVED = ("input_shape", "input_type", "shape")  # what other tools fill in on the way


def cell_name(node: str, *, recurrent: bool) -> str:
    """Return the graph's name of a node; a recurrent one is named as snnTorch does, which looks for that."""
    return f"{node}.{CELL}" if recurrent else node


def loop_name(node: str) -> str:
    """Return the graph's name of a node's recurrent connection."""
    return f"{node}.{LOOP}"


def digest(nodes: Mapping[str, GraphNode | NestedGraph], edges: tuple[tuple[str, str], ...]) -> str:
    """Return a SHA-256 over all that a graph computes; a parameter's type and shape do not count."""
    hashed = hashlib.sha256()
    for edge in sorted(edges):
        hashed.update(repr(edge).encode())
    for name, node in sorted(nodes.items()):
        if isinstance(node, NestedGraph):
            hashed.update(digest(node.nodes, node.edges).encode())
            continue
        hashed.update(repr((name, node.type)).encode())
        for key, value in sorted(node.parameters.items()):
            if key in _DERIVED or (key == "v_reset" and not np.any(value)):
                continue
            hashed.update(key.encode())
            hashed.update(_bytes(value))
    return hashed.hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    array = np.asarray(value)
    return repr(array.tolist()).encode() if array.dtype.kind in "cO" else array.astype(np.float64).tobytes()


def weights_of(network: Network) -> set[str]:
    """Return the names of the tensors that NIR's nodes hold as they are."""
    weighted = {node.name for node in network.spec.nodes if isinstance(node, Weighted)}
    owners = {name: name.rpartition(".")[0] for name in network.tensors}
    return {name for name, owner in owners.items() if owner.endswith(".recurrent") or owner in weighted}


def restore(graph: NestedGraph) -> Network:
    """Return the network that a file of ours was made from, bit for bit; raises InvalidSpec where it is damaged."""
    spec = Spec.read(str(graph.metadata["spec"]))
    require_size("the input", spec.input.shape)
    for name, shape in spec.output_shapes.items():
        require_size(f"node '{name}': its output", shape)
    stored = graph.metadata.get("tensors")
    kept = GraphNode("tensors", "the file's metadata", stored if isinstance(stored, Mapping) else {})
    tensors = {name: kept.array(name) if kept.has(name) else _weight(graph, name) for name in spec.tensor_shapes}
    return Network(spec, tensors)


def _weight(graph: NestedGraph, tensor: str) -> FloatArray:
    owner, _, parameter = tensor.rpartition(".")
    name = loop_name(owner.removesuffix(".recurrent")) if owner.endswith(".recurrent") else owner
    node = graph.nodes.get(name)
    if not isinstance(node, GraphNode):
        raise InvalidGraph(f"node '{name}': the file's own spec needs it, but the graph does not have it")
    return node.array(parameter).astype(np.float32)


MAX_SECONDS = 30.0
MAX_MEMORY = 2 * MAX_BYTES  # bytes of addresses; the interpreter and its libraries need some 300 MB of them
WRITTEN_AS = "1.0.4"  # the nir version whose fields are written


@dataclass(frozen=True)
class NirFile:
    """A file as read: its graph, the version that it names and the SHA-256 of its bytes."""

    graph: NestedGraph
    version: str
    sha256: str


def read(path: Path, seconds: float = MAX_SECONDS) -> NirFile:
    """Read a NIR file; raises InvalidGraph with one sentence where it is not one, or cannot be read safely."""
    (graph, version), sha256 = read_apart(path, read_graph, seconds)
    return NirFile(_graph(graph), version, sha256)


def read_apart(path: Path, function: Callable[[str], Any], seconds: float = MAX_SECONDS) -> tuple[Any, str]:
    """Call a function of the reader's with a file of HDF5, in a process of its own.

    Returns its answer, in which a data class became a dict of its fields, and the SHA-256 of the file. Raises
    InvalidGraph with one sentence where the file cannot be read safely.
    """
    try:
        require_plain(path, MAX_BYTES)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidGraph(f"'{path}' cannot be read: {error.strerror}") from error
    limits = Limits(seconds, MAX_MEMORY)
    try:
        return call(function, str(path.absolute()), limits=limits, refused=InvalidGraph), sha256
    except InvalidGraph as error:
        raise InvalidGraph(f"'{path}': {error}") from error
    except MemoryError as error:
        raise InvalidGraph(f"'{path}': it needs more memory than a file may, which is refused") from error
    except TimeoutError as error:
        slow = f"it could not be read within {seconds:g} s: it is damaged, or too large"
        raise InvalidGraph(f"'{path}': {slow}") from error
    except NoAnswer as error:
        crashed = f"the process that read it crashed ({error}); most likely it is damaged"
        raise InvalidGraph(f"'{path}': {crashed}") from error


def _graph(fields: Mapping[str, Any]) -> NestedGraph:
    """Return a graph from the fields that came of another process."""
    nodes = {
        name: _graph(node) if "nodes" in node else GraphNode(node["name"], node["type"], node["parameters"])
        for name, node in fields["nodes"].items()
    }
    edges = tuple((before, after) for before, after in fields["edges"])
    return NestedGraph(nodes, edges, fields["metadata"])


def write(path: Path, graph: NestedGraph) -> None:
    """Write a graph as a NIR file; it appears whole or not at all. Raises OSError, also where the disk is full.

    It is made in memory first: HDF5 that cannot write all of a file crashes when it closes it.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.create_dataset("version", data=WRITTEN_AS)
        _write_graph(file.create_group("node"), graph)
        file.flush()
        content = file.id.get_file_image()
    try:
        write_whole(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
