"""The autograd operators of training: connections and neurons, which follow spikes where that is faster.

A signal travels between layers as (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same. What
a layer of neurons fires travels as `Spikes`, lists of events; `dense` makes a tensor of them, for all that knows no
spikes. On a CPU, in float32, Numba kernels run whole layers; everywhere else, and as the reference, `plain` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.engines.event.vectors import LANES
from models.engines.torch.network import HardThreshold
from models.neurons import Arithmetic, NeuronState, at_rest
from models.spec.nodes import Fire, Neuron, Spiking
from training.fit.operators import plain
from training.fit.operators.derivation import SPIKES, Rule
from training.fit.operators.functions import Layer, Scan
from training.fit.operators.spikes import Spikes, row_width
from training.fit.operators.vector_code import step_of
from training.fit.surrogate import SurrogateThreshold

__all__ = ["Currents", "Signal", "Spikes", "connect", "dense", "firing_rate", "scan"]

MOST = 0.2  # share of an input raster that may be other than 0 for its events to be followed


@dataclass(frozen=True, eq=False)
class Currents:
    """A Linear that has not been run yet: where neurons take it, both run at once and no current is stored."""

    connection: nn.Linear
    spikes: Spikes

    @property
    def shape(self) -> tuple[int, ...]:
        """(time_steps, batch, outputs)."""
        return (*self.spikes.shape[:2], self.connection.out_features)

    def run(self) -> Tensor:
        """Run it."""
        return plain.connect(self.connection, dense(self.spikes))


Signal: TypeAlias = Tensor | Spikes | Currents


class _Filled(torch.autograd.Function):
    """Spikes as floats; the gradient goes to their carrier."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, spikes: Spikes) -> Tensor:  # noqa: ARG004
        return spikes.filled()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


def dense(signal: Signal) -> Tensor:
    """Return a signal as a float tensor, (time_steps or 1, batch, *shape), through which gradients pass."""
    if isinstance(signal, Spikes):
        filled: Tensor = _Filled.apply(signal.carrier, signal)  # type: ignore[no-untyped-call]
        return filled
    return signal.run() if isinstance(signal, Currents) else signal


def firing_rate(signal: Signal) -> Tensor:
    """Return the mean number of spikes per neuron and step, a scalar through which gradients pass."""
    if isinstance(signal, Spikes) and signal.rate is not None:
        return signal.rate
    return dense(signal).mean()


def connect(connection: nn.Module, signal: Signal) -> Currents | Tensor:
    """Return the currents of a Linear or a convolution, (time_steps or 1, batch, *shape)."""
    if type(connection) is nn.Linear and not isinstance(signal, Currents) and _on_cpu(connection.weight):
        spikes = signal if isinstance(signal, Spikes) else _events(signal)
        if spikes is not None and len(spikes.shape) == 3:
            return Currents(connection, spikes)
    return plain.connect(connection, dense(signal))


def _on_cpu(*tensors: Tensor) -> bool:
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def _events(raster: Tensor) -> Spikes | None:
    if raster.requires_grad or not _on_cpu(raster) or raster.shape[0] == 1 or not raster.numel():
        return None
    sample = raster.detach().flatten(1)[:, :256]
    if torch.count_nonzero(sample) > MOST * sample.numel():
        return None
    return Spikes.of(raster)


def scan(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Currents | Tensor,
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
    if not _supported(current, threshold) or recurrent is not None:
        values = dense(current)
        return plain.scan(node, parameters, values, time_steps, threshold, recurrent, state)
    return _compiled(node, parameters, current, time_steps, threshold, state)


def _supported(current: Currents | Tensor, threshold: Arithmetic[Tensor]) -> bool:
    tensor = current.connection.weight if isinstance(current, Currents) else current
    return type(threshold) in (SurrogateThreshold, HardThreshold) and _on_cpu(tensor) and math.prod(current.shape) > 0


def _compiled(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Currents | Tensor,
    time_steps: int,
    threshold: Any,
    state: NeuronState | None,
) -> tuple[Signal, NeuronState]:
    soft = isinstance(threshold, SurrogateThreshold)
    trained = {name for name, value in parameters.items() if value.requires_grad and name != "start"}
    grad = torch.is_grad_enabled()
    rule = Rule.of(
        node, trained if grad else (), threshold.surrogate if soft else None,
        detach_reset=threshold.detach_reset if soft else True,
    )  # fmt: skip
    step, shape = step_of(rule), tuple(current.shape[2:])
    batch = current.shape[1]
    spiking = isinstance(node, Spiking)
    several = isinstance(node, Spiking) and node.fire is Fire.MULTIPLE
    begin = state or at_rest(node, parameters.__getitem__, torch.zeros(batch, *shape))
    states = [getattr(begin, name) for name in step.states]
    tensors: list[Tensor | None] = [None, None, None, None]
    if isinstance(current, Currents):
        tensors[1:] = [current.spikes.carrier, current.connection.weight, current.connection.bias]
    else:
        tensors[0] = current
    spikes = current.spikes if isinstance(current, Currents) else None
    layer = Layer(rule, time_steps, batch, shape, threshold.slope if soft else 1.0, spiking, spikes, grad)
    width = row_width(shape)
    bits = np.empty(time_steps * batch * width // LANES, np.uint16) if spiking and not several else None
    leaving, rate, *after = Scan.apply(layer, bits, *tensors, *(parameters[n] for n in step.parameters), *states)  # type: ignore[no-untyped-call]
    fields = dict(zip(step.states, after, strict=True))
    last = NeuronState(**fields)
    if bits is None:
        return leaving, last
    return Spikes.fired(layer.outputs, bits.reshape(-1, width // LANES), leaving, rate), last


_ = SPIKES
