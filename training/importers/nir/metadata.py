"""What our NIR files say beyond NIR: their spec and their neurons' parameters to the bit, until the file is edited.

The graph's metadata holds `dialect`, `dt`, `reset` (and `reset_timing`), which are what anybody needs to run it, then
`spec`, `tensors` (those that NIR's nodes hold in other units) and `digest`, which ties those two to the graph: where
the nodes or edges are no longer those that were exported, they are not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Weighted
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import require_size
from spikeserve.training.importers.nir.graph import GraphNode, NestedGraph

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
    return {
        name
        for name in network.tensors
        if name.rpartition(".")[0].removesuffix(".recurrent") != name.rpartition(".")[0]
        or name.rpartition(".")[0] in weighted
    }


def is_ours(graph: NestedGraph) -> bool:
    """Return whether the graph holds a spec that we wrote."""
    return {"spec", "digest"} <= graph.metadata.keys()


def is_unchanged(graph: NestedGraph) -> bool:
    """Return whether its nodes and edges are those that we wrote."""
    return str(graph.metadata["digest"]) == digest(graph.nodes, graph.edges)


def restore(graph: NestedGraph) -> Network:
    """Return the network that a file of ours was made from, bit for bit; raises InvalidSpec where it is damaged."""
    spec = Spec.read(str(graph.metadata["spec"]))
    require_size("the input", spec.input.shape)
    for name, shape in spec.output_shapes.items():
        require_size(f"node '{name}': its output", shape)
    found = graph.metadata.get("tensors")
    kept = GraphNode("tensors", "the file's metadata", found if isinstance(found, Mapping) else {})
    tensors = {name: kept.array(name) if kept.has(name) else _weight(graph, name) for name in spec.tensor_shapes}
    return Network(spec, tensors)


def _weight(graph: NestedGraph, tensor: str) -> FloatArray:
    owner, _, parameter = tensor.rpartition(".")
    name = loop_name(owner.removesuffix(".recurrent")) if owner.endswith(".recurrent") else owner
    node = graph.nodes.get(name)
    if not isinstance(node, GraphNode):
        raise InvalidGraph(f"node '{name}': the file's own spec needs it, but the graph does not have it")
    return node.array(parameter).astype(np.float32)
