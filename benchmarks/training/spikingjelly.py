"""SpikingJelly: LIFNode in multi-step mode; a recurrent layer has to go step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from benchmarks.contestants.base import Stage
from benchmarks.training import torch_stack
from benchmarks.training.base import SLOPE, Job
from benchmarks.training.torch_stack import TorchTraining, Wrap, as_it_is


def prepare(job: Job) -> TorchTraining:
    """Return the training of SpikingJelly."""
    return torch_stack.prepare(job, neurons)


def neurons(stage: Stage, recurrent: nn.Linear | None, wrap: Wrap) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    by_step = recurrent is not None or wrap is not as_it_is
    node = neuron.LIFNode(
        tau=1 / (1 - stage.decay),
        decay_input=False,
        v_threshold=stage.threshold,
        v_reset=None,
        surrogate_function=surrogate.SuperSpike(alpha=SLOPE),
        detach_reset=True,
        step_mode="s" if by_step else "m",
    )
    step = wrap(node)

    def run(currents: Tensor) -> Tensor:
        functional.reset_net(node)
        if not by_step:
            raster: Tensor = node(currents)
            return raster
        spikes, steps = torch.zeros_like(currents[0]), []
        for current in currents:
            spikes = step(current if recurrent is None else current + recurrent(spikes))
            steps.append(spikes)
        return torch.stack(steps)

    return run
