"""Networks in the style of what people build with snnTorch; README.md says of each what is special about it."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import spikegen, utils
from torch import Tensor, nn

from tests.zoo.weights import lively


class Electrodes(nn.Module):
    """Recordings (batch, channels, time), and a list of what each step gives."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 24), nn.Linear(24, 2)
        self.lif1 = snn.Synaptic(alpha=torch.full((24,), 0.6), beta=0.8, reset_mechanism="zero", reset_delay=False)
        self.lif2 = snn.Synaptic(alpha=0.6, beta=0.8, reset_mechanism="zero", reset_delay=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        (syn1, mem1), (syn2, mem2) = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes = []
        for step in range(x.shape[-1]):
            spk, syn1, mem1 = self.lif1(self.fc1(x[:, :, step]), syn1, mem1)
            spk, syn2, mem2 = self.lif2(self.fc2(spk), syn2, mem2)
            spikes.append(spk)
        return spikes


def electrodes() -> nn.Module:
    return lively(Electrodes(), seed=201)


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
