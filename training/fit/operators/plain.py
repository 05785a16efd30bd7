"""The operators in plain PyTorch: what the kernels are tested against, and what runs where they cannot."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spikeserve.models.engines.torch import operations
from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.models.neurons import NeuronState, at_rest, program_of
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
    learned, begun = learning(node, parameters), state is not None
    of_torch = (threshold, recurrent, state, begun)
    output, traced, last = operations.scan(learned, parameters.__getitem__, current, time_steps, *of_torch)
    if membranes is not None:
        membranes += traced
    return output, last
