"""A case: a network as NIR and as a bundle, inputs, and what each of its layers does, as its own framework computed it.

case.json    name, what it is about, framework and version, coding, shapes, time steps, layers, licence
graph.nir    the network in NIR, with steps of 0.1 ms, where NIR can say it; else case.json has the sentence
bundle/      the same network as Spikeserve's bundle
data.npz     inputs as events, `t` and `unit`; for each layer its spikes, `<layer>.t`, `.unit` and `.count`, and, where
             the framework shows it, `<layer>.membrane` (time_steps, neurons)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DT = 1e-4  # seconds of a step in each graph.nir
CASES = Path(__file__).with_name("cases")
Raster = NDArray[Any]  # (time_steps, neurons), how often each neuron fires


@dataclass(frozen=True)
class Case:
    """What case.json says. `nir` is empty where there is a graph.nir, else why there is none."""

    name: str
    about: str
    framework: str
    version: str
    input_shape: tuple[int, ...]
    time_steps: int
    layers: Mapping[str, tuple[int, ...]]
    nir: str = ""
    licence: str = "CC0-1.0"

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Read the case of a folder."""
        fields = json.loads((folder / "case.json").read_text())
        fields["input_shape"] = tuple(fields["input_shape"])
        fields["layers"] = {name: tuple(shape) for name, shape in fields["layers"].items()}
        return cls(**fields)

    def write(self, folder: Path) -> None:
        """Write case.json."""
        (folder / "case.json").write_text(json.dumps(asdict(self), indent=2) + "\n")


def inputs_of(folder: Path) -> NDArray[np.float32]:
    """Give the inputs of a case as a raster, (time_steps, *input shape)."""
    case = Case.read(folder)
    with np.load(folder / "data.npz") as data:
        return _raster(data, "", case.time_steps, math.prod(case.input_shape)).reshape(-1, *case.input_shape)


def expected(folder: Path) -> tuple[dict[str, Raster], dict[str, NDArray[np.float32]]]:
    """Give the spikes of each layer, (time_steps, neurons), and the membranes of those that show them."""
    case = Case.read(folder)
    with np.load(folder / "data.npz") as data:
        spikes = {
            name: _raster(data, f"{name}.", case.time_steps, math.prod(shape)) for name, shape in case.layers.items()
        }
        membranes = {name: data[f"{name}.membrane"] for name in case.layers if f"{name}.membrane" in data}
    return spikes, membranes


def events(raster: Raster, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Give a raster (time_steps, neurons) as arrays of events; `count` where a neuron fires more than once."""
    t, unit = raster.nonzero()
    found = {f"{prefix}t": t.astype(np.uint16), f"{prefix}unit": unit.astype(np.uint16)}
    count = raster[t, unit]
    return found if (count == 1).all() else found | {f"{prefix}count": count.astype(np.float32)}


def _raster(data: Mapping[str, NDArray[Any]], prefix: str, time_steps: int, neurons: int) -> NDArray[np.float32]:
    raster = np.zeros((time_steps, neurons), np.float32)
    raster[data[f"{prefix}t"], data[f"{prefix}unit"]] = data.get(f"{prefix}count", 1)
    return raster
