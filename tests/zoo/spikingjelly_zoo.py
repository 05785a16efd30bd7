"""SpikingJelly's own model classes, with few channels and few classes."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net, qkformer, sew_resnet, spikformer, spiking_resnet
from spikingjelly.activation_based.model.spiking_vgg import SpikingVGG
from torch import nn

from tests.zoo.weights import lively


def many_steps(network: nn.Module, seed: int, gain: float = 2.0) -> nn.Module:
    functional.set_step_mode(network, "m")
    return lively(network, seed, gain)


def mnist_net() -> nn.Module:
    network = parametric_lif_net.MNISTNet(
        channels=4, spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True
    )
    return many_steps(network, seed=60, gain=6.0)


def fashion_mnist_net() -> nn.Module:
    network = parametric_lif_net.FashionMNISTNet(channels=4, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0)
    return lively(network, seed=61, gain=6.0)  # in single-step mode


def nmnist_net() -> nn.Module:
    return many_steps(parametric_lif_net.NMNISTNet(channels=4, spiking_neuron=neuron.IFNode), seed=62, gain=4.0)


def cifar10_net() -> nn.Module:
    return many_steps(parametric_lif_net.CIFAR10Net(channels=4, spiking_neuron=neuron.LIFNode), seed=63, gain=8.0)


def cifar10_dvs_net() -> nn.Module:
    return many_steps(parametric_lif_net.CIFAR10DVSNet(channels=4, spiking_neuron=neuron.LIFNode), seed=64, gain=8.0)


def dvs_gesture_net() -> nn.Module:
    network = parametric_lif_net.DVSGestureNet(channels=4, spiking_neuron=neuron.LIFNode, detach_reset=True)
    return many_steps(network, seed=65, gain=8.0)


def sew_resnet18() -> nn.Module:
    network = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=5)
    return many_steps(network, seed=66)


def spiking_resnet18() -> nn.Module:
    network = spiking_resnet.spiking_resnet18(spiking_neuron=neuron.IFNode, num_classes=5)
    return many_steps(network, seed=67)


def spiking_vgg11() -> nn.Module:
    # spiking_vgg11's class and plan with an eighth of its channels; its own classifier alone has 120 million weights,
    # so that it is made without memory and replaced, as for any data set but ImageNet.
    plan = [8, "M", 16, "M", 32, 32, "M", 64, 64]
    with torch.device("meta"):
        network = SpikingVGG(plan, batch_norm=True, init_weights=False, spiking_neuron=neuron.LIFNode, tau=2.0)
    network.features = SpikingVGG.make_layers(plan, batch_norm=True, neuron=neuron.LIFNode, tau=2.0)
    network.avgpool = layer.AdaptiveAvgPool2d((1, 1))
    network.classifier = nn.Sequential(
        layer.Linear(64, 32), neuron.LIFNode(tau=2.0), layer.Dropout(), layer.Linear(32, 5)
    )
    return many_steps(network, seed=68, gain=6.0)


def small_spikformer() -> nn.Module:
    network = spikformer.Spikformer(
        T=2, in_channels=3, img_size_h=16, img_size_w=16, patch_size=4, num_classes=5, embed_dims=16, num_heads=2,
        mlp_ratio=2.0, depths=1,
    )  # fmt: skip
    return lively(network, seed=69, gain=6.0)


def small_qkformer() -> nn.Module:
    network = qkformer.QKFormer(
        T=2, in_channels=3, num_classes=5, embed_dims=32, num_heads=(1, 2, 2), depths=(1, 1, 1), mlp_ratio=2.0
    )
    return lively(network, seed=70, gain=6.0)
