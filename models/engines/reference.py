"""The reference engine: the equations in NumPy, as plain as possible. All other engines are tested against it.

The engine is slow and not meant for serving, although it can be used for that.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import plain
from spikeserve.models.engines.base import Counts, Record, RunResult
from spikeserve.models.engines.blocks import DenseEngine
from spikeserve.models.engines.fan_out import operations, recurrent_fan_out
from spikeserve.models.engines.readout import check_spikes, read_out
from spikeserve.models.engines.state import State, neuron_arrays, neuron_state
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.neurons import OPERATIONS, NeuronLayer, counts_steps, program_of
from spikeserve.models.spec import nodes
from spikeserve.models.spec.network import FloatArray, Network


class ReferenceEngine(DenseEngine):
    """Runs a network in NumPy, layer by layer and step by step."""

    name = "reference"
    batches = False

    def __init__(self, network: Network, threads: int = 1) -> None:
        super().__init__(network, threads)
        self.connections = plain.Connections(network)

    @override
    def run_dense(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        return _Run(self, inputs, state, stop).result(record)


class _Run:
    """One call of `run` and its arrays; signals are (1 or time_steps, batch, *shape)."""

    def __init__(self, engine: ReferenceEngine, inputs: DenseInputs, state: State | None, stop: Stop | None) -> None:
        self.engine = engine
        self.network = network = engine.connections.network
        self.inputs = inputs
        self.before = State.rest(network, inputs.batch) if state is None else state
        self.stop = stop
        self.after: dict[str, NDArray[Any]] = {}
        self.operations: Counts = np.zeros(inputs.batch, np.int64)
        self.rasters: dict[str, NDArray[np.int32]] = {}
        self.membranes: dict[str, FloatArray] = {}

    def result(self, record: Record) -> tuple[RunResult, State]:
        spec = self.network.spec
        for _, _, output in spec.propagate(self.inputs.steps, self.apply, plain.join):  # noqa: B007  (the last is read)
            check(self.stop)
        read = spec.readout_node.name
        answer = read_out(
            spec.readout,
            self.rasters[read].sum(axis=0, dtype=np.int64) if read in self.rasters else None,
            self.membranes[read] if spec.readout.of_membrane else output,
            self.inputs.time_steps,
            self.before,
        )
        self.after |= answer.carried
        result = RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=self.operations,
            spikes_per_node={name: _per_sample(raster) for name, raster in self.rasters.items()},
            rasters=self.rasters if Record.RASTER in record else {},
            membranes=self.membranes if Record.MEMBRANE in record else {},
        )
        return result, State(self.before.steps + self.inputs.time_steps, self.after)

    def apply(self, node: nodes.Node, arriving: FloatArray) -> FloatArray:
        """Return the output of `node`."""
        if isinstance(node, nodes.Weighted):
            self.operations += operations(node, arriving, self.network)
        if isinstance(node, nodes.Neuron):
            return self.run_neuron(node, arriving)
        if isinstance(node, nodes.Delay):
            return self.delay(node, arriving)
        return self.engine.connections.steps(node, arriving, self.before.steps, self.inputs.time_steps)

    def delay(self, node: nodes.Delay, x: FloatArray) -> FloatArray:
        """Return the output of a Delay; `x` may be one step that stands for all."""
        line = self.before.arrays[f"{node.name}.line"].swapaxes(0, 1)
        later, line = plain.delayed(node, self.network, x, line, self.inputs.time_steps)
        self.after[f"{node.name}.line"] = line.swapaxes(0, 1).copy()
        return later

    def run_neuron(self, node: nodes.Neuron, current: FloatArray) -> FloatArray:
        """Step a neuron through time; `current` may be one step that stands for all."""
        steps, batch, shape = self.inputs.time_steps, self.inputs.batch, current.shape[2:]
        current = np.broadcast_to(current, (steps, batch, *shape))
        recur = partial(self.recur, node) if node.recurrent is not None else None
        layer = NeuronLayer[FloatArray](
            program_of(node), partial(self.network.parameter, node), OPERATIONS, np.float32, recur, counts_steps(node)
        )
        state, begun = neuron_state(self.before.arrays, node), self.before.steps[:, np.newaxis] > 0
        leaving, membranes = np.empty((2, steps, batch, *shape), np.float32)
        with np.errstate(all="ignore"):  # infinities and NaN are defined; too many spikes are refused later
            for t, stepped in enumerate(layer.scan(state, current, begun)):
                leaving[t], membranes[t], state = stepped
                check(self.stop)
        self.membranes[node.name] = membranes
        self.after |= {name: array.copy() for name, array in neuron_arrays(node, state).items()}
        if isinstance(node, nodes.Spiking):
            check_spikes(node.name, leaving.max(initial=0))
            self.rasters[node.name] = leaving.astype(np.int32)
        return leaving

    def recur(self, node: nodes.Neuron, spikes: FloatArray, biased: NDArray[np.bool_] | bool) -> FloatArray:
        """Return the recurrent current of a layer's spikes of the previous step, (batch, *shape)."""
        flat = spikes.reshape(len(spikes), math.prod(spikes.shape[1:]))
        self.operations += np.count_nonzero(flat, axis=1) * recurrent_fan_out(spikes.shape[1:])
        sums = self.engine.connections.product(f"{node.name}.recurrent", flat, biased=biased)
        return plain.rounded(sums).reshape(spikes.shape)


def _per_sample(counts: NDArray[Any]) -> Counts:
    """Sum (steps, batch, *shape) over all but the batch."""
    return counts.sum(axis=(0, *range(2, counts.ndim)), dtype=np.int64)
