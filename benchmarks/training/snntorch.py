"""snnTorch: Leaky and RLeaky with their own delayed reset, which is detached."""

from __future__ import annotations

from collections.abc import Callable

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

from benchmarks.contestants.base import Stage
from benchmarks.training import torch_stack
from benchmarks.training.base import SLOPE, Job
from benchmarks.training.torch_stack import TorchTraining, Wrap


def prepare(job: Job) -> TorchTraining:
    """Return the training of snnTorch."""
    return torch_stack.prepare(job, neurons)


def neurons(stage: Stage, recurrent: nn.Linear | None, wrap: Wrap) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    rule = {"beta": stage.decay, "threshold": stage.threshold, "spike_grad": surrogate.fast_sigmoid(slope=SLOPE)}
    if recurrent is None:
        leaky = wrap(snntorch.Leaky(**rule))

        def step_through(currents: Tensor) -> Tensor:
            membrane, raster = torch.zeros_like(currents[0]), []
            for current in currents:
                spikes, membrane = leaky(current, membrane)
                raster.append(spikes)
            return torch.stack(raster)

        return step_through

    recurrent_leaky = snntorch.RLeaky(**rule, linear_features=recurrent.in_features)
    recurrent_leaky.recurrent = recurrent
    cell = wrap(recurrent_leaky)

    def step_recurrently(currents: Tensor) -> Tensor:
        membrane, raster = torch.zeros_like(currents[0]), []
        spikes = torch.zeros_like(membrane)
        for current in currents:
            spikes, membrane = cell(current, spikes, membrane)
            raster.append(spikes)
        return torch.stack(raster)

    return step_recurrently
