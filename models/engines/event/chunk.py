"""Some samples of a batch, run through a network: by one native call, but for what only Python can do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventInputs, Inputs
from spikeserve.models.engines import plain
from spikeserve.models.engines.base import Record, RunResult, State
from spikeserve.models.engines.event import event_kernels, node_kernels
from spikeserve.models.engines.event.answer import Answer
from spikeserve.models.engines.event.carried import LINE, Carried, CarriedArrays
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.joins import join
from spikeserve.models.engines.event.native import array_of
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.planned import Delaying, Layer, Pooling
from spikeserve.models.engines.event.signals import (
    NONE,
    ONES,
    Dense,
    Signal,
    Sparse,
    of_values,
    room_for_index,
    values_of,
)
from spikeserve.models.engines.event.table import (
    ENDED,
    FAILED,
    FIRES_TOO_OFTEN,
    NEEDS_ROOM,
    REASONS,
    RUN,
    SHARES,
    SIGNAL,
    Events,
)
from spikeserve.models.engines.event.tables import Step
from spikeserve.models.engines.event.tiles import bounds_of, find_in_tiles, room_of
from spikeserve.models.engines.readout import check_spikes
from spikeserve.models.engines.repeated import RepeatedInputs
from spikeserve.models.engines.state import Steps, steps_since_rest
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.spec import INPUT
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import JoinBase, Node

ALONE = Cores(1)
AT_REST: Steps = np.empty(0, np.int64)
NO_INDEX: NDArray[np.int32] = np.empty(0, np.int32)
NO_OFFSET: NDArray[np.int64] = np.empty(0, np.int64)
ARENA = 2**20  # bytes that a thread holds for what its runs find; a run that finds more gets more for itself
LONG = 1000.0  # microseconds of reckoned work from which a run looks between two nodes whether it should stop


class _Room(threading.local):
    """What each thread holds from run to run: the arena, the tables of signals, and the run."""

    def __init__(self) -> None:
        self.arena = np.empty(ARENA, np.uint8)
        self.signals = np.zeros(64, SIGNAL)
        self.runs = np.zeros(1, RUN)


_room = _Room()


def held_by_thread(signals: int) -> _Room:
    """Find the memory that the calling thread reuses for its runs, with a table of at least so many signals."""
    if len(_room.signals) < signals:
        _room.signals = np.zeros(signals, SIGNAL)
    return _room


def _address(array: NDArray[Any]) -> int:
    """Return where an array lies that may not be there, which is 0."""
    return array.ctypes.data if array.size else 0


def parts_of(plan: Plan, state: State, samples: int) -> Sequence[Carried]:
    """Return a state as the kernels hold it: as it lies where this engine returned it, or else converted."""
    if isinstance(state.arrays, CarriedArrays) and state.arrays.layout is plan.carried:
        return state.arrays.parts
    return (Carried.of(plan.carried, state, samples),)


def addresses_of(carried: Sequence[FloatArray]) -> NDArray[np.int64]:
    """Return where the row of each sample begins, in arrays (samples, floats)."""
    if len(carried) == 1 and len(carried[0]) != 1:
        first, size = carried[0].ctypes.data, carried[0].strides[0]
        return first + size * np.arange(len(carried[0]))
    return np.array([floats.ctypes.data + k * floats.strides[0] for floats in carried for k in range(len(floats))])


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
        *,
        known: bool = False,
    ) -> None:
        self.cores, self.stop, self.known = cores, stop, known
        self.network, self.plan, self.inputs, self.part, self.state = network, plan, inputs, part, state
        self.steps = inputs.time_steps
        self.samples = part.stop - part.start
        self.before = () if state is None else parts_of(plan, state, self.samples)
        # The number of steps since rest of each sample: a copy, as the kernels take no strides.
        self.begun = AT_REST if state is None else np.array(state.steps)
        # The kernels read each sample's state there, if there is one, and write the later one in its place.
        self.carried = [part.floats.copy() for part in self.before]
        if not self.carried:
            self.carried.append(np.empty((self.samples, plan.carried.floats), np.float32))
        self.lines: dict[str, FloatArray] = {}
        self.held: list[Any] = []  # arrays whose addresses stand in the tables
        self.answer = Answer(network.spec, plan, self.samples, self.steps, record)
        room = held_by_thread(len(plan.tables.slots))
        self.signals, self.runs = room.signals, room.runs

    def run(self) -> tuple[RunResult, Sequence[Carried]]:
        """Run every node, and return the answer and the state after the last step.

        Raises InvalidInput, and Stopped: before a run, and between two nodes of a long one.
        """
        check(self.stop)
        plan, stop = self.plan, self.stop
        last = len(plan.tables.steps)
        at_once = stop is None or plan.work_per_step * self.steps * self.samples < LONG
        if self.known:
            self.recall()
        end = last if at_once else 1
        row = self.begin(end)
        while row != ENDED or end < last:
            check(stop)
            first = end if row == ENDED else self.attend(*divmod(row, REASONS))
            end = last if at_once else min(first + 1, last)
            row = node_kernels.go_on.call(plan.tables.rows, self.runs, first, end)
        if isinstance(self.inputs, RepeatedInputs) and not self.known:
            self.keep(self.inputs)
        result, read = self.answer.result(self.state, self.signals, self.read)
        return result, self.after(read)

    def after(self, read: dict[str, NDArray[Any]]) -> Sequence[Carried]:
        """Return the state after the run, in as many parts as before it."""
        if len(self.carried) == 1:
            return (Carried(self.plan.carried, self.carried[0], self.lines, read),)
        after, end = list[Carried](), 0
        for floats in self.carried:
            first, end = end, end + len(floats)
            lines = {name: line[first:end].copy() for name, line in self.lines.items()}
            own = {name: array[first:end].copy() for name, array in read.items()}
            after.append(Carried(self.plan.carried, floats, lines, own))
        return after

    def begin(self, end: int) -> int:
        """Run the nodes up to `end`; see `node_kernels.run_nodes`."""
        inputs, plan, steps = self.inputs, self.plan, self.steps
        index, offset, sample_stride, step_stride = NO_INDEX, NO_OFFSET, 0, 0
        if isinstance(inputs, EventInputs):
            index, values, offset = self.given_events(inputs)
            self.held += index, offset
        else:
            given = inputs.steps
            steps, batch = given.shape[:2]
            if not (given.flags.c_contiguous and given.flags.writeable):  # the kernels have one signature
                given = given.copy()
            sample_stride = plan.layouts[INPUT].places.size
            step_stride = batch * sample_stride
            values = given.reshape(-1)
            if self.part.start:
                values = values[self.part.start * sample_stride :]
        self.held.append(values)
        tables, answer, states = plan.tables, self.answer, addresses_of(self.carried)
        self.held.append(states)
        return node_kernels.begin.call(
            tables.rows, self.signals, self.runs, end, self.samples, self.steps, self.begun, states, values,
            index, offset, sample_stride, step_stride, steps, answer.results, answer.counts, _room.arena,
            room_of(tables.room), answer.keeps_membranes, self.known, self.cores.enough,
        )  # fmt: skip

    def given_events(self, inputs: EventInputs) -> Events:
        """Return the chunk's part of events at their places; they are copied, as the kernels have one signature."""
        layout = self.plan.layouts[INPUT]
        offset = inputs.offset[self.part.start * self.steps : self.part.stop * self.steps + 1]
        first, end = offset[0], offset[-1]
        index = layout.places[inputs.unit[first:end]]
        value = inputs.value[first:end].copy() if inputs.value.size else ONES
        return Events(index, value, offset - first)

    def attend(self, row: int, reason: int) -> int:
        """Do what the node at a row of the table needs, and return the row to go on from."""
        step, run = self.plan.tables.steps[row], self.runs[0]
        if reason == NEEDS_ROOM:
            self.give_room(run)
            return row
        if reason == SHARES:
            return self.share(row, step, run)
        if reason == FIRES_TOO_OFTEN:
            check_spikes(step.node.name, float(run["largest"]))
        if reason == FAILED:
            raise MemoryError
        inputs = [self.read(slot) for slot in step.sources]
        leaving = inputs[0] if len(inputs) == 1 else self.join(step.node, inputs)
        if step.applied:
            leaving = self.apply(step.node, leaving)
        self.write(step.target, leaving)
        return row + 1

    def give_room(self, run: Any) -> None:
        """Give a run another arena."""
        block = np.empty(max(run["needed"], ARENA // 4), np.uint8)
        self.held.append(block)
        run["arena"], run["arena_count"], run["used"] = block.ctypes.data, block.size, 0

    def read(self, slot: int) -> Signal:
        """Return a signal that the native functions have written, in their arrays."""
        signal, layout = self.signals[slot], self.plan.tables.slots[slot]
        if signal["feed"] >= 0 and not signal["rows"]:
            self.runs["slot"] = slot
            fill = len(self.plan.tables.steps)
            while node_kernels.go_on.call(self.plan.tables.rows, self.runs, fill, fill + 1) != ENDED:
                self.give_room(self.runs[0])
        steps, count = int(signal["steps"]), self.samples * int(signal["steps"])
        if signal["rows"]:
            return Dense(layout, steps, array_of(signal["rows"], (count, layout.size), np.float32))
        offset = array_of(signal["offset"], (count + 1,), np.int64)
        index = array_of(signal["index"], (offset[-1],), np.int32)
        value = array_of(signal["value"], (offset[-1],), np.float32) if signal["value"] else ONES
        return Sparse(layout, steps, Events(index, value, offset))

    def write(self, slot: int, signal: Signal, trace: int = 0) -> None:
        """Write a signal for the native functions."""
        size, steps = signal.layout.size, signal.steps
        if isinstance(signal, Dense):
            self.held.append(signal.rows)
            self.signals[slot] = steps, size, -1, trace, signal.rows.ctypes.data, 0, 0, 0
            return
        self.held.append(signal.events)
        index, value, offset = signal.events
        self.signals[slot] = steps, size, -1, trace, 0, index.ctypes.data, _address(value), offset.ctypes.data

    def keep(self, inputs: RepeatedInputs) -> None:
        """Keep what leaves the last nodes before the first neurons, for later slices of the run."""
        for name, slot in self.plan.tables.kept.items():
            rows = self.read(slot).dense().rows
            if self.samples == inputs.batch:
                inputs.kept[name] = rows.copy()
                continue
            room: FloatArray = np.empty((inputs.batch, rows.shape[1]), np.float32)
            inputs.kept.setdefault(name, room)[self.part] = rows  # in the room of the chunk that came first

    def recall(self) -> None:
        """Take what an earlier slice kept; the nodes before are not run, and so not counted."""
        assert isinstance(self.inputs, RepeatedInputs)  # noqa: S101  (others are not known)
        for name, slot in self.plan.tables.kept.items():
            self.write(slot, Dense(self.plan.layouts[name], 1, self.inputs.kept[name][self.part]))

    def share(self, row: int, step: Step, run: Any) -> int:
        """Run a large node on several threads where there are free cores, and return the row to go on from."""
        size, work, planned = self.plan.tables.slots[step.target].size, float(run["work"]), step.planned
        steps = self.steps if isinstance(planned, Layer) else int(self.signals[step.sources[0]]["steps"])
        rows = self.samples * steps
        wide = size if isinstance(planned, Layer) else rows
        helpers = self.cores.helpers(work, -(-wide // int(run["unit"])))
        if not helpers:
            run["alone"] = row
            return row
        bounds, others = bounds_of(wide, int(run["unit"]), helpers), list[bool]()
        trace: FloatArray = np.empty((0, size), np.float32)
        if isinstance(planned, Layer):
            begins, most, valued = rows * bounds[:-1], rows * size, planned.several
            if planned.traced or self.answer.keeps_membranes:
                trace = np.empty((rows, size), np.float32)
        else:
            assert isinstance(planned, Pooling)  # noqa: S101  (no other node shares)
            source = self.read(step.sources[0])
            assert isinstance(source, Sparse)  # noqa: S101  (no other is shared)
            events, places = source.events, planned.layout.places.size
            overlaps = planned.windows.overlaps
            begins = np.minimum(events.offset[bounds[:-1]] * overlaps, bounds[:-1] * places)
            most, valued = min(events.index.size * overlaps, rows * places), True

        rows_of_table, room = self.plan.tables.rows, self.plan.tables.room

        def find(lo: int, hi: int, index: NDArray[np.int32], value: FloatArray, offset: NDArray[np.int64]) -> None:
            given = lo, hi, index, value, offset, trace.reshape(-1), room_of(room)
            if node_kernels.run_part.call(rows_of_table, self.runs.copy(), row, *given) != ENDED:
                others.append(True)

        found = find_in_tiles(self.cores, helpers, bounds, begins, rows, most, valued, find)
        if isinstance(planned, Pooling) and planned.divisor == 1.0 and not others:  # all are spikes
            found = found._replace(value=ONES)
        leaving: Signal = Sparse(self.plan.tables.slots[step.target], steps, found)
        if isinstance(planned, Layer) and not planned.spiking:
            leaving = Dense(planned.layout, steps, trace)
        self.held.append(trace)
        self.write(step.target, leaving, _address(trace))
        return row + 1

    def join(self, node: Node, inputs: Sequence[Signal]) -> Signal:
        """Return the one input that a node's several become: their sum, or what the node makes of them."""
        return join(node, inputs, self.plan.arriving[node.name], self.plan.joined.get(node.name, ()))

    def apply(self, node: Node, arriving: Signal) -> Signal:
        """Run a node that has no native function, and return its output."""
        planned = self.plan.nodes.get(node.name)
        if isinstance(planned, Delaying):
            return self.delay(planned, arriving)
        return arriving if isinstance(node, JoinBase) else self.run_plain(node, arriving)

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

    def delay(self, delaying: Delaying, arriving: Signal) -> Signal:
        """Delay each element by its steps, and keep the last inputs for the state."""
        source, delay, name = arriving.sparse(), delaying.delay, delaying.name + LINE
        layout, longest = self.plan.carried.lines[name]
        past = NONE
        if self.before:
            lines = np.concatenate([part.lines[name] for part in self.before])
            past = Dense(layout, longest, lines.reshape(-1, layout.size)).sparse().events
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
