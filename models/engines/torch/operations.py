"""The operations of a step over PyTorch tensors, one row for each of `models.neurons.operations`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.neurons import NeuronLayer, NeuronState, Recurrence, at_rest, counts_steps, program_of
from spikeserve.models.neurons.layer import Parameters
from spikeserve.models.spec.exponential import HIGHEST, LOWEST, parts
from spikeserve.models.spec.nodes import Neuron


class Threshold(Protocol):
    """How neurons fire: as in serving, or with a gradient as in training."""

    @property
    def detach_reset(self) -> bool:
        """Whether no gradient passes the spikes that reset a named neuron."""

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:
        """Compute one of the operations `fire`, `fire_above` and `fire_multiple`."""

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """Choose `yes` where the condition is above 0, else `no`."""


class HardThreshold:
    """Firing as in serving: a plain comparison, through which no gradient passes."""

    detach_reset = False  # nothing would have to be detached

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:
        """Count the spikes: 0 or 1, or more for `fire_multiple`."""
        return FIRES[operation](charged, threshold)

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """Choose `yes` where the condition is above 0, else `no`."""
        return torch.where(condition > 0, yes, no)


BIAS, MANTISSA_BITS = 1023, 52  # of a float64


class _Exponential(torch.autograd.Function):
    """e to the power of float values of any shape, which is its own derivative."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        c = torch.where(values > LOWEST, values, LOWEST)
        p, k = parts(torch.where(c < HIGHEST, c, HIGHEST).to(torch.float64), float, torch.floor)
        power = ((k.to(torch.int64) + BIAS) << MANTISSA_BITS).view(torch.float64)
        return torch.where(values.isnan(), values, (p * power).to(values.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return gradients[0] * output


def exponential(values: Tensor) -> Tensor:
    """Return e to the power of each value, rounded as the spec defines it, in the values' own type."""
    result: Tensor = _Exponential.apply(values)  # type: ignore[no-untyped-call]
    return result


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
    node: Neuron, parameters: Parameters, threshold: Threshold, recur: Recurrence[Tensor] | None
) -> NeuronLayer[Tensor]:
    """Make a node's layer over tensors, whose parameters are looked up by name."""
    program = program_of(node, detach_reset=threshold.detach_reset)
    return NeuronLayer(program, parameters, operations(threshold), torch.tensor, recur, counts_steps(node))


def scan(
    node: Neuron,
    parameters: Parameters,
    current: Tensor,
    time_steps: int,
    threshold: Threshold,
    recurrent: nn.Linear | None,
    state: NeuronState | None,
    begun: Tensor | bool,
) -> tuple[Tensor, list[Tensor], NeuronState]:
    """Step a layer through time, continuing from `state` or from rest.

    `current` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same; `begun` says whether
    there was a step since rest, for all samples or for each (batch, 1). Gives what leaves (time_steps, batch, *shape),
    the membrane after each step (batch, *shape), and the state after the last.
    """
    layer = layer_of(node, parameters, threshold, recurrence(recurrent))
    if state is None:
        state = at_rest(node, layer.program, parameters, torch.zeros_like(current[0]))
    outputs, membranes = list[Tensor](), list[Tensor]()
    for stepped in layer.scan(state, current.unbind(0) * (time_steps if len(current) == 1 else 1), begun):
        outputs.append(stepped.leaving)
        membranes.append(stepped.membrane)
        state = stepped.state
    return torch.stack(outputs), membranes, state


def recurrence(recurrent: nn.Linear | None) -> Recurrence[Tensor] | None:
    """Make a recurrent connection, where there is one, a function of the spikes of the step before."""
    if recurrent is None:
        return None
    weight, bias = recurrent.weight, recurrent.bias  # looked up once: a module takes long to find them

    def recur(spikes: Tensor, biased: bool | Tensor) -> Tensor:
        flat = spikes.flatten(1).to(weight.dtype)
        if isinstance(biased, Tensor):
            sent = torch.where(biased, F.linear(flat, weight, bias), F.linear(flat, weight))
        else:
            sent = F.linear(flat, weight, bias if biased else None)
        return sent.to(spikes.dtype).view_as(spikes)

    return recur
