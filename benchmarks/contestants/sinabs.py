"""Sinabs: LIF and IAF with at most one spike a step and no lower bound of the membrane.

In training its reset and its surrogate are given as it asks.
"""

from __future__ import annotations

from typing import Any

import torch
from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike
from sinabs.layers import IAF, LIF, IAFRecurrent, LIFRecurrent
from torch import Tensor, nn

from benchmarks.contestants.base import SLOPE, Skipped, Stage
from benchmarks.contestants.torch_stack import Layer, Library, Setting, as_it_is


def fast_sigmoid(membrane: Tensor, threshold: Tensor) -> Tensor:
    """Return the surrogate derivative, of the membrane's shape."""
    return 1 / (1 + SLOPE * (membrane - threshold).abs()) ** 2


def subtract(spikes: Tensor, state: dict[str, Any], threshold: Tensor) -> dict[str, Any]:
    """Reset by subtraction, through which no gradient passes; Sinabs' own passes it."""
    return state | {"v_mem": state["v_mem"] - spikes.detach() * threshold}


def neurons(stage: Stage, recurrent: nn.Linear | None, setting: Setting) -> Layer:
    """Return a stage's neurons over currents (batch, time, *shape)."""
    if setting.wrap is not as_it_is:
        raise Skipped("its layers loop over time inside, and to compile so many steps takes too long")
    rule = {
        "spike_threshold": torch.tensor(stage.threshold),
        "spike_fn": SingleSpike,
        "reset_fn": MembraneSubtract() if stage.subtracts else MembraneReset(),
    }
    if setting.trains:
        rule |= {"reset_fn": subtract, "surrogate_grad_fn": fast_sigmoid}
    if stage.decay == 1:
        layer = IAF(**rule) if recurrent is None else IAFRecurrent(rec_connect=recurrent, **rule)
    else:
        rule |= {"tau_mem": 1.0, "norm_input": False, "train_alphas": True}
        layer = LIF(**rule) if recurrent is None else LIFRecurrent(rec_connect=recurrent, **rule)
        layer.alpha_mem.requires_grad_(False)  # the decay is not learned here
        # Set as it is: its own exp(-1 / tau) would round once more.
        layer.alpha_mem.data.fill_(stage.decay)
    layer.train(setting.trains)

    def run(currents: Tensor) -> Tensor:
        layer.reset_states()
        raster: Tensor = layer(currents)
        return raster

    return run


LIBRARY = Library(neurons, batch_first=True)
