"""What a chunk has found, as its nodes find it, and the result that is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.base import Counts, Record, RunResult, State
from spikeserve.models.engines.event import event_kernels
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.signals import Events, Signal
from spikeserve.models.engines.readout import read_out
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray, Network


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
        self.output: Signal | None = None  # of the last node

    def add_trace(self, name: str, rows: FloatArray) -> None:
        """Keep a layer's membranes, which come as rows of its layout, as (time_steps, samples, *shape)."""
        self.membranes[name] = self.by_step(rows, self.plan.layouts[name], self.steps)

    def result(self, state: State | None) -> tuple[RunResult, dict[str, NDArray[Any]]]:
        """Return the result for samples that began with `state`, and what of it the state after it carries."""
        read = self.spec.readout_node.name
        counts = self.count(read) if read in self.spikes else None
        answer = read_out(self.spec.readout, counts, self.read(read), self.steps, state)
        result = RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=self.operations,
            spikes_per_node={name: self.per_sample(events) for name, events in self.spikes.items()},
            rasters={name: self.raster(name) for name in self.spikes} if self.keep_rasters else {},
            membranes=self.membranes if self.keep_membranes else {},
        )
        return result, answer.carried

    def read(self, name: str) -> FloatArray | None:
        """Return what the answer is read from at each step, (1 or time_steps, samples, *shape); None for counts."""
        if self.spec.readout is Readout.SPIKE_COUNT:
            return None
        if name == self.plan.traced or (name in self.membranes and name not in self.spikes):
            return self.membranes[name]
        assert self.output is not None  # noqa: S101  (the chunk sets it before it asks for the result)
        dense = self.output.dense()
        return self.by_step(dense.rows, dense.layout, dense.steps)

    def by_step(self, rows: FloatArray, layout: Layout, steps: int) -> FloatArray:
        """Return rows of a layout, one for each step of each sample, as (steps, samples, *shape)."""
        taken = rows[:, : layout.places.size] if layout.is_flat else rows[:, layout.places]
        by_sample = taken.reshape(self.samples, steps, *layout.shape)
        return np.ascontiguousarray(by_sample.swapaxes(0, 1))

    def per_sample(self, events: Events) -> Counts:
        """Return how many spikes each sample has, (samples,)."""
        if events.value.size:
            upto: Counts = np.concatenate([[0], np.cumsum(events.value, dtype=np.int64)])[events.offset[:: self.steps]]
            return upto[1:] - upto[:-1]
        return events.offset[self.steps :: self.steps] - events.offset[: -1 : self.steps]

    def count(self, name: str) -> Counts:
        """Return how often each neuron of a layer fired, (samples, neurons)."""
        layout, events = self.plan.layouts[name], self.spikes[name]
        counts: Counts = np.zeros((self.samples, layout.places.size if layout.is_flat else layout.size), np.int64)
        event_kernels.count_units.call(events.index, events.value, events.offset, self.steps, counts)
        return counts if layout.is_flat else counts[:, layout.places]

    def raster(self, name: str) -> NDArray[np.int32]:
        """Return a layer's spikes as (time_steps, samples, *shape)."""
        layout, events = self.plan.layouts[name], self.spikes[name]
        raster = np.zeros((self.steps, self.samples, layout.places.size), np.int32)
        event_kernels.fill_raster.call(events.index, events.value, events.offset, layout.elements, raster)
        return raster.reshape(self.steps, self.samples, *layout.shape)
