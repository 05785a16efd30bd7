"""What comes of a network today where that is not yet what is wanted; a line goes when its network comes in."""

from __future__ import annotations

from tests.zoo.registry import Entry, Outcome, refused

TODAY: dict[str, Outcome] = {
    "snntorch-3-feedforward": refused("has a forward of its own, which is not a plain chain"),
    "snntorch-6-convolutional-class": refused("has a forward of its own, which is not a plain chain"),
    "snntorch-6-fixed-batch": refused("has a forward of its own, which is not a plain chain"),
    "snntorch-rleaky-conv": refused("conv2d_channels: a recurrent connection is full"),
    "snntorch-bntt": refused("has a forward of its own, which is not a plain chain"),
    "snntorch-alpha": refused("Alpha): its class: no rule converts it"),
    "snntorch-exoplanet": refused("has a forward of its own, which is not a plain chain"),
    "snntorch-autoencoder": refused("Unflatten): its class: no rule converts it"),
    "neurobench-nehar": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-clock-driven": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-rsnn-synapse-filter": refused("SynapseFilter): its class: no rule converts it"),
    "spikingjelly-rsnn-feedback": refused("LinearRecurrentContainer): its class: no rule converts it"),
    "spikingjelly-element-wise-feedback": refused("ElementWiseRecurrentContainer): its class: no rule converts it"),
    "spikingjelly-permuted": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-skip-add": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-skip-and": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-skip-iand": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-shared-cat": refused("has a forward of its own, which is not a plain chain"),
    "spikingjelly-ann2snn": refused("VoltageScaler): its class: no rule converts it"),
    "spikingjelly-qif-eif": refused("QIFNode): its class: no rule converts it"),
    "spikingjelly-mnist-net": refused("MNISTNet): its class: no rule converts it"),
    "spikingjelly-fashion-mnist-net": refused("FashionMNISTNet): its class: no rule converts it"),
    "spikingjelly-nmnist-net": refused("NMNISTNet): its class: no rule converts it"),
    "spikingjelly-cifar10-net": refused("CIFAR10Net): its class: no rule converts it"),
    "spikingjelly-cifar10-dvs-net": refused("CIFAR10DVSNet): its class: no rule converts it"),
    "spikingjelly-dvs-gesture-net": refused("DVSGestureNet): its class: no rule converts it"),
    "spikingjelly-sew-resnet18": refused("SEWResNet): its class: no rule converts it"),
    "spikingjelly-spiking-resnet18": refused("SpikingResNet): its class: no rule converts it"),
    "spikingjelly-spiking-vgg11": refused("SpikingVGG): its class: no rule converts it"),
    "spikingjelly-spikformer": refused("Spikformer): its class: no rule converts it"),
    "spikingjelly-qkformer": refused("QKFormer): its class: no rule converts it"),
    "norse-mnist-decoded": refused("has a forward of its own, which is not a plain chain"),
    "norse-conv-net": refused("ConvNet): its class: no rule converts it"),
    "norse-vgg": refused("VGG): its class: no rule converts it"),
    "norse-speech-commands": refused("LILinearCell): its class: no rule converts it"),
    "norse-lsnn": refused("LILinearCell): its class: no rule converts it"),
    "norse-memory": refused("has a forward of its own, which is not a plain chain"),
    "norse-lif-adex": refused("LIFAdExCell): its class: no rule converts it"),
    "norse-refractory": refused("LIFRefracCell): its class: no rule converts it"),
    "norse-inverted-residual": refused("has a forward of its own, which is not a plain chain"),
    "sinabs-skip": refused("has a forward of its own, which is not a plain chain"),
}


def expected(entry: Entry) -> Outcome:
    """Return what comes of a network today."""
    return TODAY.get(entry.name, entry.wanted)
