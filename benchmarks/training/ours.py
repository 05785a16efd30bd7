"""Ours: the network as `training.fit` trains it. What trains is named in this file alone."""

from __future__ import annotations

from torch import Tensor

from benchmarks.training.base import SLOPE, Job
from benchmarks.training.torch_stack import TorchTraining
from models.engines.torch.network import SpikingNetwork
from training.fit.surrogate import SurrogateThreshold


def prepare(job: Job) -> TorchTraining:
    """Return our training."""
    module = SpikingNetwork.of(job.network)
    threshold = SurrogateThreshold(lambda x, slope: 1 / (1 + slope * x.abs()) ** 2, SLOPE)

    def forward(steps: Tensor) -> Tensor:
        *_, last = module(steps, len(steps), threshold)
        spikes: Tensor = last.leaving
        return spikes

    layers = dict(zip((node.name for node in job.network.spec.nodes), module.layers, strict=True))
    parameters = {
        f"{node}.{name}": parameter for node, layer in layers.items() for name, parameter in layer.named_parameters()
    }
    return TorchTraining(forward, parameters, job.learning_rate)
