"""The forward pass of training: from raw samples to the last layer's output and every layer's spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.coding import encode
from models.engines.torch.network import SpikingNetwork
from models.neurons import Arithmetic
from models.spec.network import FloatArray
from models.spec.nodes import Spiking


@dataclass(frozen=True)
class Activity:
    """The result of a forward pass: `output` (time_steps, batch, classes), and each spiking layer's raster by name."""

    output: Tensor
    rasters: dict[str, Tensor]

    @property
    def firing_rates(self) -> dict[str, float]:
        """Spikes per neuron and step of each layer, over the batch."""
        return {name: float(raster.detach().mean()) for name, raster in self.rasters.items()}


def forward(
    module: SpikingNetwork,
    samples: FloatArray,
    arithmetic: Arithmetic[Tensor],
    seed: int | Sequence[int] = 0,
) -> Activity:
    """Encode raw samples (batch, *shape), or (batch, time_steps, *shape) of spikes, and run them from rest."""
    inputs = encode(samples, module.spec, seed=seed)
    device = next(module.parameters()).device
    rasters: dict[str, Tensor] = {}
    for passed in module(torch.from_numpy(inputs.steps).to(device), inputs.time_steps, arithmetic):
        if isinstance(passed.node, Spiking):
            rasters[passed.node.name] = passed.leaving
    return Activity(passed.leaving, rasters)
