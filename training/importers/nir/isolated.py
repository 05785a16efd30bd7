"""A NIR file is read in a process of its own, with bounds on its time and its memory.

HDF5's C library trusts what it reads: a damaged file can send it round a circle for ever, or crash it
(https://github.com/HDFGroup/hdf5/issues/1707 is one of many). Only another process can be stopped, or can crash alone.
It costs some 0.2 s, the start of an interpreter with h5py.

The process answers with a line of JSON, then arrays in numpy's own format. No pickle. The line is
`{"refused": sentence}`, or `{"version": text, "graph": graph}` with

    graph       {"nodes": {name: node or graph}, "edges": [[name, name], …], "metadata": tree}
    node        {"type": text, "parameters": tree}
    tree        {name: tree or value}
    value       text; a list of texts (of lists, …); or a number: which of the arrays that follow the line
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from spikeserve.models.isolated import NoAnswer, answered
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.nir.graph import GraphNode, NestedGraph
from spikeserve.training.importers.nir.limits import MAX_SECONDS


def read_isolated(path: Path, seconds: float = MAX_SECONDS) -> tuple[NestedGraph, str]:
    """Return a file's graph and the version that it names; raises InvalidGraph without its name, for any fault."""
    try:
        with answered("spikeserve.training.importers.nir.reader", str(path.absolute()), seconds=seconds) as answer:
            return _read_answer(answer)
    except TimeoutError as error:
        raise InvalidGraph(f"it could not be read within {seconds:g} s: it is damaged, or too large") from error
    except NoAnswer as error:
        raise InvalidGraph(f"the process that read it crashed ({error}); most likely it is damaged") from error


def write_answer(answer: dict[str, Any], stream: IO[bytes]) -> None:
    """Write what the process answers; a graph in it is a NestedGraph."""
    arrays: list[Any] = []

    def packed(value: Any) -> Any:
        if isinstance(value, NestedGraph | GraphNode):
            return packed({key: part for key, part in vars(value).items() if key != "name"})
        if isinstance(value, Mapping):
            return {key: packed(inner) for key, inner in value.items()}
        if isinstance(value, str | tuple):
            return value
        if np.asarray(value).dtype == object:
            return value.tolist()
        arrays.append(value)
        return len(arrays) - 1

    stream.write(json.dumps(packed(answer)).encode() + b"\n")
    for array in arrays:
        npy.write_array(stream, np.asarray(array), allow_pickle=False)


def _read_answer(stream: IO[bytes]) -> tuple[NestedGraph, str]:
    """Return the graph and the version; raises InvalidGraph where it was refused, ValueError for no answer."""
    answer = json.loads(stream.readline())
    if "refused" in answer:
        raise InvalidGraph(answer["refused"])
    return _graph(answer["graph"], _arrays(stream)), answer["version"]


def _arrays(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the arrays, which are written in the order that the line names them."""
    while True:
        yield npy.read_array(stream, allow_pickle=False)[()]


def _graph(packed: Mapping[str, Any], arrays: Iterator[Any]) -> NestedGraph:
    return NestedGraph(
        {
            name: _graph(node, arrays)
            if "nodes" in node
            else GraphNode(name, node["type"], _value(node["parameters"], arrays))
            for name, node in packed["nodes"].items()
        },
        tuple((before, after) for before, after in packed["edges"]),
        _value(packed["metadata"], arrays),
    )


def _value(packed: Any, arrays: Iterator[Any]) -> Any:
    if isinstance(packed, Mapping):
        return {key: _value(inner, arrays) for key, inner in packed.items()}
    if isinstance(packed, str):
        return packed
    return np.array(packed, object) if isinstance(packed, list) else next(arrays)
