"""A call of the engine: its inputs, and the arrays that native runs write, which each run some of its samples."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventInputs, Inputs
from spikeserve.models.engines.base import NEVER, Ending, Record, RunResult, State
from spikeserve.models.engines.event import node_kernels
from spikeserve.models.engines.event.carried import CarriedArrays
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.layouts import aligned
from spikeserve.models.engines.event.native import array_of
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.table import ENDED, FIRES_TOO_OFTEN, NEEDS_ROOM, RUN, SIGNAL, STOPPED
from spikeserve.models.engines.readout import check_spikes
from spikeserve.models.engines.stop import Stop
from spikeserve.models.spec.network import FloatArray

CHUNK_BYTES = 2**25
ARENA = 2**20  # bytes that a thread holds for what its runs find; a run that finds more gets more for itself
PARTS = 4  # for each thread, where samples end early, each after its own steps
NO_STEPS: NDArray[np.int64] = np.zeros(0, np.int64)
NO_STOP: NDArray[np.int64] = np.zeros(2, np.int64)
NO_INDEX: NDArray[np.int32] = np.empty(0, np.int32)


class _Room(threading.local):
    """What a thread holds from run to run: the arena, the tables of signals and of the run, and a layer's room."""

    def __init__(self) -> None:
        self.arena = np.empty(ARENA, np.uint8)
        self.signals, self.run = np.zeros(64, SIGNAL), np.zeros(1, RUN)
        self.floats = aligned((0,))


_room = _Room()


def room_for(plan: Plan) -> _Room:
    """Find the memory that the calling thread reuses for its runs, with what a plan wants."""
    room = _room
    if room.signals.size < len(plan.slots) or room.floats.size < plan.room:
        room.signals = np.zeros(max(len(plan.slots), room.signals.size), SIGNAL)
        room.floats = aligned((max(plan.room, room.floats.size),))
    return room


