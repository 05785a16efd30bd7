"""The operators in plain PyTorch: what the kernels are tested against, and what runs where they cannot."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikeserve.models.engines.torch.operations import Threshold, layer_of
from spikeserve.models.neurons import NeuronState, Recurrence, at_rest, program_of
from spikeserve.models.spec.nodes import Neuron
from spikeserve.models.spec.parameters import PER_NEURON


def connect(connection: nn.Module, signal: Tensor) -> Tensor:
    """Return the currents of a connection, (time_steps or 1, batch, *shape), in float32.

    The products may be in bfloat16, under autocast; neurons are not.
    """
    flat: Tensor = connection(signal.flatten(0, 1)).float()
    return flat.view(*signal.shape[:2], *flat.shape[1:])


def learning(node: Neuron, parameters: Mapping[str, Tensor]) -> Neuron:
    """Copy a node of whose learned parameters the equations leave none out, as they do with a gain of 1."""
    return node.with_values({name: PER_NEURON for name, value in parameters.items() if value.requires_grad})


def resting(node: Neuron, parameters: Mapping[str, Tensor], zeros: Tensor) -> NeuronState:
    """Make the state before the first step; `zeros` is (batch, *shape)."""
    node = learning(node, parameters)
    return at_rest(node, program_of(node), parameters.__getitem__, zeros)


def scan(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Tensor,
    time_steps: int,
    threshold: Threshold,
    recurrent: nn.Linear | None = None,
    state: NeuronState | None = None,
    membranes: list[Tensor] | None = None,
) -> tuple[Tensor, NeuronState]:
    """Step a layer of neurons through time, one operation of PyTorch's after the other; see `operators.scan`."""
    layer = layer_of(learning(node, parameters), parameters.__getitem__, threshold, _recurrence(recurrent))
    begun, steps = state is not None, current.unbind(0) * (time_steps if len(current) == 1 else 1)
    last = resting(node, parameters, torch.zeros_like(current[0])) if state is None else state
    outputs: list[Tensor] = []
    for stepped in layer.scan(last, steps, begun=begun):
        outputs.append(stepped.leaving)
        last = stepped.state
        if membranes is not None:
            membranes.append(stepped.membrane)
    return torch.stack(outputs), last


def _recurrence(recurrent: nn.Linear | None) -> Recurrence[Tensor] | None:
    if recurrent is None:
        return None
    weight, bias = recurrent.weight, recurrent.bias  # looked up once: a module takes long to find them

    def recur(spikes: Tensor, biased: bool) -> Tensor:
        return nn.functional.linear(spikes.flatten(1), weight, bias if biased else None).view_as(spikes)

    return recur
