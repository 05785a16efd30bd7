"""Networks in the style of snnTorch's tutorials; README.md says of each which, and what is special about it.

Networks in the style of what people build with snnTorch; README.md says of each what is special about it.

Networks in the style of NeuroBench's examples, all of them with snnTorch's neurons.
"""

import snntorch as snn
import torch
from snntorch import spikegen, surrogate, utils
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (as everybody writes it)

from tests.zoo.weights import lively


class Feedforward(nn.Module):
    """Two layers that read `x[step]`; the membranes are handed on by the forward."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fc1, self.fc2 = nn.Linear(36, 24), nn.Linear(24, 5)
        self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for step in range(self.steps):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


def feedforward() -> nn.Module:
    return lively(Feedforward(steps=20), seed=3)


def convolutional_sequential() -> nn.Module:
    grad = surrogate.fast_sigmoid(slope=25)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.Conv2d(4, 8, 3),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 10),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True, output=True),
    )
    return lively(network, seed=7)


class ConvolutionalRecurrent(nn.Module):
    """An RLeaky whose recurrent connection is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.rlif = snn.RLeaky(beta=0.8, conv2d_channels=3, kernel_size=3)
        self.fc, self.lif = nn.Linear(3 * 6 * 6, 4), snn.Leaky(beta=0.8)

    def forward(self, x: Tensor) -> Tensor:
        spk, mem = self.rlif.init_rleaky()
        last = self.lif.init_leaky()
        spikes = []
        for step in range(x.size(0)):
            spk, mem = self.rlif(self.conv(x[step]), spk, mem)
            out, last = self.lif(self.fc(spk.flatten(1)), last)
            spikes.append(out)
        return torch.stack(spikes)


def recurrent_convolutional() -> nn.Module:
    return lively(ConvolutionalRecurrent(), seed=14)


class NormThroughTime(nn.Module):
    """A batch norm for each step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fc1, self.fc2 = nn.Linear(20, 16, bias=False), nn.Linear(16, 4, bias=False)
        self.norm = snn.BatchNormTT1d(16, steps)
        self.lif1, self.lif2 = snn.Leaky(beta=0.95), snn.Leaky(beta=0.95)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for step in range(self.steps):
            spk1, mem1 = self.lif1(self.norm[step](self.fc1(x)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


def batch_norm_through_time() -> nn.Module:
    return lively(NormThroughTime(steps=6), seed=17)


class LightCurve(nn.Module):
    """F.max_pool1d over the features of a Linear, and a Linear at the end: no neuron gives the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(40, 32), nn.Linear(16, 16), nn.Linear(8, 2)
        self.lif1, self.lif2 = snn.Leaky(beta=0.5), snn.Leaky(beta=0.5)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk1, mem1 = self.lif1(F.max_pool1d(self.fc1(x), 2), mem1)
        spk2, mem2 = self.lif2(F.max_pool1d(self.fc2(spk1), 2), mem2)
        return self.fc3(spk2.view(x.size(0), -1))


def exoplanet() -> nn.Module:
    return lively(LightCurve(), seed=19)


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
