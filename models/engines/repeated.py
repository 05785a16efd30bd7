"""Constant inputs of a run in slices: what an engine computes of them once is kept for the slices after it."""

from __future__ import annotations

from dataclasses import dataclass, field

from spikeserve.models.coding import DenseInputs
from spikeserve.models.coding.inputs import Samples
from spikeserve.models.spec import INPUT, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import Delay, Neuron


@dataclass(frozen=True)
class RepeatedInputs(DenseInputs):
    """Inputs (1, batch, *shape) that are the same at every step of every slice of a run.

    `kept` are arrays, by node and each with the batch axis first, that the one engine which runs all slices computed of
    them in the first slice. It fills `kept` and reads it; an engine that has no use for it leaves it empty.
    """

    kept: dict[str, FloatArray] = field(default_factory=dict)

    def __getitem__(self, samples: Samples) -> RepeatedInputs:
        """Return the inputs of some of the samples, with what is kept of those."""
        kept = {name: array[samples] for name, array in self.kept.items()}
        return RepeatedInputs(self.steps[:, samples], self.time_steps, kept)

    def between(self, first: int, end: int) -> RepeatedInputs:
        """Return the inputs of a slice of steps, which keeps what is computed of it in the same place."""
        return RepeatedInputs(self.steps, end - first, self.kept)


def constant_nodes(spec: Spec) -> frozenset[str]:
    """Return the nodes whose output is the same at every step, if the network's input is: those before any neuron."""
    constant = {INPUT}
    for node in spec.nodes:
        if constant.issuperset(spec.sources[node.name]) and not (isinstance(node, Neuron | Delay) or node.by_step):
            constant.add(node.name)
    return frozenset(constant - {INPUT})
