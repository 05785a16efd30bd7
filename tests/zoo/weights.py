"""Weights for networks that nobody trained: every layer spikes, and no batch norm is the identity."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

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


def safetensors(network: nn.Module, folder: Path) -> Path:
    """Write a network's state_dict as a .safetensors file."""
    save_file(dict(network.state_dict()), path := folder / "weights.safetensors")
    return path


def lightning(network: nn.Module, folder: Path) -> Path:
    """Write what Lightning's Trainer writes: the state_dict among much else, its keys behind the attribute's name."""
    state: dict[str, Tensor] = {f"net.{name}": value for name, value in network.state_dict().items()}
    checkpoint = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hyper_parameters": {"beta": 0.9},
    }
    torch.save(checkpoint, path := folder / "epoch=3-step=120.ckpt")
    return path


def training_loop(network: nn.Module, folder: Path) -> Path:
    """Write what a hand-written training loop writes: the state_dict beside the epoch and the optimiser."""
    checkpoint = {"epoch": 7, "model_state_dict": network.state_dict(), "optimizer_state_dict": {}, "loss": 0.25}
    torch.save(checkpoint, path := folder / "checkpoint.pth")
    return path
