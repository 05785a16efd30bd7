"""Initialisation: fresh weights, scaled to the data.

A layer that is silent at the start passes hardly any gradient, and one that always fires carries no information. How
large the weights must be depends on the data, the threshold and the decay, so it is found by running some samples.

images     the weights before a layer grow or shrink until its firing rate is in BAND
sequences  the membranes that the input alone would charge, if no neuron fired, have the mean 0 and the threshold as
           their standard deviation, in each neuron: its spikes come from fluctuations of the input, whatever its decay
           (after Rossbroich, Gygax & Zenke, 2022). Recurrent weights are a random rotation times RECURRENT, so that
           what they send back neither grows nor dies out from step to step in some directions more than in others. A
           membrane readout's gain makes the scores of the classes vary by 1.

Decays that are spread start with time constants drawn log-uniformly from SHORTEST to LONGEST of the sequence's length.
A neuron with the decay b integrates its currents over 1 / (1 - b) steps; the gain sqrt(1 - b**2), which stays as it
is, lets white noise charge each membrane alike, so that one learning rate suits the weights of fast and slow neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import Integrating, Spiking
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.training.fit.layers import Connection, Neurons
from spikeserve.training.fit.losses import class_scores
from spikeserve.training.fit.network import Activity, TrainingNetwork, forward
from spikeserve.training.fit.operators import dense, own_steps

BAND = (0.05, 0.15)  # firing rates, in spikes per neuron and step
TRIES = 40
SAMPLES = 128  # that membranes are measured on
RECURRENT = 0.5
SHORTEST, LONGEST = 2.0, 0.25  # time constants: in steps, and as a share of the sequence
READOUT = 0.1  # the time constant of a readout, as a share of the sequence
SYNAPSES = (2.0, 10.0)  # the time constants of synaptic currents, in steps
ADAPTATIONS = 10.0  # the shortest time constant of an adaptation, in steps; the longest is the sequence

Run: TypeAlias = Callable[[], Activity]  # of the samples


@torch.no_grad()
def initialise(
    module: TrainingNetwork, samples: FloatArray, lengths: NDArray[np.int64] | None = None, *, temporal: bool
) -> None:
    """Scale the weights before each layer of neurons, first to last, to what `samples` do in it.

    `samples` are raw, (batch, *shape), or (batch, time_steps, *shape) of sequences, of which the first `lengths`
    (batch,) steps count. Draws from PyTorch's generator.
    """
    run = partial(forward, module, samples, HardThreshold(), lengths=lengths)
    for layer in module.layers:
        if isinstance(layer, Neurons):
            _spread(layer, module.spec.time_steps)
    if temporal:
        _to_membranes(module, run)
    else:
        _to_firing_rates(module, run)


def _spread(layer: Neurons, time_steps: int) -> None:
    """Draw the parameters of a layer that start with another value for each neuron."""
    shortest, longest = SHORTEST, max(LONGEST * time_steps, 2 * SHORTEST)
    if isinstance(layer.node, Integrating):
        shortest = longest = max(READOUT * time_steps, SHORTEST)
    adaptations = ADAPTATIONS, max(2 * ADAPTATIONS, time_steps)
    spans = {"decay": (shortest, longest), "syn_decay": SYNAPSES, "adapt_decay": adaptations}
    for name, span in spans.items():
        if name in layer.spread:
            layer.set_parameter(name, _decays(layer.shape, *span))
    for name, (low, high) in layer.ranges.items():
        if layer.parameter(name).ndim:
            layer.set_parameter(name, low + (high - low) * torch.rand(layer.shape))


def _decays(shape: tuple[int, ...], shortest: float, longest: float) -> Tensor:
    """Return decays whose time constants are log-uniform between two numbers of steps."""
    low, high = math.log(shortest), math.log(longest)
    return torch.exp(-1 / torch.exp(low + (high - low) * torch.rand(shape)))


class _Silent(HardThreshold):
    """No neuron fires."""

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002
        """Return no spikes."""
        return torch.zeros_like(charged)


def _to_membranes(module: TrainingNetwork, run: Run) -> None:
    for before, layer in pairwise(module.layers):
        if not isinstance(layer, Neurons):
            continue
        if _has_own_gain(layer):
            decays = [layer.parameter(name) for name in ("decay", "syn_decay") if name in layer.names]
            layer.set_parameter("gain", math.prod(((1 - decay**2).sqrt() for decay in decays), start=torch.ones(())))
        if layer.recurrent is not None:
            nn.init.orthogonal_(layer.recurrent.weight, gain=RECURRENT)
        if isinstance(layer.node, Spiking) and isinstance(before, Connection):
            _scale(layer, before, *arriving(layer, run))
    last = module.layers[-1]
    is_readout = isinstance(last, Neurons) and isinstance(last.node, Integrating) and _has_own_gain(last)
    if is_readout or isinstance(last, Connection):
        activity = run()
        scores = class_scores(activity.output, module.spec.readout, activity.lengths)
        spread = (scores - scores.mean(dim=0)).std()
        if len(scores) < 2 or not spread > 0:
            return
        if isinstance(last, Connection):
            last.rescale(1 / spread, torch.zeros(()))
        elif isinstance(last, Neurons):
            last.set_parameter("gain", last.parameter("gain") / spread)


def _has_own_gain(layer: Neurons) -> bool:
    return getattr(layer.node, "gain", None) == PER_NEURON and "gain" not in layer.learned


def arriving(layer: Neurons, run: Run) -> tuple[Tensor, Tensor | None]:
    """Return the currents that arrive at a layer, (time_steps, batch, *shape), and the steps that count, if given."""
    currents: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: currents.append(dense(arguments[0])))
    try:
        activity = run()
    finally:
        hook.remove()
    return currents[0].expand(len(activity.output), *currents[0].shape[1:]), activity.lengths


def _scale(layer: Neurons, connection: Connection, currents: Tensor, lengths: Tensor | None) -> None:
    """Scale the rows of the weights before a layer, and move its biases."""
    membranes = _membranes(layer, currents)
    charged = _membranes(layer, torch.ones_like(currents[:, :1]))  # by a constant current of 1
    if lengths is not None:  # the steps that count, one after the other: (1, steps, *shape)
        own = own_steps(lengths, len(membranes))
        membranes, charged = (values.expand_as(currents)[own].unsqueeze(0) for values in (membranes, charged))
    over = tuple(axis for axis in range(membranes.ndim) if axis != 2)  # a channel has a row of weights
    mean, response = (values.mean(dim=over, keepdim=True) for values in (membranes, charged))
    bias = torch.where(response != 0, -mean / response, 0.0)
    deviation = (membranes + bias * charged).std(dim=over, correction=0, keepdim=True)
    threshold = layer.parameter("threshold") if "threshold" in layer.names else torch.ones(())
    threshold = threshold.expand(currents.shape[2:])[None, None].mean(dim=over, keepdim=True)
    factor = torch.where(deviation > 0, threshold / deviation, 1.0)
    connection.rescale(factor.flatten(), (bias * factor).flatten())


def _membranes(layer: Neurons, currents: Tensor) -> Tensor:
    """Return the membranes (time_steps, batch, *shape) that currents charge in a layer whose neurons do not fire."""
    membranes: list[Tensor] = []
    layer(currents, len(currents), _Silent(), None, membranes=membranes)
    return torch.stack(membranes)


def _to_firing_rates(module: TrainingNetwork, run: Run) -> None:
    for before, layer in pairwise(module.layers):
        if not (isinstance(before, Connection) and isinstance(layer, Neurons) and isinstance(layer.node, Spiking)):
            continue
        for _ in range(TRIES):
            rate = run().firing_rates[layer.node.name]
            if BAND[0] <= rate <= BAND[1]:
                break
            for name, parameter in before.connection.named_parameters():
                if name != "bias":
                    parameter.mul_(1.1 if rate < BAND[0] else 0.9)
                elif rate < BAND[0]:  # it is raised, not scaled: weights whose sum is negative stay silent at any size
                    parameter.add_(0.05)
