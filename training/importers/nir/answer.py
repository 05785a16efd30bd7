"""What the process that reads a NIR file answers: a line of JSON, then the arrays in numpy's own format. No pickle.

The line is `{"refused": sentence}`, or `{"version": text, "graph": graph}` with

    graph       {"nodes": {name: node or graph}, "edges": [[name, name], …], "metadata": tree}
    node        {"type": text, "parameters": tree}
    tree        {name: tree or value}
    value       text; a list of texts (of lists, …); or a number: which of the arrays that follow the line
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from training.errors import InvalidGraph
from training.importers.nir.graph import GraphNode, NestedGraph


def write_refusal(sentence: str, stream: IO[bytes]) -> None:
    """Answer that the file is refused, and why."""
    _write_line({"refused": sentence}, stream)


def write_answer(graph: NestedGraph, version: str, stream: IO[bytes]) -> None:
    """Answer with a graph and the version that its file names."""
    arrays: list[Any] = []
    _write_line({"version": version, "graph": _packed_graph(graph, arrays)}, stream)
    for array in arrays:
        npy.write_array(stream, np.asarray(array), allow_pickle=False)


def read_answer(stream: IO[bytes]) -> tuple[NestedGraph, str]:
    """Return the graph and the version; raises InvalidGraph where it was refused, ValueError where there is none."""
    answer = json.loads(stream.readline())
    if "refused" in answer:
        raise InvalidGraph(answer["refused"])
    arrays = _Arrays(stream)
    return _graph(answer["graph"], arrays.value), answer["version"]


def _write_line(answer: Mapping[str, Any], stream: IO[bytes]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")


def _packed_graph(graph: NestedGraph, arrays: list[Any]) -> dict[str, Any]:
    return {
        "nodes": {
            name: _packed_graph(node, arrays)
            if isinstance(node, NestedGraph)
            else {"type": node.type, "parameters": _packed(node.parameters, arrays)}
            for name, node in graph.nodes.items()
        },
        "edges": graph.edges,
        "metadata": _packed(graph.metadata, arrays),
    }


def _packed(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _packed(inner, arrays) for key, inner in value.items()}
    if isinstance(value, str):
        return value
    if np.asarray(value).dtype == object:
        return value.tolist()
    arrays.append(value)
    return len(arrays) - 1


def _graph(packed: Mapping[str, Any], value: Callable[[Any], Any]) -> NestedGraph:
    return NestedGraph(
        {
            name: _graph(node, value) if "nodes" in node else GraphNode(name, node["type"], value(node["parameters"]))
            for name, node in packed["nodes"].items()
        },
        tuple((before, after) for before, after in packed["edges"]),
        value(packed["metadata"]),
    )


class _Arrays:
    """The arrays of an answer, which are written in the order that the line names them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def value(self, packed: Any) -> Any:
        if isinstance(packed, Mapping):
            return {key: self.value(inner) for key, inner in packed.items()}
        if isinstance(packed, str):
            return packed
        if isinstance(packed, list):
            return np.array(packed, object)
        return npy.read_array(self.stream, allow_pickle=False)[()]
