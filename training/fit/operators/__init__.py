"""The autograd operators of training: connections and neurons, which follow spikes where that is faster.

A signal travels between layers as (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.neurons import Arithmetic, NeuronLayer, NeuronState, at_rest
from models.neurons.layer import Recurrence
from models.spec.nodes import Neuron

Signal = Tensor


def dense(signal: Signal) -> Tensor:
    """Return a signal as a float tensor, (time_steps or 1, batch, *shape), through which gradients pass."""
    return signal


def firing_rate(signal: Signal) -> Tensor:
    """Return the mean number of spikes per neuron and step, a scalar through which gradients pass."""
    return signal.mean()


def connect(connection: nn.Module, signal: Signal) -> Tensor:
    """Return the currents of a Linear or a convolution, (time_steps or 1, batch, *shape)."""
    flat: Tensor = connection(signal.flatten(0, 1))
    return flat.view(*signal.shape[:2], *flat.shape[1:])


def scan(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Tensor,
    time_steps: int,
    threshold: Arithmetic[Tensor],
    recurrent: nn.Linear | None = None,
    state: NeuronState | None = None,
) -> tuple[Signal, NeuronState]:
    """Step a layer of neurons through time, continuing from `state` or from rest.

    `current` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same; `parameters` are the
    node's, by name, each a scalar or of the layer's shape. Returns the output (time_steps, batch, *shape), spikes or a
    readout's membrane, and the state after the last step, with its gradient.
    """
    layer = NeuronLayer[Tensor].of(node, parameters.__getitem__, threshold, _recurrence(recurrent))
    begun, steps = state is not None, current.unbind(0) * (time_steps if len(current) == 1 else 1)
    last = at_rest(node, parameters.__getitem__, torch.zeros_like(current[0])) if state is None else state
    outputs: list[Tensor] = []
    for output, last in layer.scan(last, steps, begun=begun):  # noqa: B007, B020  (the last one is returned)
        outputs.append(output)
    return torch.stack(outputs), last


def _recurrence(recurrent: nn.Linear | None) -> Recurrence[Tensor] | None:
    if recurrent is None:
        return None
    weight, bias = recurrent.weight, recurrent.bias

    def recur(spikes: Tensor, biased: bool) -> Tensor:
        return nn.functional.linear(spikes.flatten(1), weight, bias if biased else None).view_as(spikes)

    return recur
