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
from models.engines.base import Counts, Record, RunResult, State, from_rest_only, membrane_readout
from models.engines.fan_out import fan_out, recurrent_fan_out
from models.neurons import State as NeuronState
from models.neurons import feedback_joins_charge, has_synapse, integrator, spiking_neuron, starting
from models.spec import Readout, Spec
from models.spec.network import FloatArray, Network
from models.spec.nodes import (
    AvgPool2d,
    Conv1d,
    Conv2d,
    Delay,
    Fire,
    Flatten,
    Integrating,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Scale,
    Spiking,
    SumPool2d,
    Weighted,
    Window,
)


class NumpyArithmetic:
    """Firing as a plain comparison."""

    def fire(self, charged: FloatArray, threshold: FloatArray, rule: Fire) -> FloatArray:
        """Return 1.0 where `charged` reaches `threshold` (or passes it), or how often it does, else 0.0."""
        if rule is Fire.MULTIPLE:
            return np.where(charged > 0, np.trunc(charged / threshold), np.float32(0))
        fired = charged >= threshold if rule is Fire.AT_THRESHOLD else charged > threshold
        return fired.astype(charged.dtype)

    def select(self, spikes: FloatArray, fired: FloatArray, silent: FloatArray) -> FloatArray:
        """Return `fired` where there is a spike, else `silent`."""
        return np.where(spikes > 0, fired, silent)

    def held(self, spikes: FloatArray) -> FloatArray:
        """Return the spikes: there is no gradient to hold back."""
        return spikes

    def positive(self, values: FloatArray) -> FloatArray:
        """Return the values, and 0 in place of those that are less."""
        return np.maximum(values, np.float32(0))


class ReferenceEngine:
    """Runs a network in NumPy, layer by layer and step by step."""

    name = "reference"

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def spec(self) -> Spec:
        """The network that it runs."""
        return self.network.spec

    def run(
        self, inputs: EncodedInputs, state: State | None = None, *, record: Record = Record.NONE
    ) -> tuple[RunResult, State]:
        """Run every sample from rest."""
        from_rest_only(state, self.name)
        return _Run(self.network, inputs).result(record), State(inputs.time_steps, {})


