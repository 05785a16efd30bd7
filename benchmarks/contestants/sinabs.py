"""Sinabs: LIF and IAF with at most one spike a step and no lower bound of the membrane."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike
from sinabs.layers import IAF, LIF, IAFRecurrent, LIFRecurrent
from torch import Tensor

from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import Job, Run, Stage


def prepare(job: Job) -> Run:
    """Return a run of Sinabs."""
    return torch_stack.prepare(job, neurons, batch_first=True)


def neurons(stage: Stage) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (batch, time, *shape)."""
    rule = {
        "spike_threshold": torch.tensor(stage.threshold),
        "spike_fn": SingleSpike,
        "reset_fn": MembraneSubtract() if stage.subtracts else MembraneReset(),
    }
    recurrent = torch_stack.recurrent(stage)
    if stage.decay == 1:
        layer = IAF(**rule) if recurrent is None else IAFRecurrent(rec_connect=recurrent, **rule)
    else:
        rule |= {"tau_mem": 1.0, "norm_input": False, "train_alphas": True}
        layer = LIF(**rule) if recurrent is None else LIFRecurrent(rec_connect=recurrent, **rule)
        # Set as it is: its own exp(-1 / tau) would round once more.
        layer.alpha_mem.data.fill_(stage.decay)
    layer.eval().requires_grad_(False)

    def run(currents: Tensor) -> Tensor:
        layer.reset_states()
        raster: Tensor = layer(currents)
        return raster

    return run
