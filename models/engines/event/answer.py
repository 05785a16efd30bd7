"""What a chunk has found, as its nodes find it, and the result that is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Counts, Record, RunResult, State
from models.engines.event import event_kernels
from models.engines.event.plan import Plan
from models.engines.event.signals import Events
from models.engines.readout import read_out
from models.spec import Readout
from models.spec.network import FloatArray, Network


class Answer:
    """The synaptic operations, the spikes of each layer, and membranes where they are read or asked for."""

    def __init__(self, network: Network, plan: Plan, samples: int, steps: int, record: Record) -> None:
        self.spec, self.plan, self.samples, self.steps = network.spec, plan, samples, steps
        self.keep_rasters = self.keep_membranes = False
        if record:  # looking for a flag takes as long as a small kernel
            self.keep_rasters, self.keep_membranes = Record.RASTER in record, Record.MEMBRANE in record
        self.operations: Counts = np.zeros(samples, np.int64)
        self.spikes: dict[str, Events] = {}
        self.membranes: dict[str, FloatArray] = {}

    def add_trace(self, name: str, rows: FloatArray) -> None:
        """Keep a layer's membranes, which come as rows of its layout, as (time_steps, samples, *shape)."""
        layout = self.plan.layouts[name]
        by_sample = rows[:, layout.places].reshape(self.samples, self.steps, *layout.shape)
        self.membranes[name] = np.ascontiguousarray(by_sample.swapaxes(0, 1))

    def result(self, state: State | None) -> tuple[RunResult, NDArray[Any]]:
        """Return the result for samples that began with `state`, and the readout that the state after it carries."""
        last = self.spec.nodes[-1].name
        counted = self.spec.readout is Readout.SPIKE_COUNT
        answer = read_out(self.spec.readout, self.count(last) if counted else self.membranes[last], state)
        result = RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=self.operations,
            spikes_per_node={name: self.per_sample(events) for name, events in self.spikes.items()},
            rasters={name: self.raster(name) for name in self.spikes} if self.keep_rasters else {},
            membranes=self.membranes if self.keep_membranes else {},
        )
        return result, answer.carried

    def per_sample(self, events: Events) -> Counts:
        """Return how many spikes each sample has, (samples,)."""
        if events.value.size:
            upto: Counts = np.concatenate([[0], np.cumsum(events.value, dtype=np.int64)])[events.offset[:: self.steps]]
            return upto[1:] - upto[:-1]
        return events.offset[self.steps :: self.steps] - events.offset[: -1 : self.steps]

    def count(self, name: str) -> Counts:
        """Return how often each neuron of a flat layer fired, (samples, neurons)."""
        events = self.spikes[name]
        counts: Counts = np.zeros((self.samples, self.plan.layouts[name].places.size), np.int64)
        event_kernels.count_units.call(events.index, events.value, events.offset, self.steps, counts)
        return counts

    def raster(self, name: str) -> NDArray[np.int32]:
        """Return a layer's spikes as (time_steps, samples, *shape)."""
        layout, events = self.plan.layouts[name], self.spikes[name]
        raster = np.zeros((self.steps, self.samples, layout.places.size), np.int32)
        event_kernels.fill_raster.call(events.index, events.value, events.offset, layout.elements, raster)
        return raster.reshape(self.steps, self.samples, *layout.shape)
