"""Networks in the style of NeuroBench's examples, all of them with snnTorch's neurons."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import Tensor, nn

from tests.zoo.weights import lively


def keyword_spotting() -> nn.Module:
    grad = surrogate.fast_sigmoid()
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(20, 32),
        snn.Leaky(beta=0.9, spike_grad=grad, init_hidden=True),
        nn.Linear(32, 32),
        snn.Leaky(beta=0.9, spike_grad=grad, init_hidden=True),
        nn.Linear(32, 12),
        snn.Leaky(beta=0.9, spike_grad=grad, init_hidden=True, output=True),
    )
    return lively(network, seed=31)


class Activity(nn.Module):
    """Convolutions over one sample of time: each step is reshaped to 6 × 1 and padded."""

    def __init__(self, steps: int = 12) -> None:
        super().__init__()
        self.steps = steps
        self.conv1, self.max1 = nn.Conv1d(6, 12, 2, padding=4), nn.MaxPool1d(2)
        self.leaky1 = snn.Leaky(beta=0.4, init_hidden=True, threshold=0.2)
        self.conv2, self.max2 = nn.Conv1d(12, 16, kernel_size=1), nn.MaxPool1d(2)
        self.leaky2 = snn.Leaky(beta=0.3, init_hidden=True, threshold=0.1)
        self.flatten, self.linear = nn.Flatten(), nn.Linear(32, 7)
        self.leaky3 = snn.Leaky(beta=0.5, output=True, init_hidden=True, threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        spikes = []
        for step in range(self.steps):
            part = x[:, step, :]
            part = self.leaky1(self.max1(self.conv1(part.reshape(part.shape[0], part.shape[1], 1))))
            part = self.leaky2(self.max2(self.conv2(part)))
            spk, _ = self.leaky3(self.linear(self.flatten(part)))
            spikes.append(spk)
        return torch.stack(spikes)


def human_activity() -> nn.Module:
    return lively(Activity(), seed=32)


class MotorImagery(nn.Module):
    """(batch, time, channels) in, (batch, time, classes) out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 24), nn.Linear(24, 12), nn.Linear(12, 2)
        self.lif1, self.lif2, self.lif3 = (snn.Leaky(beta=0.9) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        spikes = []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t, :]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk3, mem3 = self.lif3(self.fc3(spk2), mem3)
            spikes.append(spk3)
        return torch.stack(spikes, dim=1)


def motor_imagery() -> nn.Module:
    return lively(MotorImagery(), seed=33)


class Gesture(nn.Module):
    """One step; hidden states, padding "same" and a flatten between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool1 = nn.Conv2d(2, 4, 5, padding="same"), nn.MaxPool2d(2)
        self.lif1 = snn.Leaky(beta=0.99999, threshold=3.5, init_hidden=True)
        self.conv2, self.pool2 = nn.Conv2d(4, 8, 5, padding="same"), nn.MaxPool2d(2)
        self.lif2 = snn.Leaky(beta=0.7291, threshold=3.4944, init_hidden=True)
        self.linear1, self.dropout = nn.Linear(8 * 4 * 4, 11), nn.Dropout(0.6)
        self.lif3 = snn.Leaky(beta=0.8348, threshold=0.3641, init_hidden=True, output=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spk1 = self.lif1(self.pool1(self.conv1(x)))
        spk2 = self.lif2(self.pool2(self.conv2(spk1)))
        spk3, mem3 = self.lif3(self.dropout(self.linear1(spk2.flatten(1))))
        return spk3, mem3


def gesture() -> nn.Module:
    return lively(Gesture(), seed=34, gain=4.0)


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
