"""Networks in the style of SpikingJelly's tutorials and examples, and of the older clock_driven ones."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import ann2snn, functional, layer, neuron, surrogate
from torch import Tensor, nn

from tests.zoo.weights import lively


class SingleStep(nn.Module):
    """One layer in single-step mode; the loop over time is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            layer.Flatten(),
            layer.Linear(8 * 8, 10, bias=False),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def lif_fc_mnist() -> nn.Module:
    return lively(SingleStep(), seed=40)


class RepeatedImage(nn.Module):
    """Repeats its image over time, in multi-step mode, and returns the firing rate."""

    def __init__(self, steps: int = 4, channels: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(channels * 2 * 2, 16, bias=False),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.Linear(16, 10, bias=False),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)
        return self.conv_fc(sequence).mean(0)


def conv_fashion_mnist() -> nn.Module:
    return lively(RepeatedImage(), seed=41)


class StaticConvolution(nn.Module):
    """The older style: a convolution that runs once, and a loop that adds up the spikes of the rest."""

    def __init__(self, steps: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.static_conv = nn.Sequential(nn.Conv2d(1, 4, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.conv = nn.Sequential(
            neuron.IFNode(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 4, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            neuron.IFNode(),
            nn.MaxPool2d(2, 2),
        )
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(4 * 2 * 2, 10, bias=False), neuron.LIFNode(tau=2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.static_conv(x)
        counted = self.fc(self.conv(x))
        for _ in range(1, self.steps):
            counted = counted + self.fc(self.conv(x))
        return counted / self.steps


def clock_driven_static_conv() -> nn.Module:
    return lively(StaticConvolution(), seed=42)


class RowByRow(nn.Module):
    """Reads an image row by row, (time, batch, columns), and returns the rate."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            layer.Linear(12, 16),
            *middle,
            layer.Linear(16, 10),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).mean(0)


def rows_plain() -> nn.Module:
    network = RowByRow(neuron.IFNode(surrogate_function=surrogate.ATan()))
    functional.set_step_mode(network, "m")
    return lively(network, seed=43)


def rows_synapse_filter() -> nn.Module:
    network = RowByRow(neuron.IFNode(), layer.SynapseFilter(tau=2.0, learnable=True))
    functional.set_step_mode(network, "m")
    return lively(network, seed=44)


def rows_feedback() -> nn.Module:
    network = RowByRow(layer.LinearRecurrentContainer(neuron.IFNode(detach_reset=True), 16, 16, bias=True))
    functional.set_step_mode(network, "m")
    return lively(network, seed=45)


def element_wise_feedback() -> nn.Module:
    network = RowByRow(layer.ElementWiseRecurrentContainer(neuron.IFNode(), element_wise_function=lambda x, y: x + y))
    functional.set_step_mode(network, "m")
    return lively(network, seed=46)


def sequence_containers() -> nn.Module:
    network = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
        neuron.LIFNode(step_mode="m"),
        layer.SeqToANNContainer(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * 4, 10)),
        neuron.LIFNode(step_mode="m"),
    )
    return lively(network, seed=47, gain=4.0)


class Permuted(nn.Module):
    """Given (batch, time, …), as a data loader gives events; turns it to time first by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layer.Conv2d(2, 4, 3, padding=1, bias=False),
            layer.BatchNorm2d(4),
            neuron.ParametricLIFNode(init_tau=2.0),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(4 * 4 * 4, 11),
            neuron.LIFNode(),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(1, 0, 2, 3, 4).contiguous()).permute(1, 0, 2)


def permuted_events() -> nn.Module:
    return lively(Permuted(), seed=48, gain=6.0)


class Residual(nn.Module):
    """Spikes added to spikes, as a SEW block does, by the author's own class."""

    def __init__(self, combined: str) -> None:
        super().__init__()
        self.combined = combined
        self.stem = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(v_reset=None))
        self.block = nn.Sequential(layer.Conv2d(4, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.LIFNode(v_reset=None))
        self.head = nn.Sequential(layer.Flatten(), layer.Linear(4 * 6 * 6, 5), neuron.LIFNode(v_reset=None))
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        kept = self.stem(x)
        new = self.block(kept)
        joined = {"ADD": kept + new, "AND": kept * new, "IAND": kept * (1.0 - new)}[self.combined]
        return self.head(joined)


def skip_add() -> nn.Module:
    return lively(Residual("ADD"), seed=49)


def skip_and() -> nn.Module:
    return lively(Residual("AND"), seed=49, gain=6.0)


def skip_iand() -> nn.Module:
    return lively(Residual("IAND"), seed=49, gain=6.0)


class TwoPaths(nn.Module):
    """Two paths, joined by torch.cat; both use one and the same convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = layer.Conv2d(1, 3, 3, padding=1)
        self.left, self.right = neuron.IFNode(v_threshold=0.5), neuron.LIFNode(tau=4.0)
        self.pool, self.flat = layer.AvgPool2d(2), layer.Flatten()
        self.fc, self.out = layer.Linear(6 * 3 * 3, 4), neuron.IFNode()
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(self.shared(x)), self.right(self.shared(x))
        return self.out(self.fc(self.flat(self.pool(torch.cat([left, right], dim=2)))))


def shared_weights_cat() -> nn.Module:
    return lively(TwoPaths(), seed=50, gain=6.0)


def converted_ann() -> nn.Module:
    """An ANN with ReLUs, converted: an IFNode that subtracts, between two scalers, in place of each ReLU."""
    scaler = ann2snn.modules.VoltageScaler
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Sequential(scaler(1 / 1.7), neuron.IFNode(v_threshold=1.0, v_reset=None), scaler(1.7)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 16),
        nn.Sequential(scaler(1 / 2.3), neuron.IFNode(v_threshold=1.0, v_reset=None), scaler(2.3)),
        nn.Linear(16, 10),
    )
    return lively(network, seed=51)


def current_based() -> nn.Module:
    network = nn.Sequential(
        nn.Linear(12, 16),
        neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_reset=None),
        nn.Linear(16, 4),
        neuron.NonSpikingLIFNode(tau=2.0, decode="max-mem"),
    )
    functional.set_step_mode(network, "m")
    return lively(network, seed=52)


def quadratic() -> nn.Module:
    network = nn.Sequential(layer.Linear(12, 16), neuron.QIFNode(), layer.Linear(16, 4), neuron.EIFNode())
    functional.set_step_mode(network, "m")
    return lively(network, seed=53)
