"""SpikingJelly: LIFNode in multi-step mode; a recurrent layer has to go step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from benchmarks.contestants.base import Stage
from benchmarks.training import torch_stack
from benchmarks.training.base import SLOPE, Job
from benchmarks.training.torch_stack import TorchTraining


def prepare(job: Job) -> TorchTraining:
    """Return the training of SpikingJelly."""
    return torch_stack.prepare(job, neurons)


def neurons(stage: Stage, recurrent: nn.Linear | None) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    node = neuron.LIFNode(
        tau=1 / (1 - stage.decay),
        decay_input=False,
        v_threshold=stage.threshold,
        v_reset=None,
        surrogate_function=surrogate.SuperSpike(alpha=SLOPE),
        detach_reset=True,
        step_mode="m" if recurrent is None else "s",
    )

    def run(currents: Tensor) -> Tensor:
        functional.reset_net(node)
        if recurrent is None:
            raster: Tensor = node(currents)
            return raster
        spikes, steps = torch.zeros_like(currents[0]), []
        for current in currents:
            spikes = node(current + recurrent(spikes))
            steps.append(spikes)
        return torch.stack(steps)

    return run
