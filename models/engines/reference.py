"""The reference engine: the equations in NumPy, as plain as possible. All other engines are tested against it.

It is slow. It is not meant to serve, though it can.
"""

from __future__ import annotations

import math
from functools import partial, singledispatchmethod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.coding import EncodedInputs
from models.engines.base import Counts, Record, RunResult, membrane_readout
from models.engines.fan_out import fan_out, recurrent_fan_out
from models.network import FloatArray, Network
from models.neurons import integrator, spiking_neuron
from models.nodes import (
    LI,
    AvgPool2d,
    Conv2d,
    Fire,
    Flatten,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Pool2d,
    Spiking,
    SumPool2d,
    Weighted,
)
from models.spec import Readout, Spec


class NumpyArithmetic:
    """Firing as a plain comparison."""

    def fire(self, charged: FloatArray, threshold: FloatArray, rule: Fire) -> FloatArray:
        """Return 1.0 where `charged` reaches `threshold` (or passes it), else 0.0."""
        fired = charged >= threshold if rule is Fire.AT_THRESHOLD else charged > threshold
        return fired.astype(charged.dtype)

    def select(self, spikes: FloatArray, fired: FloatArray, silent: FloatArray) -> FloatArray:
        """Return `fired` where there is a spike, else `silent`."""
        return np.where(spikes > 0, fired, silent)

    def held(self, spikes: FloatArray) -> FloatArray:
        """Return the spikes: there is no gradient to hold back."""
        return spikes


class ReferenceEngine:
    """Runs a network in NumPy, layer by layer and step by step."""

    name = "reference"

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def spec(self) -> Spec:
        """The network that it runs."""
        return self.network.spec

    def run(self, inputs: EncodedInputs, *, record: Record = Record.NONE) -> RunResult:
        """Run every sample from rest."""
        return _Run(self.network, inputs).result(record)


