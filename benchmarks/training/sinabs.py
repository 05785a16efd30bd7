"""Sinabs: LIF with at most one spike a step and no lower bound; its reset and its surrogate are given as it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sinabs.activation import SingleSpike
from sinabs.layers import LIF, LIFRecurrent
from torch import Tensor, nn

from benchmarks.contestants.base import Skipped, Stage
from benchmarks.training import torch_stack
from benchmarks.training.base import SLOPE, Job
from benchmarks.training.torch_stack import TorchTraining, Wrap, as_it_is


def prepare(job: Job) -> TorchTraining:
    """Return the training of Sinabs."""
    return torch_stack.prepare(job, neurons, batch_first=True)


def fast_sigmoid(membrane: Tensor, threshold: Tensor) -> Tensor:
    """Return the surrogate derivative, of the membrane's shape."""
    return 1 / (1 + SLOPE * (membrane - threshold).abs()) ** 2


def subtract(spikes: Tensor, state: dict[str, Any], threshold: Tensor) -> dict[str, Any]:
    """Reset by subtraction, through which no gradient passes; Sinabs' own passes it."""
    return state | {"v_mem": state["v_mem"] - spikes.detach() * threshold}


def neurons(stage: Stage, recurrent: nn.Linear | None, wrap: Wrap) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (batch, time, *shape)."""
    if wrap is not as_it_is:
        raise Skipped("its layers loop over time inside, and to compile so many steps takes too long")
    rule = {
        "tau_mem": 1.0,
        "norm_input": False,
        "train_alphas": True,
        "spike_threshold": torch.tensor(stage.threshold),
        "spike_fn": SingleSpike,
        "reset_fn": subtract,
        "surrogate_grad_fn": fast_sigmoid,
    }
    layer = LIF(**rule) if recurrent is None else LIFRecurrent(rec_connect=recurrent, **rule)
    layer.alpha_mem.requires_grad_(False)  # the decay is not learned here
    # Set as it is: its own exp(-1 / tau) would round once more.
    layer.alpha_mem.data.fill_(stage.decay)

    def run(currents: Tensor) -> Tensor:
        layer.reset_states()
        raster: Tensor = layer(currents)
        return raster

    return run