class _Run:
    """One call: the arrays that live as long as it, signals being (1 or time_steps, batch, *shape)."""

    def __init__(self, network: Network, inputs: EncodedInputs) -> None:
        self.network = network
        self.inputs = inputs
        self.operations: Counts = np.zeros(inputs.batch, np.int64)
        self.rasters: dict[str, NDArray[np.int32]] = {}
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
        if isinstance(node, Delay):
            return self.delay(node, arriving)
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
    def _(self, node: Conv1d | Conv2d, x: FloatArray) -> FloatArray:
        weight, bias = self.network.tensors[f"{node.name}.weight"], self.network.tensor(node, "bias")
        swept = _swept(x, node.windows, fill=0.0)
        groups, axes = node.groups, len(node.windows)
        # By group, a product over (channels of the group, taps) for each place of the window.
        grouped = swept.reshape(len(x), groups, node.in_channels // groups, *swept.shape[2:])
        kernels = weight.reshape(groups, node.out_channels // groups, *weight.shape[1:])
        places, taps = "hw"[:axes], "kl"[:axes]
        current = np.einsum(f"ngc{places}{taps},goc{taps}->ngo{places}", grouped, kernels, optimize=True)
        current = current.reshape(len(x), node.out_channels, *current.shape[3:])
        return current if bias is None else current + bias.reshape(-1, *(1 for _ in node.windows))

    @connect.register
    def _(self, node: SumPool2d, x: FloatArray) -> FloatArray:
        return _swept(x, node.windows, fill=0.0).sum(axis=(-2, -1))

    @connect.register
    def _(self, node: AvgPool2d, x: FloatArray) -> FloatArray:
        height, width = node.kernel_size
        return _swept(x, node.windows, fill=0.0).sum(axis=(-2, -1)) / np.float32(height * width)

    @connect.register
    def _(self, node: MaxPool2d, x: FloatArray) -> FloatArray:
        return _swept(x, node.windows, fill=-np.inf).max(axis=(-2, -1))

    @connect.register
    def _(self, _: Flatten, x: FloatArray) -> FloatArray:
        return x.reshape(len(x), math.prod(x.shape[1:]))

    @connect.register
    def _(self, node: Scale, x: FloatArray) -> FloatArray:
        return self.network.parameter(node, "scale") * x

    def delay(self, node: Delay, x: FloatArray) -> FloatArray:
        """Return each element some steps later; `x` may be one step that stands for all."""
        steps = self.inputs.time_steps
        x = np.broadcast_to(x, (steps, *x.shape[1:]))
        delays = np.broadcast_to(self.network.parameter(node, "delay"), x.shape[2:])
        later = np.zeros_like(x)
        for delay in np.unique(delays).astype(int):
            if delay < steps:
                later[delay:, :, delays == delay] = x[: steps - delay][:, :, delays == delay]
        return later

    def run_neuron(self, node: Neuron, current: FloatArray) -> FloatArray:
        """Step a neuron through time; `current` may be one step that stands for all."""
        steps, batch, shape = self.inputs.time_steps, self.inputs.batch, current.shape[2:]
        current = np.broadcast_to(current, (steps, batch, *shape))
        rest = np.zeros((batch, *shape), np.float32)
        start = rest + self.network.parameter(node, "start") if starting(node) else rest
        state = NeuronState(start, rest if has_synapse(node) else None)
        self.membranes[node.name] = membranes = np.empty((steps, batch, *shape), np.float32)
        if isinstance(node, Integrating):
            readout = integrator(node, partial(self.network.parameter, node))
            for t in range(steps):
                state = readout.charge(state, current[t])
                membranes[t] = state.membrane
            return membranes
        neuron = spiking_neuron(node, partial(self.network.parameter, node))
        spikes = rest
        raster = np.empty((steps, batch, *shape), np.float32)
        for t in range(steps):
            arriving, feedback = current[t], None
            if node.recurrent:
                feedback = self.recur(node, spikes, start=t == 0)
                if not feedback_joins_charge(node):
                    arriving, feedback = arriving + feedback, None
            spikes, state = neuron.step(state, arriving, feedback, NumpyArithmetic())
            raster[t], membranes[t] = spikes, state.membrane
        self.rasters[node.name] = raster.astype(np.int32)
        return raster

    def recur(self, node: Spiking, spikes: FloatArray, *, start: bool) -> FloatArray:
        """Return the current that a layer's own spikes of the step before, (batch, *shape), send back to it."""
        flat = spikes.reshape(len(spikes), math.prod(spikes.shape[1:]))
        self.operations += np.count_nonzero(flat, axis=1) * recurrent_fan_out(spikes.shape[1:])
        current = flat @ self.network.tensors[f"{node.name}.recurrent.weight"].T
        bias = self.network.tensor(node, "recurrent.bias")
        if bias is not None and node.recurrent is not None and (node.recurrent.bias_at_start or not start):
            current = current + bias
        return current.reshape(spikes.shape)


def _per_sample(counts: NDArray[Any]) -> Counts:
    """Sum (steps, batch, *shape) over all but the batch."""
    return counts.sum(axis=(0, *range(2, counts.ndim)), dtype=np.int64)


def _swept(x: FloatArray, windows: tuple[Window, ...], fill: float) -> FloatArray:
    """Return every window of x (samples, channels, *axes) as (samples, channels, *places, *taps)."""
    margins = [(window.before, window.after) for window in windows]
    padded = np.pad(x, ((0, 0), (0, 0), *margins), constant_values=np.float32(fill))
    reach = tuple(window.dilation * (window.extent - 1) + 1 for window in windows)
    every = sliding_window_view(padded, reach, axis=tuple(range(2, x.ndim)))
    hops, taps = (tuple(slice(None, None, step) for step in steps) for steps in (
        [window.stride for window in windows], [window.dilation for window in windows]
    ))  # fmt: skip
    return every[(slice(None), slice(None), *hops, *taps)]
