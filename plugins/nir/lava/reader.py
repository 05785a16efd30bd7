"""From an HDF5 file to its groups as dicts, in a process that may crash: `file` calls `read_tree` there."""

from __future__ import annotations

from typing import Any

import h5py

from spikeserve.plugins.nir.reader import Reader, opened
from spikeserve.training.errors import InvalidGraph


def read_tree(path: str) -> dict[str, Any]:
    """Return the groups `layer` and `simulation` as dicts of dicts; raises InvalidGraph, and MemoryError."""
    return opened(path, _tree, "a network of lava-dl")


def _tree(file: h5py.File) -> dict[str, Any]:
    if "layer" not in file:
        raise InvalidGraph("it is HDF5, but no network of lava-dl: it has no group 'layer'")
    reader = Reader()
    return {key: reader.tree(reader.group(file, key), 0) for key in ("layer", "simulation") if key in file}
