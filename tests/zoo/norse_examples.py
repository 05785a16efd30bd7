"""Networks in the style of Norse's notebooks, tasks and models."""

from __future__ import annotations

import norse.torch as norse
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.models import conv, vgg
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (as everybody writes it)

from tests.zoo.weights import lively

QUICK = norse.LIFParameters(v_th=torch.tensor(0.3))  # fires on random inputs within a few steps of 1 ms


def intro() -> nn.Module:
    network = norse.SequentialState(
        nn.Conv2d(3, 4, 3, 1),
        norse.LIFCell(QUICK),
        nn.Conv2d(4, 6, 3, 1),
        norse.LIFCell(QUICK),
        nn.Flatten(1),
        nn.Linear(6 * 4 * 4, 10, bias=False),
    )
    return lively(network, seed=80, gain=4.0)


def readout() -> nn.Module:
    network = norse.SequentialState(nn.Linear(20, 16), norse.LIFCell(QUICK), nn.Linear(16, 5), norse.LICell())
    return lively(network, seed=81, gain=4.0)


def lifted() -> nn.Module:
    network = norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 4, 3)),
        norse.LIF(QUICK),
        norse.Lift(nn.MaxPool2d(2)),
        norse.Lift(nn.Flatten()),
        norse.Lift(nn.Linear(4 * 3 * 3, 5)),
        norse.LI(),
    )
    return lively(network, seed=82, gain=4.0)


def boxes() -> nn.Module:
    box = LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.4))
    network = norse.SequentialState(nn.Linear(20, 16), norse.LIFBoxCell(box), nn.Linear(16, 5), norse.LIFBoxCell(box))
    return lively(network, seed=83, gain=4.0)


class Digits(nn.Module):
    """A recurrent layer and a leaky integrator; each image of the sequence is flattened by `view`."""

    def __init__(self, features: int = 36, hidden: int = 20, classes: int = 10) -> None:
        super().__init__()
        self.features = features
        self.l1 = norse.LIFRecurrentCell(features, hidden, p=QUICK)
        self.fc_out, self.out = nn.Linear(hidden, classes, bias=False), norse.LICell()

    def forward(self, x: Tensor) -> Tensor:
        s1 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z, s1 = self.l1(x[ts, :, :, :].view(-1, self.features), s1)
            vo, so = self.out(self.fc_out(z), so)
            voltages += [vo]
        return torch.stack(voltages)


def _recurrent(network: nn.Module, seed: int) -> nn.Module:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("input_weights", "recurrent_weights", "linear.weight")):
                value.copy_(torch.randn(value.shape, generator=random) * 4 / value.shape[1] ** 0.5)
    return network


def mnist_classifier() -> nn.Module:
    return _recurrent(lively(Digits(), seed=84, gain=4.0), seed=84)


