"""Evaluation as in serving: with any engine, the plain threshold, and every sample's counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.models.coding import encode
from spikeserve.models.engines import Engine
from spikeserve.models.engines.base import Counts, joined
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.price import Price
from spikeserve.training.data.datasets import Labels, Split

BATCH, BYTES = 128, 2**28  # samples that run at once, and bytes of their signals as priced
ACCURACY_VARIES = (
    "Training again with another seed or split, or on another machine, gives other weights and so another accuracy."
)


@dataclass(frozen=True)
class Evaluation:
    """The results of an engine on a split, in the order of its samples.

    `spike_counts` and `readout` (n, classes); `class_index`, `labels` and `synaptic_operations` (n,); `firing_rates`
    name to spikes per neuron and step.
    """

    labels: Labels
    spike_counts: Counts
    readout: FloatArray
    class_index: Counts
    synaptic_operations: Counts
    firing_rates: dict[str, float]

    @property
    def accuracy(self) -> float:
        """The share of samples whose class is right."""
        return float((self.class_index == self.labels).mean())

    @property
    def confusion(self) -> Counts:
        """The confusion matrix (classes, classes): how often class `row` was predicted as class `column`."""
        classes = self.readout.shape[1]
        return np.bincount(self.labels * classes + self.class_index, minlength=classes**2).reshape(classes, classes)

    def save(self, path: Path, split: Split) -> None:
        """Write the split's raw samples and their results, so that a server's answers can be compared with them."""
        padded: dict[str, Any] = {} if split.lengths is None else {"lengths": split.lengths}
        np.savez_compressed(
            path,
            **padded,
            x=split.samples,
            y=self.labels,
            spike_counts=self.spike_counts,
            readout=self.readout,
            class_index=self.class_index,
        )


def at_once(spec: Spec) -> int:
    """Return how many samples of a network run at once."""
    return min(BATCH, Price.of(spec).at_once(BYTES))


def evaluate(engine: Engine, split: Split) -> Evaluation:
    """Run a split on `engine` in batches; rate coding uses seed 0, as a request without a seed does.

    Each sample is run for as many steps as it has.
    """
    spec = engine.spec
    batches = [(places, engine.run(encode(part.samples, spec))[0]) for places, part in split.batches(at_once(spec))]
    order = np.concatenate([places for places, _ in batches]).argsort()
    result = joined([result for _, result in batches])[order]
    own = split.samples.shape[1] if split.lengths is None else split.lengths
    steps = own if spec.coding.per_step else spec.time_steps
    return Evaluation(
        labels=split.labels,
        spike_counts=result.spike_counts,
        readout=result.readout,
        class_index=result.class_index,
        synaptic_operations=result.synaptic_operations,
        firing_rates={
            node.name: float(
                (result.spikes_per_node[node.name] / steps).mean() / np.prod(spec.output_shapes[node.name])
            )
            for node in spec.spiking_nodes
        },
    )
