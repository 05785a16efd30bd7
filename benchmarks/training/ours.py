"""Ours: the network as `training.fit` trains it. What trains is named in this file alone."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.contestants.base import SLOPE, Targets, TrainingJob
from benchmarks.contestants.torch_stack import Batch, TorchTraining
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.layers import Neurons
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.operators import Spikes, listed
from spikeserve.training.fit.surrogate import SurrogateThreshold


class OurTraining(TorchTraining):
    """A network whose batches are listed when they are made, as `training.fit` does."""

    def load(self, steps: FloatArray, targets: Targets) -> Batch:
        """Return a batch of spikes (time_steps, batch, *shape) with its targets (batch,)."""
        batch = super().load(steps, targets)
        return batch._replace(steps=listed(batch.steps))


@torch.no_grad()
def module_of(network: Network) -> TrainingNetwork:
    """Return the layers of a network that is a stack without learned delays, with its tensors."""
    module = TrainingNetwork(Architecture(network.spec))
    for node, layer in zip(network.spec.nodes, module.layers, strict=True):
        for name, values in layer.named_parameters():
            values.copy_(torch.from_numpy(network.tensors[f"{node.name}.{name.removeprefix('connection.')}"].copy()))
        if isinstance(layer, Neurons):
            for name in layer.names:
                layer.set_parameter(name, torch.from_numpy(network.parameter(node, name).copy()))
    return module


def prepare(job: TrainingJob) -> OurTraining:
    """Return our training."""
    module = module_of(job.network)
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
