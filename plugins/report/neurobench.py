"""NeuroBench's metrics of a bundle on the samples of a split.

A metric has the name and the meaning that it has in NeuroBench's harness, version 2.3, in batches of one sample;
docs/report.md says where it is defined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from spikeserve.models.coding import encode
from spikeserve.models.engines import Engine, Record, RunResult
from spikeserve.plugins.report.complexity import Complexity, Work
from spikeserve.plugins.report.complexity.neuron_operations import update_operations
from spikeserve.training.data.datasets import Labels, Split

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

    def add(self, work: Work, result: RunResult, labels: Labels, time_steps: int) -> None:
        """Add what some samples took, and how many of them are right."""
        for total, counts in (
            *((self.acs, work.acs), (self.macs, work.macs)),
            *((self.active, work.active), (self.membrane_updates, work.membrane_updates)),
        ):
            total.update({name: int(count.sum()) for name, count in counts.items()})
        self.steps += len(labels) * time_steps
        self.right += int((result.class_index == labels).sum())
        self.synaptic_operations += int(result.synaptic_operations.sum())


@dataclass(frozen=True)
class NeuroBenchMetrics:
    """The metrics of a network on `samples` samples."""

    complexity: Complexity
    engine: str
    samples: int
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

    def document(self, name: str, version: int, data: str) -> Mapping[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "model": name,
            "version": version,
            "engine": self.engine,
            "data": data,
            "samples": self.samples,
            "time_steps": self.totals.steps // self.samples,
            "NeuroBench": self.metrics,
            "counted": self.counted,
            "notes": self.notes,
            "synaptic_operations": {"per_sample": self.totals.synaptic_operations / self.samples, "of": OWN_OPERATIONS},
        }


def measure(complexity: Complexity, engine: Engine, split: Split) -> NeuroBenchMetrics:
    """Run a split, at least one sample, and return its metrics; rate coding uses seed 0.

    It is run in parts, so that no more is recorded at once than some samples take.
    """
    spec, totals = complexity.network.spec, Totals()
    fit = complexity.group(split.samples.shape[1] if spec.coding.per_step else spec.time_steps)
    for _, part in split.batches(fit):
        inputs = encode(part.samples, spec)
        result, _ = engine.run(inputs, record=Record.RASTER | Record.MEMBRANE)
        totals.add(complexity.work(inputs, result), result, part.labels, inputs.time_steps)
    return NeuroBenchMetrics(complexity, engine.name, len(split), totals)
