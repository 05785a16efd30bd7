"""Initialisation: random weights, scaled until every layer fires.

A layer that is silent at the start passes hardly any gradient, and one that always fires carries no information. How
large the weights must be depends on the data, the threshold and the decay, so it is found by running some samples.
"""

from __future__ import annotations

import torch

from models.engines.torch.network import HardThreshold
from models.spec.network import FloatArray
from models.spec.nodes import Spiking
from training.fit.forward import forward
from training.fit.layers import Connection
from training.fit.network import TrainingNetwork

BAND = (0.05, 0.15)  # firing rates, in spikes per neuron and step
TRIES = 40


@torch.no_grad()
def initialise(module: TrainingNetwork, samples: FloatArray) -> None:
    """Scale the weights before each spiking layer, first to last, until its firing rate on `samples` is in BAND."""
    feeding: list[torch.nn.Module] = []
    for node, layer in zip(module.spec.nodes, module.layers, strict=True):
        if isinstance(layer, Connection):
            feeding.append(layer.connection)
        if not isinstance(node, Spiking):
            continue
        for _ in range(TRIES if feeding else 0):
            rate = forward(module, samples, HardThreshold()).firing_rates[node.name]
            if BAND[0] <= rate <= BAND[1]:
                break
            for connection in feeding:
                _increase(connection) if rate < BAND[0] else _decrease(connection)
        feeding = []


def _increase(connection: torch.nn.Module) -> None:
    for name, parameter in connection.named_parameters():
        # A bias is raised, not scaled: weights whose sum is negative stay silent at any size.
        if name == "bias":
            parameter.add_(0.05)
        else:
            parameter.mul_(1.1)


def _decrease(connection: torch.nn.Module) -> None:
    for name, parameter in connection.named_parameters():
        if name != "bias":
            parameter.mul_(0.9)
