"""Ours: the network as `training.fit` trains it. What trains is named in this file alone."""

from __future__ import annotations

from torch import Tensor

from benchmarks.contestants.base import SLOPE, TrainingJob
from benchmarks.contestants.torch_stack import TorchTraining
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.surrogate import SurrogateThreshold


def prepare(job: TrainingJob) -> TorchTraining:
    """Return our training."""
    module = TrainingNetwork.of(job.network)
    threshold = SurrogateThreshold(Surrogate.SUPERSPIKE, SLOPE)

    def forward(steps: Tensor) -> Tensor:
        counts: Tensor = module(steps, len(steps), threshold).output.sum(0)
        return counts

    parameters = {
        f"{node.name}.{name.removeprefix('connection.')}": parameter
        for node, layer in zip(job.network.spec.nodes, module.layers, strict=True)
        for name, parameter in layer.named_parameters()
    }
    return TorchTraining(forward, parameters, job.learning_rate)
