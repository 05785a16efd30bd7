"""NIR graphs for tests, made with the `nir` package as their authors would, and read from a file as we do."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.plugins.nir.convert import Conversion, convert
from spikeserve.plugins.nir.dialects import DialectName, GraphReset, Rules
from spikeserve.plugins.nir.file import NirFile
from spikeserve.plugins.nir.reader import read_graph
from spikeserve.training.importers.options import Options

EULER = Rules(DialectName.NIR, 0.25, GraphReset.ZERO)


def full(value: float, *shape: int) -> np.ndarray[Any, Any]:
    return np.full(shape, value)


def lif(*shape: int, tau: Any = 1.0, r: Any = 1.0, leak: Any = 0.0, threshold: Any = 1.0) -> Any:
    """Return an LIF node of a shape; parameters are numbers or arrays of it."""
    return nir.LIF(tau=full(1, *shape) * tau, r=full(1, *shape) * r, v_leak=full(1, *shape) * leak,
                   v_threshold=full(1, *shape) * threshold)  # fmt: skip


def integrate_and_fire(*shape: int, r: Any = 1.0, threshold: Any = 1.0) -> Any:
    return nir.IF(r=full(1, *shape) * r, v_threshold=full(1, *shape) * threshold)


def flatten(shape: tuple[int, ...], start: int = 0, end: int = -1) -> Any:
    """Return a Flatten node; the package would refuse axes that count a batch's, as files in the wild do."""
    node = nir.Flatten({"input": np.array(shape)}, 0, -1)
    node.start_dim, node.end_dim = start, end
    return node


def padded(conv: Any, padding: Any) -> Any:
    """Return a convolution with another padding: the package itself trips over "same" where it infers shapes."""
    conv.padding = padding
    return conv


def ends(into: tuple[int, ...], out: tuple[int, ...]) -> dict[str, Any]:
    """Return the Input and Output nodes of those shapes."""
    return {"input": nir.Input({"input": np.array(into)}), "output": nir.Output({"output": np.array(out)})}


def stack(into: tuple[int, ...], out: tuple[int, ...], **nodes: Any) -> Any:
    """Return a graph of nodes one after the other."""
    names = ["input", *nodes, "output"]
    return graph(ends(into, out) | nodes, list(pairwise(names)))


def graph(nodes: Mapping[str, Any], edges: list[tuple[str, str]]) -> Any:
    return nir.NIRGraph(nodes=dict(nodes), edges=edges)


def written(folder: Path, made: Any) -> Path:
    """Return the file that the nir package makes of a graph."""
    path = folder / "graph.nir"
    nir.write(path, made)
    return path


def read_here(path: Path) -> NirFile:
    """Read a file as `read` does, but in this process: that takes a fiftieth of the time."""
    return NirFile(*read_graph(str(path)), "")


def converted(folder: Path, made: Any, rules: Rules = EULER, options: Options | None = None) -> Conversion:
    """Write a graph to a file, and read it again."""
    return convert(read_here(written(folder, made)).graph, rules, options or Options())


def spikes_of(network: Network, steps: Any) -> dict[str, Any]:
    """Return each node's spikes (time_steps, *shape) for one sample (time_steps, *shape) on the reference engine."""
    inputs: FloatArray = np.asarray(steps, np.float32)[:, np.newaxis]
    result, _ = ReferenceEngine(network).run(DenseInputs(inputs, len(inputs)), record=Record.RASTER)
    return {name: raster[:, 0] for name, raster in result.rasters.items()}


def membranes_of(network: Network, steps: Any) -> dict[str, Any]:
    """Return each node's membrane after the reset, likewise."""
    inputs: FloatArray = np.asarray(steps, np.float32)[:, np.newaxis]
    result, _ = ReferenceEngine(network).run(DenseInputs(inputs, len(inputs)), record=Record.MEMBRANE)
    return {name: membrane[:, 0] for name, membrane in result.membranes.items()}
