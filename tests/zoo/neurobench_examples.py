"""Networks in the style of NeuroBench's examples, all of them with snnTorch's neurons."""

from __future__ import annotations

import snntorch as snn
import torch
from torch import Tensor, nn

from tests.zoo.weights import lively


class Reaching(nn.Module):
    """Two velocities, read from a membrane that is never reset; the membranes are attributes of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc_out = nn.Linear(24, 16, bias=False), nn.Linear(16, 2, bias=False)
        self.lif1 = snn.Leaky(beta=0.96, threshold=1, reset_mechanism="zero")
        self.lif_out = snn.Leaky(beta=0.96, threshold=1, reset_mechanism="none")
        self.dropout = nn.Dropout(0.3)
        self.mem1: Tensor | None = None
        self.mem2: Tensor | None = None

    def reset(self) -> None:
        self.mem1, self.mem2 = self.lif1.init_leaky(), self.lif_out.init_leaky()

    def single_forward(self, x: Tensor) -> Tensor:
        spk1, self.mem1 = self.lif1(self.dropout(self.fc1(x.squeeze())), self.mem1)
        _, self.mem2 = self.lif_out(self.fc_out(spk1), self.mem2)
        assert self.mem2 is not None
        return self.mem2.clone()

    def forward(self, x: Tensor) -> Tensor:
        self.reset()
        return torch.stack([self.single_forward(x[sample, ...]) for sample in range(x.shape[0])])


def primate_reaching() -> nn.Module:
    return lively(Reaching(), seed=35)
