"""A Scale as training sees it: its arrays are learned, its numbers are as they are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeserve.models.engines.torch.connections import ScaleLayer
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Scale
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.fit.layers import ServedLayer
from spikeserve.training.fit.operators import Signal, dense


class Scales(ScaleLayer):
    """Factors and offsets, of which arrays are learned: factors start as 1, and offsets as 0."""

    def __init__(self, node: Scale, shape: Shape) -> None:
        super().__init__(node, shape)
        for name in node.arrays:
            values = torch.full_like(self.get_buffer(name), float(name == "scale"))
            delattr(self, name)
            self.register_parameter(name, nn.Parameter(values))

    def scaled(self, signal: Signal, time_steps: int) -> Tensor:
        """Return the scaled signal, (time_steps or 1, batch, *shape)."""
        x = dense(signal)
        if not self.node.by_step:
            flat = self(x.flatten(0, 1))
            return flat.view(*x.shape[:2], *flat.shape[1:])
        by_step: Tensor = self(x, torch.arange(time_steps, device=x.device).unsqueeze(1))
        return by_step

    def written(self) -> ServedLayer:
        """Return the node and its arrays as they are now."""
        return ServedLayer(
            self.node, {name: getattr(self, name).detach().float().cpu().numpy().copy() for name in self.node.arrays}
        )

    @torch.no_grad()
    def read(self, network: Network) -> None:
        """Take over a network's arrays."""
        for name in self.node.arrays:
            getattr(self, name).copy_(torch.from_numpy(network.tensors[f"{self.node.name}.{name}"].copy()))
