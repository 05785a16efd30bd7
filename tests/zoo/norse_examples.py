"""Networks in the style of Norse's notebooks, tasks and models."""

import norse.torch as norse
import torch
from norse.torch.models import vgg
from torch import Tensor, nn

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


def _recurrent(network: nn.Module, seed: int) -> nn.Module:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("input_weights", "recurrent_weights", "linear.weight")):
                value.copy_(torch.randn(value.shape, generator=random) * 4 / value.shape[1] ** 0.5)
    return network


def vgg_features() -> nn.Module:
    # VGG's own class; its classifier of 120 million weights is made without memory and replaced.
    features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    with torch.device("meta"):
        network = vgg.VGG(features, init_weights=False)
    network.features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    network.avgpool = norse.Lift(nn.AdaptiveAvgPool2d((1, 1)))
    network.classifier = nn.Sequential(norse.Lift(nn.Linear(8, 16)), norse.LIF(), norse.Lift(nn.Linear(16, 5)))
    return lively(network, seed=87, gain=6.0)


class Encoded(nn.Module):
    """An encoder of a constant current before the layers, with a skip connection; the last voltage."""

    def __init__(self, steps: int = 10) -> None:
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
