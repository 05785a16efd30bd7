"""Whether a served network spikes as its framework does, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from spikeserve.models.bundle import READOUT_TOLERANCE
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import Engine, Record
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.data.random_samples import random_samples
from spikeserve.training.importers.frameworks.convert import Converted
from spikeserve.training.importers.frameworks.framework import Framework
from spikeserve.training.importers.frameworks.run_graph import run_graph


@dataclass(frozen=True)
class LayerParity:
    """How a layer of an engine compares with the framework's own module.

    `differing` of all `neuron_steps`: those in which the spikes are not the same, or a readout's membrane strays by
    more than a sum's rounding. `spikes` are those that the framework gives, None for a readout. `membrane` is the
    largest difference, and None where the module does not show its membrane. `strayed` (time_steps, batch, units) is
    where they differ, and `apart`, of the same shape, where their membranes do by more than a sum's rounding.
    """

    node: str
    module: str
    neuron_steps: int
    spikes: int | None
    differing: int
    membrane: float | None
    strayed: NDArray[np.bool_]
    apart: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Origin:
    """Where two runs of a sample part: the first neuron-step that differs, counted from 0.

    `alike` is whether the membranes of all other neurons agree until then, but for rounding; None where none is shown.
    """

    sample: int
    step: int
    node: str
    unit: int
    alike: bool | None

    def __str__(self) -> str:
        place = f"sample {self.sample} first differs in step {self.step}, unit {self.unit} of '{self.node}'"
        if self.alike is None:
            return place
        if self.alike:
            return (
                f"{place}; all other membranes agree until then, so this one was so near its threshold that the "
                "rounding of sums decided"
            )
        return f"{place}; other membranes differ before that by more than rounding, so the rules or weights differ"


def random_encoded(spec: Spec, samples: int, seed: int = 0) -> DenseInputs:
    """Return random samples as the network sees them."""
    return encode(random_samples(spec, samples, seed), spec)


Outputs: TypeAlias = dict[int, tuple[FloatArray, FloatArray | None]]


def run_framework(converted: Converted, framework: Framework, inputs: DenseInputs) -> Outputs:
    """Return the spikes of each neuron's module, or what it gives, (time_steps, batch, *shape), and its membrane.

    Each runs from rest, by the framework's own code, on what the graph gives it. Raises NotConvertible where a module
    does not take what is before it.
    """
    steps = torch.from_numpy(np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy())
    compared = set(converted.places.values())
    return {
        index: (
            (result.output if result.spikes is None else result.spikes).numpy(),
            None if result.membrane is None else result.membrane.numpy(),
        )
        for index, result in run_graph(converted.graph, framework, steps)
        if index in compared
    }


def compare(converted: Converted, theirs: Outputs, engine: Engine, inputs: DenseInputs) -> list[LayerParity]:
    """Compare every neuron of an engine of ours with what the framework's modules made of the same inputs."""
    result, _ = engine.run(inputs, record=Record.RASTER | Record.MEMBRANE)
    rows = []
    for node, place in converted.places.items():
        output, membrane = theirs[place]
        held, raster = result.membranes[node], result.rasters.get(node)
        strayed = ~_close(held, output) if raster is None else raster != output
        rows.append(
            LayerParity(
                node=node,
                module=converted.graph.nodes[place].path,
                neuron_steps=output.size,
                spikes=None if raster is None else int(output.sum()),
                differing=int(np.count_nonzero(strayed)),
                membrane=None if membrane is None else float(np.abs(held - membrane).max(initial=0.0)),
                strayed=_units(strayed),
                apart=None if membrane is None else _units(~_close(held, membrane)),
            )
        )
    return rows


def origins(rows: Sequence[LayerParity]) -> list[Origin]:
    """Return where each sample that differs does so first; the rows are in the order of the layers."""
    found = []
    for sample in range(rows[0].strayed.shape[1] if rows else 0):
        firsts = [
            (int(row.strayed[:, sample].any(axis=1).argmax()), place)
            for place, row in enumerate(rows)
            if row.strayed[:, sample].any()
        ]
        if firsts:
            step, place = min(firsts)
            unit = int(rows[place].strayed[step, sample].argmax())
            found.append(Origin(sample, step, rows[place].node, unit, _alike(rows, sample, step, place)))
    return found


def _alike(rows: Sequence[LayerParity], sample: int, step: int, place: int) -> bool | None:
    """Return whether a sample's membranes agree before the layer at `place` differs in `step`, None if not shown."""
    shown = [
        (row.apart & ~row.strayed)[: step + (index <= place), sample].any()
        for index, row in enumerate(rows)
        if row.apart is not None
    ]
    return not any(shown) if shown else None


def _units(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (time_steps, batch, *shape) as (time_steps, batch, units)."""
    return values.reshape(*values.shape[:2], -1)


def _close(found: FloatArray, expected: FloatArray) -> NDArray[np.bool_]:
    return np.isclose(found, expected, rtol=READOUT_TOLERANCE, atol=READOUT_TOLERANCE)


def table(rows: Sequence[LayerParity], framework: Framework, samples: int) -> Table:
    """Return the comparison as a table for a person."""
    shown = Table(
        "node", "module", "neuron-steps", "spikes", "differing", "membrane",
        title=f"{framework.name} {framework.version} against the reference engine, {samples} random samples",
    )  # fmt: skip
    for row in rows:
        held = "not shown" if row.membrane is None else f"{row.membrane:.2g}"
        spikes = "none: a readout" if row.spikes is None else str(row.spikes)
        shown.add_row(row.node, row.module, str(row.neuron_steps), spikes, str(row.differing), held)
    return shown
