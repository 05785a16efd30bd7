"""Networks in the style of what people build with snnTorch; README.md says of each what is special about it."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import spikegen, utils
from torch import Tensor, nn

from tests.zoo.weights import lively


class Policy(nn.Module):
    """A ReLU in front of a recurrent layer, whose last spikes two heads read; batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.action, self.size = nn.Linear(6, 20), nn.Linear(20, 4), nn.Linear(20, 3)
        self.lif = snn.RLeaky(beta=0.9, linear_features=20)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        batch, steps, _ = x.shape
        spikes, membrane = torch.zeros(batch, 20), torch.zeros(batch, 20)
        for step in range(steps):
            spikes, membrane = self.lif(torch.relu(self.encoder(x[:, step])), spikes, membrane)
        return {"size": self.size(spikes), "action": self.action(spikes)}


def policy() -> nn.Module:
    network = lively(Policy(), seed=203)
    network.lif.recurrent.weight.data *= 0.3
    return network


class RateCoded(nn.Module):
    """Draws its own spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(16, 4), snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        return torch.stack([self.lif(self.fc(step)) for step in spikegen.rate(x, num_steps=10)])


def rate_coded() -> nn.Module:
    return lively(RateCoded(), seed=204)
