"""The file format of lava-dl's `netx`, HDF5: the group `layer` holds one for each layer, named by its number.

A layer has a `type`, data sets such as `weight`, and mostly a group `neuron`. A file is not to be trusted: as NIR's, it
is read with checks, in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.plugins.nir.file import MAX_SECONDS, read_apart
from spikeserve.plugins.nir.graph import GraphNode
from spikeserve.plugins.nir.lava.reader import read_tree
from spikeserve.training.errors import InvalidGraph


@dataclass(frozen=True)
class Layer:
    """A layer as it stands in the file, and its neurons, where it has some."""

    block: GraphNode
    neuron: GraphNode | None


@dataclass(frozen=True)
class LavaFile:
    """A file as read: its layers in order, the steps of a sample where it names them, and the SHA-256 of its bytes."""

    layers: tuple[Layer, ...]
    time_steps: int | None
    sha256: str


def read(path: Path, seconds: float = MAX_SECONDS) -> LavaFile:
    """Read a file; raises InvalidGraph with one sentence where it is not one, or cannot be read safely."""
    tree, sha256 = read_apart(path, read_tree, seconds)
    groups = tree["layer"]
    if not groups or set(groups) != {str(number) for number in range(len(groups))}:
        names = ", ".join(sorted(groups)[:8])
        raise InvalidGraph(f"'{path}': its layers are named {names or 'nothing'}, expected 0, 1, 2 and so on")
    layers = tuple(_layer(number, groups[str(number)]) for number in range(len(groups)))
    simulation = GraphNode("simulation", "simulation", tree.get("simulation", {}))
    return LavaFile(layers, (simulation.sizes("tSample") or (None,))[0], sha256)


def _layer(number: int, fields: Any) -> Layer:
    name = f"layer_{number}"
    if not isinstance(fields, Mapping):
        raise InvalidGraph(f"{name} is no group, expected one with a type")
    neuron = fields.get("neuron")
    own = None if neuron is None else _node(name, neuron)
    return Layer(_node(name, {key: value for key, value in fields.items() if key != "neuron"}), own)


def _node(name: str, fields: Any) -> GraphNode:
    kind = np.asarray(fields["type"] if isinstance(fields, Mapping) and "type" in fields else "").ravel()
    if kind.size != 1 or not isinstance(kind[0], str) or not re.fullmatch(r"\w{1,64}", kind[0]):
        raise InvalidGraph(f"node '{name}': it, or its neuron, has no type, expected a word such as dense or CUBA")
    return GraphNode(name, kind[0], fields)
