"""The operations of a step over PyTorch tensors, one row for each of `models.neurons.operations`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from spikeserve.models.engines.torch.exponential import exponential
from spikeserve.models.neurons import NeuronLayer, Recurrence, counts_steps, program_of
from spikeserve.models.spec.nodes import Neuron


class Threshold(Protocol):
    """How neurons fire: as in serving, or with a gradient as in training."""

    @property
    def detach_reset(self) -> bool:
        """Whether no gradient passes the spikes that reset a named neuron."""
        ...

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:
        """Compute one of the operations `fire`, `fire_above` and `fire_multiple`."""
        ...

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """Choose `yes` where the condition is above 0, else `no`."""
        ...


class HardThreshold:
    """Firing as in serving: a plain comparison, through which no gradient passes."""

    detach_reset = True

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:
        """Count the spikes: 0 or 1, or more for `fire_multiple`."""
        return FIRES[operation](charged, threshold)

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """Choose `yes` where the condition is above 0, else `no`."""
        return torch.where(condition > 0, yes, no)


def _fire_multiple(charged: Tensor, threshold: Tensor) -> Tensor:
    often = charged / threshold
    return torch.where((charged > 0) & (often > 0), torch.floor(often), 0.0)


def _compared(compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda first, second: compare(first, second).to(first.dtype)


FIRES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fire": _compared(torch.ge),
    "fire_above": _compared(torch.gt),
    "fire_multiple": _fire_multiple,
}
OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "neg": torch.neg,
    "abs": torch.abs,
    "minimum": lambda first, second: torch.where(first < second, first, second),
    "maximum": lambda first, second: torch.where(first > second, first, second),
    ">": _compared(torch.gt),
    ">=": _compared(torch.ge),
    "==": _compared(torch.eq),
    "exp": exponential,
    # PyTorch's own for float32 is not always the nearest on a CPU.
    "sqrt": lambda value: torch.sqrt(value.double()).to(value.dtype),
    "floor": torch.floor,
    "trunc": torch.trunc,
    "hold": Tensor.detach,
}


def operations(threshold: Threshold) -> dict[str, Callable[..., Tensor]]:
    """Make the table of all operations, of neurons that fire by `threshold`."""

    def fires(operation: str) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda charged, level: threshold.fire(operation, charged, level)

    return {**OPERATIONS, "select": threshold.select, **{name: fires(name) for name in FIRES}}


def layer_of(
    node: Neuron,
    parameters: Callable[[str], Tensor],
    threshold: Threshold,
    recur: Recurrence[Tensor] | None,
) -> NeuronLayer[Tensor]:
    """Make a node's layer over tensors, whose parameters are looked up by name."""
    program = program_of(node, detach_reset=threshold.detach_reset)
    return NeuronLayer(program, parameters, operations(threshold), torch.tensor, recur, counts_steps(node))
