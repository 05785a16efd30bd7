"""What a chunk has found, and the result that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.base import Counts, Record, RunResult, State
from spikeserve.models.engines.event import event_kernels
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.native import array_of
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.planned import Layer
from spikeserve.models.engines.event.signals import Signal, Sparse
from spikeserve.models.engines.readout import read_out
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.network import FloatArray


class Answer:
    """What the native functions count: operations, spikes of each layer, and those of each neuron that is read."""

    def __init__(self, spec: Spec, plan: Plan, samples: int, steps: int, record: Record) -> None:
        self.spec, self.plan, self.samples, self.steps = spec, plan, samples, steps
        self.keeps_rasters = self.keeps_membranes = False
        if record:  # looking for a flag takes as long as a small kernel
            self.keeps_rasters, self.keeps_membranes = Record.RASTER in record, Record.MEMBRANE in record
        # The state after the run holds the counts: they are an array of their own.
        self.counts: Counts = np.zeros((samples, plan.tables.units), np.int64)
        self.results: Counts = np.zeros(samples * (1 + len(plan.tables.spiking)), np.int64)

    def result(
        self, state: State | None, signals: NDArray[Any], read: Callable[[int], Signal]
    ) -> tuple[RunResult, dict[str, NDArray[Any]]]:
        """Return the result for samples that began with `state`, and what of it the state after it carries."""
        plan, samples, results = self.plan, self.samples, self.results
        spiking = plan.tables.spiking
        counts = self.counts if plan.tables.units else None
        membranes = {
            name: self.by_step(
                array_of(signals[slot]["trace"], (samples * self.steps, layer.layout.size), np.float32),
                layer.layout,
                self.steps,
            )
            for name, (slot, layer) in plan.tables.layers.items()
            if self.keeps_membranes or layer.traced
        }
        values = None
        if self.spec.readout is not Readout.SPIKE_COUNT:
            values = self.output(read, membranes)
        answer = read_out(self.spec.readout, counts, values, self.steps, state)
        result = RunResult(
            answer.spike_counts,
            answer.readout,
            results[:samples],
            {name: results[k * samples : (k + 1) * samples] for name, k in spiking.items()},
            {
                name: self.raster(layer, read(slot))
                for name, (slot, layer) in plan.tables.layers.items()
                if layer.spiking
            }
            if self.keeps_rasters
            else {},
            membranes if self.keeps_membranes else {},
        )
        return result, answer.carried

    def output(self, read: Callable[[int], Signal], membranes: dict[str, FloatArray]) -> FloatArray:
        """Read the spikes, membranes or values that the readout needs, (1 or time_steps, samples, *shape)."""
        name = self.spec.readout_node.name
        if name in membranes and (name == self.plan.traced or name not in self.plan.tables.spiking):
            return membranes[name]
        dense = read(self.plan.tables.output).dense()
        return self.by_step(dense.rows, dense.layout, dense.steps)

    def by_step(self, rows: FloatArray, layout: Layout, steps: int) -> FloatArray:
        """Return rows of a layout, one for each step of each sample, as a copy (steps, samples, *shape)."""
        taken = rows[:, : layout.places.size] if layout.is_flat else rows[:, layout.places]
        by_sample = taken.reshape(self.samples, steps, *layout.shape)
        return by_sample.swapaxes(0, 1).copy()

    def raster(self, layer: Layer, spikes: Signal) -> NDArray[np.int32]:
        """Return a layer's spikes as (time_steps, samples, *shape)."""
        assert isinstance(spikes, Sparse)  # noqa: S101  (a layer that fires has events)
        layout, events = layer.layout, spikes.events
        raster = np.zeros((self.steps, self.samples, layout.places.size), np.int32)
        event_kernels.fill_raster.call(events.index, events.value, events.offset, layout.elements, raster)
        return raster.reshape(self.steps, self.samples, *layout.shape)
