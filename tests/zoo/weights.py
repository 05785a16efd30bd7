"""Weights for networks that nobody trained: every layer spikes, and no batch norm is the identity."""

import math
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

CONNECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
NORMS = nn.modules.batchnorm._BatchNorm  # of SpikingJelly too, whose batch norms over time are no BatchNorm2d


def lively(network: Network, seed: int, gain: float = 2.0) -> Network:
    """Give a network new random weights, and return it.

    A weight is drawn from a normal distribution of deviation gain / √(inputs of a neuron), so that a neuron's current
    has a deviation of about `gain` thresholds where all its inputs spike.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, CONNECTIONS):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=random) * (gain / math.sqrt(fan_in)))
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=random) * 0.1)
            if isinstance(module, NORMS):
                _learned(module, random)
    return network


def _learned(norm: Any, random: torch.Generator) -> None:
    shape = norm.running_mean.shape
    norm.running_mean.copy_(torch.randn(shape, generator=random) * 0.2)
    norm.running_var.copy_(0.5 + torch.rand(shape, generator=random))
    if norm.weight is not None:
        norm.weight.copy_(0.75 + torch.rand(shape, generator=random))
    if norm.bias is not None:
        norm.bias.copy_(0.3 * torch.randn(shape, generator=random))