class Decoded(nn.Module):
    """A network and what the notebook decodes it by: the largest voltage over time, and a log softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.snn = Digits()

    def forward(self, x: Tensor) -> Tensor:
        largest, _ = torch.max(self.snn(x), 0)
        return F.log_softmax(largest, dim=1)


def mnist_decoded() -> nn.Module:
    return _recurrent(lively(Decoded(), seed=85, gain=4.0), seed=85)


def conv_net() -> nn.Module:
    network = conv.ConvNet(num_channels=1, feature_size=16)
    return _recurrent(lively(network, seed=86, gain=6.0), seed=86)


def vgg_features() -> nn.Module:
    # VGG's own class; its classifier of 120 million weights is made without memory and replaced.
    features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    with torch.device("meta"):
        network = vgg.VGG(features, init_weights=False)
    network.features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    network.avgpool = norse.Lift(nn.AdaptiveAvgPool2d((1, 1)))
    network.classifier = nn.Sequential(norse.Lift(nn.Linear(8, 16)), norse.LIF(), norse.Lift(nn.Linear(16, 5)))
    return lively(network, seed=87, gain=6.0)


class Cifar(nn.Module):
    """Two SequentialStates, the same image at each step, and the largest voltage."""

    def __init__(self, steps: int = 12) -> None:
        super().__init__()
        self.steps = steps
        self.features = norse.SequentialState(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            norse.LIFCell(QUICK),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 3, padding=1, bias=False),
            norse.LIFCell(QUICK),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classification = norse.SequentialState(nn.Linear(8 * 2 * 2, 10, bias=False), norse.LICell())

    def forward(self, x: Tensor) -> Tensor:
        voltages = torch.empty(self.steps, x.shape[0], 10)
        sf = sc = None
        for ts in range(self.steps):
            out_f, sf = self.features(x, sf)
            out_c, sc = self.classification(out_f, sc)
            voltages[ts, :, :] = out_c
        largest, _ = torch.max(voltages, 0)
        return largest


def cifar10() -> nn.Module:
    return lively(Cifar(), seed=88, gain=4.0)


class Commands(nn.Module):
    """A cell of the caller's choice, an LILinearCell, and the last voltage."""

    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.readout = cell(12, 16), norse.LILinearCell(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        s = so = None
        for ts in range(x.shape[0]):
            z, s = self.cell(x[ts, :], s)
            v, so = self.readout(z, so)
        return F.log_softmax(v, dim=1)


def speech_commands() -> nn.Module:
    return _recurrent(Commands(norse.LIFRecurrentCell), seed=89)


def long_short_term() -> nn.Module:
    return _recurrent(Commands(norse.LSNNRecurrentCell), seed=90)


class Memory(nn.Module):
    """Two kinds of cells side by side, joined by torch.cat, over (batch, time, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.lif_cell, self.lsnn_cell = norse.LIFRecurrentCell(8, 6), norse.LSNNRecurrentCell(8, 6)
        self.readout = norse.LILinearCell(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        lif = lsnn = so = None
        readouts = []
        for step in x.unbind(1):
            left, lif = self.lif_cell(step, lif)
            right, lsnn = self.lsnn_cell(step, lsnn)
            v, so = self.readout(torch.cat((left, right), -1), so)
            readouts.append(v)
        return torch.stack(readouts)


def store_recall() -> nn.Module:
    return _recurrent(Memory(), seed=91)


def adaptive_exponential() -> nn.Module:
    network = norse.SequentialState(nn.Linear(20, 16), norse.LIFAdExCell(), nn.Linear(16, 5), norse.LICell())
    return lively(network, seed=92, gain=4.0)


def long_short_layer() -> nn.Module:
    network = norse.SequentialState(nn.Linear(20, 16), norse.LSNNCell(), nn.Linear(16, 5), norse.LICell())
    return lively(network, seed=93, gain=4.0)


def refractory() -> nn.Module:
    network = norse.SequentialState(
        nn.Linear(20, 16),
        norse.LIFRefracCell(norse.LIFRefracParameters(lif=QUICK, rho_reset=torch.tensor(3.0))),
        nn.Linear(16, 5),
        norse.LICell(),
    )
    return lively(network, seed=94, gain=4.0)


class Inverted(nn.Module):
    """An inverted residual as of MobileNet: what comes in is added to what a narrow path makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.lif = nn.Conv2d(4, 8, 1, bias=False), norse.LIFCell(QUICK)
        self.depth, self.narrow = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Conv2d(8, 4, 1, bias=False)
        self.norm, self.stem, self.last = nn.BatchNorm2d(4), nn.Conv2d(1, 4, 3, padding=1), norse.LIFCell(QUICK)
        self.head, self.out = nn.Linear(4, 3), norse.LICell()

    def forward(self, x: Tensor) -> Tensor:
        s1 = s2 = so = None
        voltages = []
        for step in x:
            stem = self.stem(step)
            z, s1 = self.lif(self.wide(stem), s1)
            z, s2 = self.last(stem + self.norm(self.narrow(self.depth(z))), s2)
            v, so = self.out(self.head(F.adaptive_avg_pool2d(z, 1).reshape(z.shape[0], -1)), so)
            voltages.append(v)
        return torch.stack(voltages)


def inverted_residual() -> nn.Module:
    return lively(Inverted(), seed=95, gain=4.0)


class Encoded(nn.Module):
    """An encoder of a constant current before the layers, with a skip connection; the last voltage."""

    def __init__(self, steps: int = 16) -> None:
        super().__init__()
        self.encoder = norse.ConstantCurrentLIFEncoder(steps, p=norse.LIFParameters(v_th=torch.tensor(0.3)))
        self.lin1, self.lin2, self.li = nn.Linear(12, 20), nn.Linear(20, 20), norse.LILinearCell(20, 5)
        self.lif1, self.lif2 = norse.LIFCell(QUICK), norse.LIFCell(QUICK)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        steps = 2 * self.scale * self.encoder(8 * self.scale * x)
        voltages = torch.empty(len(steps), x.shape[0], 5)
        s1 = s2 = so = None
        for ts in range(len(steps)):
            z1, s1 = self.lif1(self.lin1(steps[ts]), s1)
            z2, s2 = self.lif2(self.lin2(z1), s2)
            voltages[ts], so = self.li(z1 + z2, so)
        return voltages[-1]


def encoded() -> nn.Module:
    return _recurrent(lively(Encoded(), seed=110, gain=4.0), seed=110)
