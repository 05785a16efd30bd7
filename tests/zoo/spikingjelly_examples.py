"""Networks in the style of SpikingJelly's tutorials and examples, and of the older clock_driven ones.

SpikingJelly's own model classes, with few channels and few classes.
"""

from spikingjelly.activation_based import ann2snn, functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net, qkformer, sew_resnet
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


class RowByRow(nn.Module):
    """Reads an image row by row, (time, batch, columns), and returns the rate."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            layer.Linear(12, 16), *middle, layer.Linear(16, 10), neuron.IFNode(surrogate_function=surrogate.ATan())
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).mean(0)


def rows_feedback() -> nn.Module:
    network = RowByRow(layer.LinearRecurrentContainer(neuron.IFNode(detach_reset=True), 16, 16, bias=True))
    functional.set_step_mode(network, "m")
    return lively(network, seed=45)


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


def many_steps(network: nn.Module, seed: int, gain: float = 2.0) -> nn.Module:
    functional.set_step_mode(network, "m")
    return lively(network, seed, gain)


def fashion_mnist_net() -> nn.Module:
    network = parametric_lif_net.FashionMNISTNet(channels=4, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0)
    return lively(network, seed=61, gain=6.0)  # in single-step mode


def sew_resnet18() -> nn.Module:
    network = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=5)
    return many_steps(network, seed=66)


def small_qkformer() -> nn.Module:
    network = qkformer.QKFormer(
        T=2, in_channels=3, num_classes=5, embed_dims=32, num_heads=(1, 2, 2), depths=(1, 1, 1), mlp_ratio=2.0
    )
    return lively(network, seed=70, gain=6.0)
