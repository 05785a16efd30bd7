"""SpikingJelly: IFNode and LIFNode in multi-step mode; a recurrent layer has to go step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor

from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import Job, Run, Stage


def prepare(job: Job) -> Run:
    """Return a run of SpikingJelly."""
    return torch_stack.prepare(job, neurons)


def neurons(stage: Stage) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    recurrent = torch_stack.recurrent(stage)
    rule = {
        "v_threshold": stage.threshold,
        "v_reset": None if stage.subtracts else 0.0,
        "step_mode": "m" if recurrent is None else "s",
    }
    if stage.decay == 1:
        node = neuron.IFNode(**rule)
    else:
        node = neuron.LIFNode(tau=1 / (1 - stage.decay), decay_input=False, **rule)
    node.eval()

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
