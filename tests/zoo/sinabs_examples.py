"""Networks in the style of sinabs' tutorials and gallery."""

import sinabs.layers as sl
import torch
from sinabs.activation import MembraneSubtract, SingleSpike
from sinabs.from_torch import from_model
from torch import Tensor, nn

from tests.zoo.weights import lively

BATCH = 4


def quickstart() -> nn.Module:
    network = nn.Sequential(nn.Linear(16, 24), sl.LIF(tau_mem=10.0), nn.Linear(24, 4), sl.LIF(tau_mem=10.0))
    return lively(network, seed=100, gain=16.0)


def _ann() -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(4, 8, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 16, bias=False),
        nn.ReLU(),
        nn.Linear(16, 10, bias=False),
    )
    return lively(network, seed=102)


def weight_transfer_spiking() -> nn.Module:
    return from_model(_ann(), input_shape=(1, 14, 14), batch_size=BATCH, add_spiking_output=True)


class Skipping(nn.Module):
    """A pooled copy of an earlier layer's spikes is added, by sinabs' Merge, before a later convolution."""

    def __init__(self) -> None:
        super().__init__()
        spiking = {"batch_size": BATCH, "min_v_mem": -1.0, "spike_fn": SingleSpike, "reset_fn": MembraneSubtract()}
        self.conv1, self.iaf1 = nn.Conv2d(2, 4, 2, 1, bias=False), sl.IAFSqueeze(**spiking)
        self.pool1, self.pool1a = sl.SumPool2d(2, 2), sl.SumPool2d(4, 4)
        self.conv2, self.iaf2 = nn.Conv2d(4, 4, 2, 1, padding=1, bias=False), sl.IAFSqueeze(**spiking)
        self.pool2, self.merge = sl.SumPool2d(2, 2), sl.Merge()
        self.fc, self.iaf3 = nn.Linear(4 * 2 * 2, 5, bias=False), sl.IAFSqueeze(**spiking)

    def forward(self, x: Tensor) -> Tensor:
        first = self.iaf1(self.conv1(x))
        second = self.iaf2(self.conv2(self.pool1(first)))
        joined = self.merge(self.pool2(second), self.pool1a(first))
        return self.iaf3(self.fc(torch.flatten(joined, 1)))


def skip_connection() -> nn.Module:
    return lively(Skipping(), seed=108)
