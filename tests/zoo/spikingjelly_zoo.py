"""SpikingJelly's own model classes, with few channels and few classes."""

from __future__ import annotations

from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.model import parametric_lif_net, qkformer, sew_resnet
from torch import nn

from tests.zoo.weights import lively


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
