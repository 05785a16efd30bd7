"""Ours: the network as `training.fit` trains it. What trains is named in this file alone."""

from __future__ import annotations

from torch import Tensor

from benchmarks.contestants.base import SLOPE, Targets, TrainingJob
from benchmarks.contestants.torch_stack import Batch, TorchTraining
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.operators import Spikes, listed
from spikeserve.training.fit.surrogate import SurrogateThreshold


class OurTraining(TorchTraining):
    """A network whose batches are listed when they are made, as `training.fit` does."""

    def load(self, steps: FloatArray, targets: Targets) -> Batch:
        """Return a batch of spikes (time_steps, batch, *shape) with its targets (batch,)."""
        batch = super().load(steps, targets)
        return batch._replace(steps=listed(batch.steps))


def prepare(job: TrainingJob) -> OurTraining:
    """Return our training."""
    module = TrainingNetwork.of(job.network)
    threshold = SurrogateThreshold(Surrogate.SUPERSPIKE, SLOPE)

    def forward(steps: Tensor | Spikes) -> Tensor:
        counts: Tensor = module(steps, steps.shape[0], threshold).output.sum(0)
        return counts

    parameters = {
        f"{node.name}.{name.removeprefix('connection.')}": parameter
        for node, layer in zip(job.network.spec.nodes, module.layers, strict=True)
        for name, parameter in layer.named_parameters()
    }
    return OurTraining(forward, parameters, job.learning_rate)
