"""Some samples of a batch, run through a network node by node: one kernel call for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines import plain
from spikeserve.models.engines.base import Record, RunResult, State
from spikeserve.models.engines.event import event_kernels, kernels
from spikeserve.models.engines.event.answer import Answer
from spikeserve.models.engines.event.carried import LINE, Carried
from spikeserve.models.engines.event.connections import NOTHING, PASSED
from spikeserve.models.engines.event.cores import ADDED, MOVED, STEPPED, Cores
from spikeserve.models.engines.event.joins import join
from spikeserve.models.engines.event.plan import Connection, Delaying, Layer, Moving, Plan, Planned, Pooling, Scaling
from spikeserve.models.engines.event.signals import (
    NONE,
    ONES,
    Dense,
    Events,
    Pending,
    Signal,
    Sparse,
    of_values,
    room_for_index,
    values_of,
)
from spikeserve.models.engines.event.tiles import bounds_of, find_in_tiles, room_of
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.engines.readout import check_spikes
from spikeserve.models.engines.state import Steps, steps_since_rest
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.spec import INPUT
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import JoinBase, Node

NO_ROWS: FloatArray = np.empty((0, 0), np.float32)
ALONE = Cores(1)
AT_REST: Steps = np.empty(0, np.int64)


class Chunk:
    """A call's work on the samples of `part`, from their `state` or from rest; its arrays live as long as it does."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        inputs: Inputs,
        part: slice,
        state: State | None,
        record: Record,
        stop: Stop | None = None,
        cores: Cores = ALONE,
    ) -> None:
        self.cores = cores
        self.network, self.plan, self.inputs, self.part, self.state = network, plan, inputs, part, state
        self.stop = stop
        self.steps = inputs.time_steps
        self.samples = part.stop - part.start
        self.before = None if state is None else Carried.of(plan.carried, state, self.samples)
        # The number of steps since rest of each sample: a copy, as the kernels take no strides.
        self.begun = AT_REST if state is None else np.array(state.steps)
        # The kernels read each layer's state there, if there is one, and write the later one in its place.
        self.carried = (
            np.empty(self.samples * plan.carried.floats, np.float32) if self.before is None else self.before.floats
        )
        self.lines: dict[str, FloatArray] = {}
        self.answer = Answer(network, plan, self.samples, self.steps, record)

    def run(self) -> tuple[RunResult, Carried]:
        """Run every node, and return the answer and the state after the last step.

        Raises InvalidInput, and Stopped between two nodes.
        """
        for _, _, output in self.network.spec.propagate(self.incoming(), self.apply, self.join):  # noqa: B007  (the last)
            check(self.stop)
        self.answer.output = output
        result, read = self.answer.result(self.state)
        return result, Carried(self.plan.carried, self.samples, self.carried, self.lines, read)

    def incoming(self) -> Signal:
        """Return the chunk's inputs as events."""
        if isinstance(self.inputs, EventInputs):
            return self.given_events(self.inputs)
        return self.found_events(self.inputs)

    def given_events(self, inputs: EventInputs) -> Sparse:
        """Return the chunk's part of events at their places; they are copied, as the kernels have one signature."""
        layout = self.plan.layouts[INPUT]
        offset = inputs.offset[self.part.start * self.steps : self.part.stop * self.steps + 1]
        first, end = offset[0], offset[-1]
        index = layout.places[inputs.unit[first:end]]
        value = inputs.value[first:end].copy() if inputs.value.size else ONES
        return Sparse(layout, self.steps, Events(index, value, offset - first))

    def found_events(self, inputs: DenseInputs) -> Sparse:
        """Return what is not 0 in the chunk's part of a dense array."""
        layout = self.plan.layouts[INPUT]
        steps, batch = inputs.steps.shape[:2]
        width = layout.places.size
        flags, given = inputs.steps.flags, inputs.steps
        if not (flags.c_contiguous and flags.writeable):  # the kernels have one signature
            given = given.copy()
        flat = given.reshape(-1)
        places = layout.places if len(layout.shape) > 1 else np.empty(0, np.int32)
        capacity = self.samples * steps * width
        index, value = room_for_index(capacity), np.empty(capacity, np.float32)
        offset = np.empty(self.samples * steps + 1, np.int64)
        ones = event_kernels.find_events.call(
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
        planned = self.plan.nodes.get(node.name)
        if planned is not None:
            return METHODS[type(planned)](self, planned, arriving)
        return arriving if isinstance(node, JoinBase) else self.run_plain(node, arriving)

    def join(self, node: Node, inputs: Sequence[Signal]) -> Signal:
        """Return the one input that a node's several become: their sum, or what the node makes of them."""
        return join(node, inputs, self.plan.arriving[node.name], self.plan.joined.get(node.name, ()))

    def run_plain(self, node: Node, arriving: Signal) -> Signal:
        """Run a node that has no kernel by its plain function, on every value."""
        layout, begun = self.plan.layouts[node.name], steps_since_rest(self.state, self.samples)
        if isinstance(arriving, Sparse) and arriving.is_large and arriving.steps == self.steps:

            def run_block(sample: int, step: int, block: Dense) -> Signal:
                values, taken = values_of(block).swapaxes(0, 1), begun[sample : sample + 1] + step
                leaving = plain.connect_steps(node, self.network, values, taken, block.steps)
                return of_values(layout, leaving.swapaxes(0, 1))

            return arriving.in_blocks(run_block)
        values = values_of(arriving).swapaxes(0, 1)
        leaving = plain.connect_steps(node, self.network, values, begun, self.steps)
        return of_values(layout, leaving.swapaxes(0, 1))

    def connection(self, connection: Connection, arriving: Signal) -> Signal:
        """Count a weighted connection's operations; its currents are computed by the node that takes them."""
        source = arriving.sparse()
        events = source.events
        event_kernels.count_operations.call(
            events.index, events.offset, source.steps, connection.cost, self.answer.operations
        )
        return Pending(connection.layout, source, connection.feed, connection.bias)

    def neurons(self, layer: Layer, arriving: Signal) -> Signal:
        """Run a layer of neurons, and with it the connection before it where that has an input for every step."""
        layout, steps, answer = layer.layout, self.steps, self.answer
        feed, events, base_steps = NOTHING, NONE, 0
        if isinstance(arriving, Pending) and arriving.steps == steps and not arriving.valued:
            feed, events, base = arriving.feed, arriving.source.events, arriving.bias
        elif isinstance(arriving, Sparse) and arriving.is_large and arriving.steps == steps:
            feed, events, base = PASSED, arriving.events, ONES
        else:
            currents = arriving.dense()
            base, base_steps = currents.rows.reshape(-1), currents.steps
        rows, size = self.samples * steps, layout.size
        traced = layer.traced or answer.keep_membranes
        trace = np.empty((rows, size), np.float32) if traced else NO_ROWS
        if self.before is not None and layer.fan_out:
            returning = np.count_nonzero(self.before.rows(f"{layer.name}.spikes"), axis=1)
            answer.operations += returning * layer.fan_out
        helpers = 0
        if rows * layer.most_work >= self.cores.enough and not layer.fan_out:
            work = ADDED * events.index.size * feed.fan_out + STEPPED * rows * size
            helpers = self.cores.helpers(work, -(-size // feed.step))
        given = (
            self.samples, steps, feed, events, base, base_steps, layer.neurons, self.begun, self.carried, trace
        )  # fmt: skip
        if helpers:
            bounds = bounds_of(size, feed.step, helpers)

            def run(*tile: Any) -> Any:
                return kernels.run_neurons.call(*given, room_of(layer.room), *tile)

            spikes = find_in_tiles(
                self.cores, helpers, bounds, rows * bounds[:-1], rows, rows * size, layer.several, run
            )
        else:
            index, offset = np.empty(rows * size + LANES, np.int32), np.empty(rows + 1, np.int64)
            value = np.empty(rows * size, np.float32) if layer.several else ONES
            found = kernels.run_neurons.call(*given, room_of(layer.room), 0, size, index, value, offset)
            spikes = Events(index[:found], value[:found] if layer.several else ONES, offset)
        if traced:
            answer.add_trace(layer.name, trace)
        if not layer.spiking:
            return Dense(layout, steps, trace)
        if layer.several:
            check_spikes(layer.name, float(spikes.value.max(initial=0)))
        answer.spikes[layer.name] = spikes
        if layer.fan_out:  # the last step's spikes come back only in a run that goes on from here
            returning = spikes.offset[steps - 1 : -1 : steps] - spikes.offset[:-1:steps]
            answer.operations += returning * layer.fan_out
        return Sparse(layout, steps, spikes)

    def pool(self, pool: Pooling, arriving: Signal) -> Signal:
        """Pool events into events, or rows into rows."""
        layout, windows = pool.layout, pool.windows
        if not isinstance(arriving, Sparse) or (pool.dense and arriving.events.value.size):

            def pool_rows(given: Dense) -> Dense:
                pooled = np.zeros((len(given.rows), layout.size), np.float32)
                event_kernels.pool_rows.call(windows, pool.largest, pool.divisor, given.rows, pooled)
                return Dense(layout, given.steps, pooled)

            if isinstance(arriving, Sparse) and arriving.is_large:
                return arriving.in_blocks(lambda _, __, block: pool_rows(block))
            return pool_rows(arriving.dense())
        events = arriving.events
        rows, places = events.offset.size - 1, layout.places.size
        most = min(events.index.size * windows.overlaps, rows * places)
        given = windows, events, layout.size, pool.largest, pool.divisor
        helpers = 0
        if rows * pool.most_work >= self.cores.enough:
            helpers = self.cores.helpers(MOVED * events.index.size, rows)
        if helpers:
            bounds, others = bounds_of(rows, 1, helpers), list[bool]()
            begins = np.minimum(events.offset[bounds[:-1]] * windows.overlaps, bounds[:-1] * places)

            def find(*tile: Any) -> None:
                if not event_kernels.pool_events.call(*given, *tile):
                    others.append(True)

            pooled = find_in_tiles(self.cores, helpers, bounds, begins, rows, most, True, find)
            ones = not others
        else:
            index, value = np.empty(most + LANES, np.int32), np.empty(most, np.float32)
            offset = np.empty(rows + 1, np.int64)
            ones = event_kernels.pool_events.call(*given, 0, rows, index, value, offset)
            found = offset[-1]
            pooled = Events(index[:found], value[:found], offset)
        if pool.divisor == 1.0 and ones:  # all are spikes
            pooled = pooled._replace(value=ONES)
        return Sparse(layout, arriving.steps, pooled)

    def scale(self, scaling: Scaling, arriving: Signal) -> Signal:
        """Multiply each element by its factor."""
        source = arriving.sparse()
        size = source.events.index.size
        index, value, offset = np.empty(size, np.int32), np.empty(size, np.float32), np.empty_like(source.events.offset)
        event_kernels.scale_events.call(source.events, scaling.scale, index, value, offset)
        found = offset[-1]
        return Sparse(source.layout, source.steps, Events(index[:found], value[:found], offset))

    def delay(self, delaying: Delaying, arriving: Signal) -> Signal:
        """Delay each element by its steps, and keep the last inputs for the state."""
        source, delay, name = arriving.sparse(), delaying.delay, delaying.name + LINE
        layout, longest = self.plan.carried.lines[name]
        past = NONE
        if self.before is not None:
            past = Dense(layout, longest, self.before.lines[name].reshape(-1, layout.size)).sparse().events
        size = source.events.index.size * (self.steps if source.steps == 1 else 1) + past.index.size
        valued = source.events.value.size or past.value.size
        index, value = room_for_index(size), np.empty(size, np.float32) if valued else ONES
        offset = np.empty(self.samples * self.steps + 1, np.int64)
        line = np.zeros((self.samples * longest, layout.size), np.float32)
        event_kernels.delay_events.call(
            past, longest, source.events, source.steps, self.steps, delay, line, index, value, offset
        )
        self.lines[name] = line.reshape(self.samples, longest, layout.size)
        found = offset[-1]
        return Sparse(layout, self.steps, Events(index[:found], value[:found], offset))

    def move(self, moving: Moving, arriving: Signal) -> Signal:
        """Move each value to its place in another shape or another order of the axes."""
        after, moves, before = moving.layout, moving.moves, arriving.layout
        if isinstance(arriving, Sparse):
            index, value, offset = arriving.events
            return Sparse(after, arriving.steps, Events(moves[index], value, offset))
        dense = arriving.dense()
        rows = np.zeros((len(dense.rows), after.size), np.float32)
        rows[:, moves[before.places]] = dense.rows[:, before.places]
        return Dense(after, dense.steps, rows)


METHODS: Mapping[type[Planned], Callable[[Chunk, Any, Signal], Signal]] = {
    Connection: Chunk.connection,
    Layer: Chunk.neurons,
    Pooling: Chunk.pool,
    Scaling: Chunk.scale,
    Delaying: Chunk.delay,
    Moving: Chunk.move,
}
