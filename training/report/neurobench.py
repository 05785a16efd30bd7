"""NeuroBench's metrics of a bundle on the samples of a split, and the estimates of energy beside them.

A metric has the name and the meaning that it has in NeuroBench's harness, version 2.3; docs/report.md says where it is
defined. The harness calls a layer with a batch, and counts the call's operations as ACs only where all inputs of the
batch are 0, 1 or -1, so that their division into ACs and MACs may depend on the batch size: it is taken here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import encode
from spikeserve.models.complexity import CONSTANTS, ESTIMATES, Complexity
from spikeserve.models.complexity.complexity import active, membrane_updates
from spikeserve.models.complexity.energy import ASSUMPTIONS, SOURCE
from spikeserve.models.complexity.neuron_operations import update_operations
from spikeserve.models.engines import Engine, Record, RunResult
from spikeserve.models.engines.base import Counts
from spikeserve.training.data.datasets import Split

BATCH = 128
OWN_OPERATIONS = (
    "weights met by inputs other than 0, zeros among the weights included; a connection whose input is the same at "
    "every step is computed, and counted, once"
)
NO_NUMBER = "not given, since the harness has no number of operations for a neuron like that of these nodes"
FOOTPRINT = "bytes of the bundle's tensors; the harness adds the buffers that a framework's modules have beside them"


def _share_of_zeros(others: int, of: int) -> float:
    return 1 - others / of if of else 0.0


@dataclass
class Totals:
    """What all samples of a split took together; the first four are by the name of a connection or a node."""

    acs: Counter[str] = field(default_factory=Counter)
    macs: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    membrane_updates: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    right: int = 0
    synaptic_operations: int = 0


@dataclass(frozen=True)
class Measured:
    """The metrics of a network on `samples` samples, which a harness would be given in batches of `batch`."""

    complexity: Complexity
    engine: str
    samples: int
    batch: int
    totals: Totals = field(repr=False)

    @property
    def counted(self) -> dict[str, int]:
        """The whole numbers, over all samples, that the metrics of the workload are made of."""
        totals, spec = self.totals, self.complexity.network.spec
        return {
            "samples": self.samples,
            "Effective_MACs": sum(totals.macs.values()),
            "Effective_ACs": sum(totals.acs.values()),
            "Dense": self.complexity.dense * totals.steps,
            "MembraneUpdates": sum(totals.membrane_updates.values()),
            **self.neuron_operations,
            "activations": sum(spec.layers.values()) * totals.steps,
            "activations_not_0": sum(totals.active.values()),
            "right": totals.right,
        }

    @property
    def neuron_operations(self) -> dict[str, int]:
        """The whole numbers of NeuronOperations, by their names; none where the harness has no number for a neuron."""
        numbers, unknown = update_operations(self.complexity.network)
        if unknown:
            return {}
        shapes, totals = self.complexity.network.spec.output_shapes, self.totals
        return {
            "Effective Neuron Ops": sum(number * totals.membrane_updates[node] for node, number in numbers.items()),
            "Neuron Dense Ops": totals.steps * sum(number * prod(shapes[node]) for node, number in numbers.items()),
        }

    @property
    def metrics(self) -> dict[str, Any]:
        """NeuroBench's metrics by their names; those of a workload are for each sample, as the harness has them."""
        counted, totals = self.counted, self.totals
        per_sample = {name: count / self.samples for name, count in counted.items()}
        outputs = {name: neurons * totals.steps for name, neurons in self.complexity.network.spec.layers.items()}
        metrics = {
            "Footprint": self.complexity.footprint,
            "ConnectionSparsity": self.complexity.connection_sparsity,
            "ParameterCount": self.complexity.parameter_count,
            "ActivationSparsity": _share_of_zeros(counted["activations_not_0"], counted["activations"]),
            "ActivationSparsityByLayer": {
                name: _share_of_zeros(totals.active[name], count) for name, count in outputs.items()
            },
            "SynapticOperations": {name: per_sample[name] for name in ("Effective_MACs", "Effective_ACs", "Dense")},
            "MembraneUpdates": per_sample["MembraneUpdates"],
        }
        if self.neuron_operations:
            metrics["NeuronOperations"] = {name: per_sample[name] for name in self.neuron_operations}
        if self.complexity.network.spec.scores.has_classes:
            metrics["ClassificationAccuracy"] = per_sample["right"]
        return metrics

    @property
    def notes(self) -> dict[str, str]:
        """What a reader should know of some metrics, by their names."""
        _, unknown = update_operations(self.complexity.network)
        if not unknown:
            return {"Footprint": FOOTPRINT}
        return {"Footprint": FOOTPRINT, "NeuronOperations": f"{NO_NUMBER}: {', '.join(unknown)}"}

    @property
    def energy(self) -> dict[str, float]:
        """Each estimate, in picojoules per sample."""
        totals = self.totals
        whole = self.complexity.energy.estimates(totals.acs, totals.macs, totals.steps, self.samples)
        return {name: whole[name] / self.samples for name in ESTIMATES}

    def document(self, name: str, version: int, data: str) -> Mapping[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "model": name,
            "version": version,
            "engine": self.engine,
            "data": data,
            "samples": self.samples,
            "batch": self.batch,
            "time_steps": self.totals.steps // self.samples,
            "NeuroBench": self.metrics,
            "counted": self.counted,
            "notes": self.notes,
            "synaptic_operations": {"per_sample": self.totals.synaptic_operations / self.samples, "of": OWN_OPERATIONS},
            "energy_estimate": {
                "unit": "pJ per sample",
                "estimates": {name: {"value": value, "of": ESTIMATES[name]} for name, value in self.energy.items()},
                "assumptions": list(ASSUMPTIONS),
                "constants": {each.of: each.picojoules for each in CONSTANTS},
                "source": SOURCE,
            },
        }


