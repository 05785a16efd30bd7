"""The operators in plain PyTorch: what the kernels are tested against, and what runs where they cannot."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spikeserve.models.engines.torch import operations
from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.models.spec.nodes import Neuron
from spikeserve.training.fit.operators.derivation import general


def connect(connection: nn.Module, signal: Tensor) -> Tensor:
    """Return the currents of a connection, (time_steps or 1, batch, *shape), in float32.

    The products may be in bfloat16, under autocast; neurons are not.
    """
    return each_step(connection, signal).float()


def each_step(module: nn.Module, values: Tensor) -> Tensor:
    """Return a module's outputs with the two leading axes of `values`, time and batch in any order."""
    flat: Tensor = module(values.flatten(0, 1))
    return flat.view(*values.shape[:2], *flat.shape[1:])


def scan(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Tensor,
    time_steps: int,
    threshold: Threshold,
    recurrent: nn.Linear | None = None,
    membranes: list[Tensor] | None = None,
) -> Tensor:
    """Step a layer of neurons through time, one operation of PyTorch's after the other; see `operators.scan`."""
    learned = general(node, tuple(sorted(name for name, value in parameters.items() if value.requires_grad)))
    of_torch = (threshold, recurrent, None, False)
    output, traced, _ = operations.scan(learned, parameters.__getitem__, current, time_steps, *of_torch)
    if membranes is not None:
        membranes += traced
    return output
