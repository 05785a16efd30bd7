"""Some samples on their way through a network: one kernel call for each node."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from models.coding import EncodedInputs
from models.engines.base import Counts, Record, RunResult
from models.engines.event import kernels
from models.engines.event.connections import NOTHING
from models.engines.event.plan import Plan
from models.engines.event.signals import NONE, ONES, Dense, Events, Pending, Signal, Sparse, add, room_for_index
from models.engines.fan_out import recurrent_fan_out
from models.engines.readout import check_spikes, read_out
from models.spec import INPUT
from models.spec.network import FloatArray, Network
from models.spec.nodes import Delay, Fire, MaxPool2d, Neuron, Node, Pool2d, Scale, Spiking, SumPool2d

NO_ROWS: FloatArray = np.empty((0, 0), np.float32)


class Chunk:
    """One call's part of a batch; its arrays live as long as it does."""

    def __init__(self, network: Network, plan: Plan, inputs: EncodedInputs, part: slice, record: Record) -> None:
        self.network, self.plan, self.inputs, self.part = network, plan, inputs, part
        self.keep_rasters, self.keep_membranes = Record.RASTER in record, Record.MEMBRANE in record
        self.steps = inputs.time_steps
        self.samples = part.stop - part.start
        self.operations: Counts = np.zeros(self.samples, np.int64)
        self.spikes: dict[str, Events] = {}
        self.membranes: dict[str, FloatArray] = {}

    def run(self) -> RunResult:
        """Run every node and return what was found."""
        deque(self.network.spec.propagate(self.incoming(), self.apply, add), maxlen=0)
        return self.result()

    def incoming(self) -> Signal:
        """Return the chunk's inputs as events."""
        layout = self.plan.layouts[INPUT]
        steps, batch = self.inputs.steps.shape[:2]
        width = layout.places.size
        flat = np.require(self.inputs.steps, requirements=["C", "W"]).reshape(-1)
        places = layout.places if len(layout.shape) > 1 else np.empty(0, np.int32)
        capacity = self.samples * steps * width
        index, value = room_for_index(capacity), np.empty(capacity, np.float32)
        offset = np.empty(self.samples * steps + 1, np.int64)
        ones = kernels.find_events.call(
            flat[self.part.start * width :],
            self.samples,
            steps,
            width,
            batch * width,
            width,
            places,
            index,
            value,
            offset,
        )
        found = offset[-1]
        return Sparse(layout, steps, Events(index[:found], ONES if ones else value[:found], offset))

    def apply(self, node: Node, arriving: Signal) -> Signal:
        """Return what leaves `node`."""
        if node.name in self.plan.connections:
            return self.connection(node, arriving)
        if isinstance(node, Neuron):
            return self.neurons(node, arriving)
        if isinstance(node, Pool2d):
            return self.pool(node, arriving)
        if isinstance(node, Scale):
            return self.scale(node, arriving)
        if isinstance(node, Delay):
            return self.delay(node, arriving)
        return self.flatten(node, arriving)  # all that is left: `Plan` refuses other nodes

    def connection(self, node: Node, arriving: Signal) -> Signal:
        """Count what a weighted connection costs, and leave the rest to what takes its currents."""
        connection, source = self.plan.connections[node.name], arriving.sparse()
        kernels.count_operations.call(
            source.events.index, source.events.offset, source.steps, connection.cost, self.operations
        )
        return Pending(self.plan.layouts[node.name], source, connection.feed, connection.bias)

    def neurons(self, node: Neuron, arriving: Signal) -> Signal:
        """Run a layer of neurons, together with the connection before it where there is one for every step."""
        layout, parameters = self.plan.layouts[node.name], self.plan.neurons[node.name]
        feed, events, base_steps = NOTHING, NONE, 0
        if isinstance(arriving, Pending) and arriving.steps == self.steps:
            feed, events, base = arriving.feed, arriving.source.events, arriving.bias
        else:
            currents = arriving.dense()
            base, base_steps = currents.rows.reshape(-1), currents.steps
        rows = self.samples * self.steps
        traced = not isinstance(node, Spiking) or self.keep_membranes
        trace = np.empty((rows, layout.size), np.float32) if traced else NO_ROWS
        capacity = rows * layout.places.size
        index, offset = room_for_index(capacity), np.empty(rows + 1, np.int64)
        several = isinstance(node, Spiking) and node.fire is Fire.MULTIPLE
        value = np.empty(capacity, np.float32) if several else ONES
        found = kernels.run_neurons.call(
            self.samples, self.steps, feed, events, base, base_steps, parameters, trace, index, value, offset
        )
        if traced:
            self.membranes[node.name] = self.unlaid(trace, node)
        if not isinstance(node, Spiking):
            return Dense(layout, self.steps, trace)
        spikes = Events(index[:found], value[:found], offset)
        if several:
            check_spikes(node.name, float(spikes.value.max(initial=0)))
        self.spikes[node.name] = spikes
        if node.recurrent:  # the last step's spikes never come back
            returning = offset[self.steps - 1 :: self.steps] - offset[: -1 : self.steps]
            self.operations += returning * recurrent_fan_out(layout.shape)
        return Sparse(layout, self.steps, spikes)

    def pool(self, node: Pool2d, arriving: Signal) -> Signal:
        """Pool events as events; only the maximum of values that are no spikes needs every value."""
        layout, windows = self.plan.layouts[node.name], self.plan.windows[node.name]
        largest = isinstance(node, MaxPool2d)
        divisor = 1.0 if isinstance(node, MaxPool2d | SumPool2d) else windows.area
        if not isinstance(arriving, Sparse) or (largest and arriving.events.value.size):
            rows = arriving.dense().rows
            pooled = np.zeros((len(rows), layout.size), np.float32)
            kernels.pool_rows.call(windows, largest, divisor, rows, pooled)
            return Dense(layout, arriving.steps, pooled)
        events = arriving.events
        most = min(events.index.size * windows.overlaps, (events.offset.size - 1) * layout.places.size)
        index, value = room_for_index(most), np.empty(most, np.float32)
        offset = np.empty_like(events.offset)
        ones = kernels.pool_events.call(windows, events, layout.size, largest, divisor, index, value, offset)
        found = offset[-1]
        return Sparse(layout, arriving.steps, Events(index[:found], ONES if ones else value[:found], offset))

    def scale(self, node: Node, arriving: Signal) -> Signal:
        """Multiply each element by its factor."""
        source, scale = arriving.sparse(), self.plan.scales[node.name]
        size = source.events.index.size
        index, value, offset = np.empty(size, np.int32), np.empty(size, np.float32), np.empty_like(source.events.offset)
        kernels.scale_events.call(source.events, scale, index, value, offset)
        found = offset[-1]
        return Sparse(source.layout, source.steps, Events(index[:found], value[:found], offset))

    def delay(self, node: Node, arriving: Signal) -> Signal:
        """Let each element come some steps later."""
        source, delay = arriving.sparse(), self.plan.delays[node.name]
        size = source.events.index.size * (self.steps if source.steps == 1 else 1)
        index = np.empty(size, np.int32)
        value = np.empty(size, np.float32) if source.events.value.size else ONES
        offset = np.empty(self.samples * self.steps + 1, np.int64)
        kernels.delay_events.call(source.events, source.steps, self.steps, delay, index, value, offset)
        found = offset[-1]
        return Sparse(source.layout, self.steps, Events(index[:found], value[:found], offset))

    def flatten(self, node: Node, arriving: Signal) -> Signal:
        """Give each position its place in the flat order."""
        before, after = self.plan.layouts[self.network.spec.sources[node.name][0]], self.plan.layouts[node.name]
        if isinstance(arriving, Sparse):
            index, value, offset = arriving.events
            return Sparse(after, arriving.steps, Events(before.elements[index], value, offset))
        dense = arriving.dense()
        return Dense(after, dense.steps, after.laid(dense.rows[:, before.places]))

    def unlaid(self, rows: FloatArray, node: Node) -> FloatArray:
        """Return rows of a layout as (time_steps, samples, *shape)."""
        layout = self.plan.layouts[node.name]
        by_sample = rows[:, layout.places].reshape(self.samples, self.steps, *layout.shape)
        return np.ascontiguousarray(by_sample.swapaxes(0, 1))

    def result(self) -> RunResult:
        """Return what the chunk has found."""
        spec = self.network.spec
        last = spec.nodes[-1]
        spiking = isinstance(last, Spiking)
        answer = read_out(spec.readout, self.count(last.name) if spiking else self.membranes[last.name], None)
        return RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=self.operations,
            spikes_per_node={name: self.per_sample(events) for name, events in self.spikes.items()},
            rasters={name: self.raster(name) for name in self.spikes} if self.keep_rasters else {},
            membranes=self.membranes if self.keep_membranes else {},
        )

    def per_sample(self, events: Events) -> Counts:
        """Return how many spikes each sample has."""
        if events.value.size:
            upto: Counts = np.concatenate([[0], np.cumsum(events.value, dtype=np.int64)])[events.offset[:: self.steps]]
            return upto[1:] - upto[:-1]
        return events.offset[self.steps :: self.steps] - events.offset[: -1 : self.steps]

    def count(self, name: str) -> Counts:
        """Return how often each neuron of a flat layer fired, (samples, neurons)."""
        events = self.spikes[name]
        counts: Counts = np.zeros((self.samples, self.plan.layouts[name].places.size), np.int64)
        kernels.count_units.call(events.index, events.value, events.offset, self.steps, counts)
        return counts

    def raster(self, name: str) -> NDArray[np.int32]:
        """Return a layer's spikes as (time_steps, samples, *shape)."""
        layout, events = self.plan.layouts[name], self.spikes[name]
        raster = np.zeros((self.steps, self.samples, layout.places.size), np.int32)
        kernels.fill_raster.call(events.index, events.value, events.offset, layout.elements, raster)
        return raster.reshape(self.steps, self.samples, *layout.shape)
