"""The autograd operators of training: connections and neurons, which follow spikes where that is faster.

A signal travels between layers as (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same. What
a layer of neurons fires travels as `Spikes`, lists of events; `dense` makes a tensor of them, for all that knows no
spikes. In float32 a layer runs in kernels, Numba's on a CPU and Triton's on CUDA; everywhere else, and as the
reference, `plain` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikeserve.models.engines.torch.connections import AvgPool, SumPool
from spikeserve.models.engines.torch.operations import HardThreshold, Threshold
from spikeserve.models.neurons import at_rest, counts_steps
from spikeserve.models.spec.nodes import Neuron, Spiking
from spikeserve.training.fit.operators import plain, triton_scans
from spikeserve.training.fit.operators.convolution import Convolve, node_of, pool
from spikeserve.training.fit.operators.derivation import rule_of
from spikeserve.training.fit.operators.linear import Connect
from spikeserve.training.fit.operators.scan_function import Layer, Scan, ScanSettings, Tensors
from spikeserve.training.fit.operators.spikes import Lists, Spikes
from spikeserve.training.fit.operators.vector_code import step_of
from spikeserve.training.fit.surrogate import SurrogateThreshold

__all__ = [
    "Currents", "Signal", "Spikes", "connect", "dense", "firing_rate", "listed", "own_steps", "scan", "transform",
]  # fmt: skip

BUSY = 0.3  # share of inputs that are not 0 from which on a dense product is faster than following them


@dataclass(frozen=True, eq=False)
class Currents:
    """A Linear that has not been run yet: where neurons take it, both run at once and no current is stored."""

    connection: nn.Linear
    spikes: Spikes

    @property
    def shape(self) -> tuple[int, ...]:
        """(time_steps, batch, outputs)."""
        return (*self.spikes.shape[:2], self.connection.out_features)

    @property
    def device(self) -> torch.device:
        """The device that it runs on."""
        return self.connection.weight.device

    def run(self) -> Tensor:
        """Run it."""
        weight, bias = self.connection.weight, self.connection.bias
        currents: Tensor = Connect.apply(self.spikes, self.spikes.carrier, weight, bias)  # type: ignore[no-untyped-call]
        return currents


Signal: TypeAlias = Tensor | Spikes | Currents


def listed(signal: Tensor | Spikes) -> Tensor | Spikes:
    """List what is not 0 in an input (time_steps, batch, *shape), once for all steps and layers that take it.

    What no kernel follows stays a tensor: a single step that stands for all, and what is not float32 on a CPU.
    """
    if isinstance(signal, Spikes) or not _on_cpu(signal) or signal.shape[0] == 1 or not signal.numel():
        return signal
    return Spikes.of(signal)


class _Filled(torch.autograd.Function):
    """Spikes as floats; the gradient goes to their carrier."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, spikes: Spikes) -> Tensor:  # noqa: ARG004
        spikes.lists.uses += 1
        return spikes.filled()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


def dense(signal: Signal) -> Tensor:
    """Return a signal as a float tensor, (time_steps or 1, batch, *shape), through which gradients pass."""
    if isinstance(signal, Spikes):
        if signal.raster is not None and not signal.carrier.requires_grad:
            return signal.raster
        filled: Tensor = _Filled.apply(signal.carrier, signal)  # type: ignore[no-untyped-call]
        return filled
    return signal.run() if isinstance(signal, Currents) else signal


def own_steps(lengths: Tensor, time_steps: int) -> Tensor:
    """Return where steps are a sample's own, (time_steps, batch), and not padding; `lengths` (batch,) are in steps."""
    return torch.arange(time_steps, device=lengths.device).unsqueeze(1) < lengths


def firing_rate(signal: Signal, lengths: Tensor | None = None) -> Tensor:
    """Return the mean number of spikes per neuron and step, a scalar through which gradients pass.

    It is the mean over samples, of each over as many steps as `lengths` (batch,) says.
    """
    if lengths is not None:
        by_step = dense(signal).flatten(2).mean(dim=2)
        return ((by_step * own_steps(lengths, len(by_step))).sum(dim=0) / lengths).mean()
    if isinstance(signal, Spikes) and signal.rate is not None:
        return signal.rate
    return dense(signal).mean()


def connect(connection: nn.Module, signal: Signal) -> Currents | Tensor:
    """Return the currents of a Linear or a convolution, (time_steps or 1, batch, *shape).

    Where few of its inputs spike they are followed, else it is a dense product.
    """
    weight = cast(Tensor, connection.weight)
    if isinstance(signal, Currents) or not _on_cpu(weight):
        return plain.connect(connection, dense(signal))
    spikes = listed(signal)
    if isinstance(spikes, Spikes) and spikes.activity <= BUSY:
        if type(connection) is nn.Linear and len(spikes.shape) == 3:
            return Currents(connection, spikes)
        node = node_of(connection, spikes.shape[2:])
        if node is not None:
            currents: Tensor = Convolve.apply(  # type: ignore[no-untyped-call]
                node, spikes, spikes.carrier, weight, connection.bias
            )
            return currents
    return plain.connect(connection, dense(signal))