class Call:
    """A call's arrays, a row for each sample: from `state`, or from rest.

    Where there are `windows`, so many samples after each other go on from each of the state's, in one run, whose parts
    become those after it.
    """

    def __init__(
        self,
        plan: Plan,
        cores: Cores,
        inputs: Inputs,
        state: State | None = None,
        record: Record = Record.NONE,
        ending: Ending | None = None,
        stop: Stop | None = None,
        windows: Sequence[int] = (),
    ) -> None:
        self.plan, self.cores, self.inputs, self.ending, self.stop = plan, cores, inputs, ending, stop
        batch = self.batch = inputs.batch
        rows = batch if ending is None else 2 * batch  # of the samples as they run, and of those that have ended
        shape = rows, plan.classes
        self.steps = inputs.time_steps
        self.results = np.zeros((rows, plan.width), np.int64)
        self.readout = np.empty(shape, np.float32)
        self.taken = NO_STEPS if ending is None else np.zeros(rows, np.int64)
        if state is None:
            self.begun = self.states = NO_STEPS
            self.counts, self.reads = np.zeros(shape, np.int64), np.empty(shape)
            # Of samples that end early no state is wanted: each part has room for those that it runs at a time.
            self.parts = [np.empty((batch if ending is None else 0, plan.carried.floats), np.float32)]
        else:
            carried: Any = state.arrays if windows else CarriedArrays.of(plan.carried, state)
            self.begun, self.parts = state.steps.copy(), [*carried.parts]
            self.counts, self.reads = carried.counts.copy(), carried.reads.copy()
            self.states = NO_STEPS if len(self.parts) == 1 and not windows else carried.addresses()
        # The samples that begin with the states, and after which they are those after the run.
        self.first = self.last = cast("NDArray[np.int64] | slice", slice(None))
        if 0 < len(windows) < batch:
            count = np.array(windows, np.int64)
            of, ends = np.repeat(np.arange(count.size), count), np.cumsum(count, dtype=np.int64)
            self.first, self.last, before = ends - count, ends - 1, np.arange(batch) - (ends - count)[of]
            self.begun, self.states = self.begun[of] + self.steps * before, self.states[of]
            self.counts, self.reads = self.counts[of], self.reads[of]
        self.keeps_membranes = False
        self.rasters: dict[str, NDArray[np.int32]] = {}
        self.membranes: dict[str, FloatArray] = {}
        if record:
            self.keep_recorded(record)

    def keep_recorded(self, record: Record) -> None:
        """Make the arrays of what is recorded."""
        self.keeps_membranes = Record.MEMBRANE in record
        for name, (_, layout) in self.plan.layers.items():
            shape = self.steps, self.batch, layout.places.size
            if name in self.plan.columns and Record.RASTER in record:
                self.rasters[name] = np.zeros(shape, np.int32)
            if self.keeps_membranes:
                self.membranes[name] = np.empty(shape, np.float32)

    def run(self) -> RunResult:
        """Run every sample; raises InvalidInput where a neuron fires too often to be counted, and Stopped."""
        plan, cores, batch = self.plan, self.cores, self.batch
        if not batch:
            return self.result()
        work = plan.work_per_step * self.steps * batch
        fit = max(1, CHUNK_BYTES // (plan.bytes_per_step * self.steps))
        if isinstance(self.last, np.ndarray):
            with cores:
                self.run_part(0, batch)
            return self.result()
        if batch <= fit and (work < cores.enough or work < cores.enough_now()):  # to look what is idle takes time
            self.run_part(0, batch)
            return self.result()
        threads = cores.count * (1 if self.ending is None or cores.count == 1 else PARTS)
        size = -(-batch // (-(-batch // (fit * threads)) * threads))  # so that every thread gets the same number
        starts = range(0, batch, size)
        waiting = iter(starts)

        def run_parts() -> None:
            for first in waiting:
                self.run_part(first, min(first + size, batch))

        with cores:
            cores.share(cores.helpers(work, len(starts)), run_parts)
        return self.result()

    def run_part(self, first: int, end: int) -> None:
        """Run the samples from `first` to `end`: all at once, or one by one if they are windows or save steps by it."""
        plan, inputs, ending, room = self.plan, self.inputs, self.ending, room_for(self.plan)
        index, offset, sample_stride, step_stride = NO_INDEX, NO_STEPS, 0, 0
        if isinstance(inputs, EventInputs):
            index = inputs.unit
            values, offset = inputs.value, inputs.offset
        else:
            values, sample_stride = np.ascontiguousarray(inputs.steps).reshape(-1), plan.slots[0].places.size
            step_stride = 0 if inputs.constant else self.batch * sample_stride
        looks, ends, worth, floats = NO_STEPS, NEVER, 0.0, self.parts[0]
        group = 1 if isinstance(self.last, np.ndarray) else end - first
        if ending is not None:
            looks, ends, worth = ending
            # Samples that run together need their events one behind the other: those of a part of the steps are not.
            if looks.size > 1 and (offset.size or looks.size * plan.look_time < plan.work_per_step * self.steps):
                group = 1
            floats = np.empty((group, floats.shape[1]), np.float32)
        arenas: list[NDArray[Any]] = []  # where the arena lies, if that of the thread is too small
        reason = node_kernels.begin.call(
            plan.rows, room.signals, room.run, first, end, group, self.steps, looks, ends, worth,
            NO_STOP if self.stop is None else self.stop.flag, self.begun, self.results, self.counts, self.reads,
            self.readout, floats, self.states, self.taken, values, index, offset, sample_stride, step_stride,
            room.arena, room.floats, self.keeps_membranes, bool(self.rasters),
        )  # fmt: skip
        while reason != ENDED:
            arenas.append(self.attend(reason, room.run[0]))
            reason = node_kernels.go_on.call(plan.rows, room.run)
        if self.rasters or self.membranes:
            self.record(first, end, room.signals)

    def attend(self, reason: int, run: Any) -> NDArray[Any]:
        """Do what a run came back for, and return the arena that it needs from now on."""
        if reason == NEEDS_ROOM:
            block = np.empty(max(run["needed"], ARENA // 4), np.uint8)
            run["arena"], run["arena_count"], run["used"] = block.ctypes.data, block.size, 0
            return block
        if reason == FIRES_TOO_OFTEN:
            check_spikes(self.plan.names[run["row"]], float(run["largest"]))
        if reason == STOPPED and self.stop is not None:
            self.stop.check()
        raise MemoryError

    def record(self, first: int, end: int, signals: NDArray[Any]) -> None:
        """Copy the spikes and membranes of the samples from `first` to `end`, which have run."""
        samples, steps = end - first, self.steps
        for name, (slot, layout) in self.plan.layers.items():
            if name in self.rasters:
                signal = signals[slot]
                offset = array_of(signal["offset"], (samples * steps + 1,), np.int64)
                index = array_of(signal["index"], (offset[-1],), np.int32)
                value = array_of(signal["value"], (offset[-1] if signal["value"] else 0,), np.float32)
                row = np.repeat(np.arange(samples * steps), np.diff(offset))
                at = row % steps, first + row // steps, layout.elements[index]
                self.rasters[name][at] = value if value.size else 1
            if name in self.membranes:
                trace = array_of(signals[slot]["trace"], (samples, steps, layout.size), np.float32)
                self.membranes[name][:, first:end] = trace[..., layout.places].swapaxes(0, 1)

    def result(self) -> RunResult:
        """Make the result of the arrays that the runs wrote."""
        layers, rows = self.plan.layers, slice(0 if self.ending is None else self.batch, None)
        results = self.results[rows].T
        return RunResult(
            self.counts[rows],
            self.readout[rows],
            results[0],
            {name: results[column] for name, column in self.plan.columns.items()},
            {name: raster.reshape(*raster.shape[:2], *layers[name][1].shape) for name, raster in self.rasters.items()},
            {
                name: membrane.reshape(*membrane.shape[:2], *layers[name][1].shape)
                for name, membrane in self.membranes.items()
            },
            None if self.ending is None else self.taken[rows],
        )

    def after(self) -> CarriedArrays:
        """Return the arrays of the state after the last step."""
        return CarriedArrays(self.plan.carried, self.parts, self.counts[self.last], self.reads[self.last])