class _Run:
    """One call: the arrays that live as long as it, signals being (1 or time_steps, batch, *shape)."""

    def __init__(self, network: Network, inputs: EncodedInputs) -> None:
        self.network = network
        self.inputs = inputs
        self.operations: Counts = np.zeros(inputs.batch, np.int64)
        self.rasters: dict[str, NDArray[np.uint8]] = {}
        self.membranes: dict[str, FloatArray] = {}

    def result(self, record: Record) -> RunResult:
        spec = self.network.spec
        last = spec.nodes[-1].name
        for _ in spec.propagate(self.inputs.steps, self.apply, np.add):
            pass
        if spec.readout is Readout.SPIKE_COUNT:
            counts = self.rasters[last].sum(axis=0, dtype=np.int64)
            readout = counts.astype(np.float32)
        else:
            readout = membrane_readout(spec.readout, self.membranes[last])
            counts = np.zeros(readout.shape, np.int64)
        return RunResult(
            spike_counts=counts,
            readout=readout,
            synaptic_operations=self.operations,
            spikes_per_node={name: _per_sample(raster) for name, raster in self.rasters.items()},
            rasters=self.rasters if Record.RASTER in record else {},
            membranes=self.membranes if Record.MEMBRANE in record else {},
        )

    def apply(self, node: Node, arriving: FloatArray) -> FloatArray:
        """Return what leaves `node`."""
        if isinstance(node, Weighted):
            self.operations += _per_sample((arriving != 0) * fan_out(node, arriving.shape[2:]))
        if isinstance(node, Neuron):
            return self.run_neuron(node, arriving)
        flat = self.connect(node, arriving.reshape(-1, *arriving.shape[2:]))
        return flat.reshape(*arriving.shape[:2], *flat.shape[1:])

    @singledispatchmethod
    def connect(self, node: Node, _: FloatArray) -> FloatArray:
        """Apply a connection to (samples, *shape), steps and batch being all the same to it."""
        raise TypeError(f"no connection of type {type(node).__name__}")

    @connect.register
    def _(self, node: Linear, x: FloatArray) -> FloatArray:
        bias = self.network.tensor(node, "bias")
        current = x @ self.network.tensors[f"{node.name}.weight"].T
        return current if bias is None else current + bias

    @connect.register
    def _(self, node: Conv2d, x: FloatArray) -> FloatArray:
        weight, bias = self.network.tensors[f"{node.name}.weight"], self.network.tensor(node, "bias")
        windows = _windows(x, node.kernel_size, node.stride, node.padding, node.dilation, fill=0.0)
        groups = node.groups
        # g group, o output channel, c input channel, hw position, kl tap
        grouped = windows.reshape(len(x), groups, node.in_channels // groups, *windows.shape[2:])
        kernels = weight.reshape(groups, node.out_channels // groups, *weight.shape[1:])
        current = np.einsum("ngchwkl,gockl->ngohw", grouped, kernels, optimize=True)
        current = current.reshape(len(x), node.out_channels, *current.shape[3:])
        return current if bias is None else current + bias[:, np.newaxis, np.newaxis]

    @connect.register
    def _(self, node: SumPool2d, x: FloatArray) -> FloatArray:
        return _pool_windows(node, x, fill=0.0).sum(axis=(-2, -1))

    @connect.register
    def _(self, node: AvgPool2d, x: FloatArray) -> FloatArray:
        height, width = node.kernel_size
        return _pool_windows(node, x, fill=0.0).sum(axis=(-2, -1)) / np.float32(height * width)

    @connect.register
    def _(self, node: MaxPool2d, x: FloatArray) -> FloatArray:
        return _pool_windows(node, x, fill=-np.inf).max(axis=(-2, -1))

    @connect.register
    def _(self, _: Flatten, x: FloatArray) -> FloatArray:
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def run_neuron(self, node: Neuron, current: FloatArray) -> FloatArray:
        """Step a neuron through time; `current` may be one step that stands for all."""
        steps, batch, shape = self.inputs.time_steps, self.inputs.batch, current.shape[2:]
        current = np.broadcast_to(current, (steps, batch, *shape))
        membrane = np.zeros((batch, *shape), np.float32)
        self.membranes[node.name] = membranes = np.empty((steps, batch, *shape), np.float32)
        if isinstance(node, LI):
            readout = integrator(node, partial(self.network.parameter, node))
            for t in range(steps):
                membranes[t] = membrane = readout.charge(membrane, current[t])
            return membranes
        neuron = spiking_neuron(node, partial(self.network.parameter, node))
        spikes = np.zeros((batch, *shape), np.float32)
        raster = np.empty((steps, batch, *shape), np.float32)
        for t in range(steps):
            arriving = current[t] + self.recur(node, spikes) if node.recurrent else current[t]
            spikes, membrane = neuron.step(membrane, arriving, NumpyArithmetic())
            raster[t], membranes[t] = spikes, membrane
        self.rasters[node.name] = raster.astype(np.uint8)
        return raster

    def recur(self, node: Spiking, spikes: FloatArray) -> FloatArray:
        """Return the current that a layer's own spikes of the step before, (batch, *shape), send back to it."""
        flat = spikes.reshape(len(spikes), math.prod(spikes.shape[1:]))
        self.operations += flat.sum(axis=1).astype(np.int64) * recurrent_fan_out(spikes.shape[1:])
        current = flat @ self.network.tensors[f"{node.name}.recurrent.weight"].T
        bias = self.network.tensor(node, "recurrent.bias")
        return (current if bias is None else current + bias).reshape(spikes.shape)


def _per_sample(counts: NDArray[Any]) -> Counts:
    """Sum (steps, batch, *shape) over all but the batch."""
    return counts.sum(axis=(0, *range(2, counts.ndim)), dtype=np.int64)


def _windows(
    x: FloatArray,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    fill: float,
) -> FloatArray:
    """Return every window of x (samples, channels, height, width) as (samples, channels, rows, columns, *kernel)."""
    (pad_y, pad_x), (step_y, step_x) = padding, dilation
    padded = np.pad(x, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)), constant_values=np.float32(fill))
    reach = tuple(step * (extent - 1) + 1 for extent, step in zip(kernel, dilation, strict=True))
    return sliding_window_view(padded, reach, axis=(2, 3))[:, :, :: stride[0], :: stride[1], ::step_y, ::step_x]


def _pool_windows(node: Pool2d, x: FloatArray, fill: float) -> FloatArray:
    return _windows(x, node.kernel_size, node.hop, node.padding, (1, 1), fill)
