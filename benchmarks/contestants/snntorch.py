"""snnTorch: Leaky and RLeaky without their delayed reset and without a surrogate gradient, under inference_mode."""

from __future__ import annotations

from collections.abc import Callable

import snntorch
import torch
from torch import Tensor

from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import Job, Run, Stage


def prepare(job: Job) -> Run:
    """Return a run of snnTorch."""
    return torch_stack.prepare(job, neurons)


def neurons(stage: Stage) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    rule = {
        "beta": stage.decay,
        "threshold": stage.threshold,
        "reset_mechanism": "subtract" if stage.subtracts else "zero",
        "reset_delay": False,
        "surrogate_disable": True,
    }
    recurrent = torch_stack.recurrent(stage)
    if recurrent is None:
        leaky = snntorch.Leaky(**rule)

        def step_through(currents: Tensor) -> Tensor:
            membrane, raster = torch.zeros_like(currents[0]), []
            for current in currents:
                spikes, membrane = leaky(current, membrane)
                raster.append(spikes)
            return torch.stack(raster)

        return step_through

    cell = snntorch.RLeaky(**rule, linear_features=recurrent.in_features).requires_grad_(False)
    cell.recurrent = recurrent

    def step_recurrently(currents: Tensor) -> Tensor:
        membrane, raster = torch.zeros_like(currents[0]), []
        spikes = torch.zeros_like(membrane)
        for current in currents:
            spikes, membrane = cell(current, spikes, membrane)
            raster.append(spikes)
        return torch.stack(raster)

    return step_recurrently