def transform(module: nn.Module, signal: Signal) -> Signal:
    """Apply a module that keeps no state to each step: a pool, a flattening, or any other one."""
    if isinstance(signal, Spikes):
        if type(module) is nn.Flatten and module.start_dim == 1:
            flat_raster = None if signal.raster is None else signal.raster.flatten(2)
            shape = (*signal.shape[:2], signal.lists.units)
            return replace(signal, shape=shape, carrier=signal.carrier.flatten(2), raster=flat_raster)
        windows = _windows(module)
        if windows is not None and len(signal.shape) == 5 and signal.lists.raster is None:
            return pool(signal, *windows)
    return plain.each_step(module, dense(signal))


def _windows(module: nn.Module) -> tuple[tuple[int, int], float | None] | None:
    """Return a pool's window, and what its sum is divided by, or None for a maximum; None if the kernels cannot run it.

    They can where windows touch and do not overlap, from the first place on.
    """
    divisor: float | None = None
    if isinstance(module, SumPool):
        overhang, (window, hop, padding) = module.pool.overhang, module.pool.in_plane
        divisor = math.prod(window) if isinstance(module, AvgPool) else 1
    elif isinstance(module, nn.MaxPool2d):
        window, hop, padding = cast(tuple[tuple[int, int], ...], (module.kernel_size, module.stride, module.padding))
        overhang = module.ceil_mode
    else:
        return None
    return None if overhang or hop != window or any(padding) else (window, divisor)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def scan(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Signal,
    time_steps: int,
    threshold: Threshold,
    recurrent: nn.Linear | None = None,
    membranes: list[Tensor] | None = None,
) -> Signal:
    """Step a layer of neurons through time, from rest.

    `current` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same; `parameters` are the
    node's, by name, each a scalar or of the layer's shape. Returns the output (time_steps, batch, *shape), spikes or a
    readout's membrane. The membrane after each step, (batch, *shape), is appended to `membranes` where that is a list;
    no kernel does that.
    """
    current = dense(current) if isinstance(current, Spikes) else current
    surrogate = threshold if isinstance(threshold, SurrogateThreshold) else None
    if membranes is not None or not (surrogate or type(threshold) is HardThreshold):
        return plain.scan(node, parameters, dense(current), time_steps, threshold, recurrent, membranes)
    device = _device_of_kernels(node, parameters, current, recurrent)
    if device is None:
        return plain.scan(node, parameters, dense(current), time_steps, threshold, recurrent)
    trains = torch.is_grad_enabled()
    trained = tuple(name for name, value in parameters.items() if trains and value.requires_grad)
    smooth = None if surrogate is None else surrogate.surrogate
    rule = rule_of(node, trained, smooth, detach_reset=threshold.detach_reset)
    slope = 1.0 if surrogate is None else surrogate.slope
    settings = rule, time_steps, slope, trains, not counts_steps(node)
    step, shape, batch = step_of(rule), tuple(current.shape[2:]), current.shape[1]
    on_triton = triton_scans.runs_on(device)
    begin = {}
    if on_triton or rule.starts_elsewhere:
        zeros = torch.zeros(batch, *shape, device=device)
        begin = at_rest(node, rule.program, parameters.__getitem__, zeros)
    if isinstance(current, Tensor) and on_triton:
        return triton_scans.scan(ScanSettings(*settings), parameters, current, recurrent, begin)
    fires_once = isinstance(node, Spiking) and not node.several
    lists = Lists.empty(time_steps * batch, math.prod(shape)) if fires_once else None
    source = current.spikes if isinstance(current, Currents) else None
    layer = Layer(*settings, batch, shape, source, lists)
    tensors = Tensors(current=current) if isinstance(current, Tensor) else Tensors()
    if isinstance(current, Currents):
        weight, bias = current.connection.weight, current.connection.bias
        tensors = tensors._replace(carrier=current.spikes.carrier, weight=weight, bias=bias)
    if recurrent is not None:
        tensors = tensors._replace(recurrent_weight=recurrent.weight, recurrent_bias=recurrent.bias)
    leaving, mean = Scan.apply(  # type: ignore[no-untyped-call]
        layer, *tensors, *(parameters[name] for name in step.parameters), *(begin.get(name) for name in step.states)
    )
    return leaving if lists is None else Spikes(layer.outputs, lists, leaving, mean)


def _device_of_kernels(
    node: Neuron, parameters: Mapping[str, Tensor], current: Currents | Tensor, recurrent: nn.Linear | None
) -> torch.device | None:
    """Find where kernels can run a layer: float32 on one device that has them, not empty, and nobody traces it."""
    tensors = [*parameters.values(), current.connection.weight if isinstance(current, Currents) else current]
    if recurrent is not None:
        tensors.append(recurrent.weight)
    device, shape = current.device, current.shape
    if any(tensor.dtype != torch.float32 or tensor.device != device for tensor in tensors):
        return None
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    fits = math.prod(shape) > 0 and math.prod(shape[1:]) <= triton_scans.LARGEST
    if traced or not fits or (node.recurrent is None) != (recurrent is None):
        return None
    return device if device.type == "cpu" or triton_scans.runs_on(device) else None