def measure(complexity: Complexity, engine: Engine, split: Split, batch: int = BATCH) -> Measured:
    """Run a split, at least one sample, and return its metrics; rate coding uses seed 0.

    Each batch is run in parts, so that no more is recorded at once than some samples take.
    """
    spec, totals = complexity.network.spec, Totals()
    time_steps = split.samples.shape[1] if spec.coding.per_step else spec.time_steps
    fit = complexity.group(time_steps)
    for start in range(0, len(split), batch):
        end = min(start + batch, len(split))
        # For each connection and step the operations of the batch's call, and whether one of its inputs is a value.
        count = {name: np.zeros(time_steps, np.int64) for name in complexity.connections}
        valued = {name: np.zeros(time_steps, np.bool_) for name in complexity.connections}
        for first in range(start, end, fit):
            _add(split[first : min(first + fit, end)], complexity, engine, totals, count, valued)
        for name, operations in count.items():
            multiplied = int(operations[valued[name]].sum())
            totals.macs[name] += multiplied
            totals.acs[name] += int(operations.sum()) - multiplied
    return Measured(complexity, engine.name, len(split), batch, totals)


def _add(
    part: Split,
    complexity: Complexity,
    engine: Engine,
    totals: Totals,
    count: Mapping[str, Counts],
    valued: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Run some samples of a batch, and add what they took to the totals and to the batch's calls."""
    inputs = encode(part.samples, engine.spec)
    result: RunResult = engine.run(inputs, record=Record.RASTER | Record.MEMBRANE)[0]
    steps = np.full(inputs.batch, inputs.time_steps)
    for each in complexity.replay.operations(inputs, result):
        block = slice(each.first, each.first + len(each.count))
        count[each.connection][block] += each.count.sum(axis=1)
        valued[each.connection][block] |= each.valued.any(axis=1)
    for name, fired in active(result).items():
        totals.active[name] += int(fired.sum())
    for name, updates in membrane_updates(complexity.network, result, steps).items():
        totals.membrane_updates[name] += int(updates.sum())
    totals.steps += int(steps.sum())
    totals.right += int((result.class_index == part.labels).sum())
    if result.synaptic_operations is not None:
        totals.synaptic_operations += int(result.synaptic_operations.sum())
