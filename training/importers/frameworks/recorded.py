"""A recorded trace: what a framework's own modules gave elsewhere, in an .npz file, in place of running them here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.training.data.numpy_files import Npz, open_npz
from spikeserve.training.errors import InvalidData
from spikeserve.training.importers.frameworks.convert import Converted

if TYPE_CHECKING:
    from spikeserve.training.importers.frameworks.compare import Outputs

INPUT = "input"


def read_trace(path: Path, converted: Converted) -> tuple[DenseInputs, Outputs]:
    """Read a trace: the `input` of each step, and under the path of each neuron's module the spikes that it gave.

    All are (time_steps, samples, *shape); an `input` of one step is the same at all. Layers may be missing. Raises
    InvalidData for a name that is no neuron's, and an array of another shape.
    """
    spec = converted.network.spec
    places = {converted.graph.nodes[place].path: place for place in converted.places.values()}
    nodes = {place: node for node, place in converted.places.items()}
    with open_npz(path) as file:
        recorded = [name for name in file.names if name != INPUT]
        if INPUT not in file.names or not recorded:
            raise InvalidData(
                f"'{path}' has {', '.join(file.names) or 'nothing'}, expected '{INPUT}' and the spikes of at least one "
                f"of {', '.join(places)}"
            )
        if unknown := sorted(set(recorded) - places.keys()):
            raise InvalidData(f"'{path}': '{unknown[0]}' is no neuron of the network, which has {', '.join(places)}")
        steps = _array(file, INPUT, spec.input.shape)
        spikes = {name: _array(file, name, spec.output_shapes[nodes[places[name]]]) for name in recorded}
    time_steps = len(spikes[recorded[0]])
    for name, array in {INPUT: steps, **spikes}.items():
        if array.shape[1] != steps.shape[1] or len(array) not in ({1, time_steps} if name == INPUT else {time_steps}):
            raise InvalidData(
                f"'{path}': '{name}' has {len(array)} steps of {array.shape[1]} samples, expected "
                f"{time_steps} steps of {steps.shape[1]} samples"
            )
    return DenseInputs(steps, time_steps), {places[name]: (array, None) for name, array in spikes.items()}


def _array(file: Npz, name: str, shape: Shape) -> FloatArray:
    array = file.read(name)
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array[0, :1].size != np.prod(shape):
        raise InvalidData(
            f"'{file.path}': '{name}' has shape {show(array.shape)} of {array.dtype}, expected numbers: steps, samples "
            f"and {show(shape)}"
        )
    return array.astype(np.float32).reshape(*array.shape[:2], *shape)
