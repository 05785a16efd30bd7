"""Every kernel compiled, or fetched from its cache, before the first request: by a network that needs them all."""

from __future__ import annotations

from functools import cache

import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.event.chunk import Chunk
from spikeserve.models.engines.event.compiled import engine_kernels
from spikeserve.models.engines.event.node_kernels import run_early, run_part
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.signals import Dense, room_for_index
from spikeserve.models.engines.event.table import NODE, RUN, SIGNAL
from spikeserve.models.engines.event.tiles import merged
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec import INPUT, Spec
from spikeserve.models.spec.network import Network

EVERY_KERNEL = {
    "input": {"shape": [1, 4, 4]},
    "coding": "spikes",
    "time_steps": 2,
    "readout": "max_membrane",
    "labels": ["only"],
    "nodes": [
        {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 1, "kernel_size": 1},
        {"type": "MaxPool2d", "name": "largest_current", "kernel_size": 1},
        {"type": "IF", "name": "spikes"},
        {"type": "MaxPool2d", "name": "any_spike", "kernel_size": 2},
        {"type": "SumPool2d", "name": "all_spikes", "kernel_size": 1},
        {"type": "Scale", "name": "scaled", "scale": 2.0},
        {"type": "IF", "name": "again", "recurrent": {"bias": True}},
        {"type": "Delay", "name": "late", "delay": 1},
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "dense", "in_features": 4, "out_features": 4},
        {"type": "IF", "name": "more_spikes"},
        {"type": "Linear", "name": "classes", "in_features": 4, "out_features": 1},
        {"type": "LI", "name": "readout", "decay": 0.5},
    ],
}


@cache
def compile_kernels() -> None:
    """Make every kernel ready; it takes ten seconds the first time on a machine, and then some tenths of one."""
    spec = Spec.read(EVERY_KERNEL)
    network = Network(spec, {name: np.ones(shape, np.float32) for name, shape in spec.tensor_shapes.items()})
    inputs = DenseInputs(np.ones((spec.time_steps, 1, *spec.input.shape), np.float32), spec.time_steps)
    chunk = Chunk(network, Plan.of(network), inputs, slice(0, 1), None, Record.RASTER | Record.MEMBRANE)
    chunk.run()
    Dense(chunk.plan.layouts[INPUT], 1, np.zeros((1, LANES), np.float32)).sparse().dense()
    nothing, none = np.empty(0, np.float32), np.empty(0, np.int64)
    run_part.call(np.zeros(1, NODE), np.zeros(1, RUN), 0, 0, 0, room_for_index(0), nothing, none, nothing, nothing)
    run_early.call(
        np.zeros(2, NODE), np.zeros(1, SIGNAL), np.zeros(1, RUN), 0, 0, none, 0.0, False, none, nothing, nothing, 0, 0,
        none, none, np.empty(0, np.uint8), nothing,
    )  # fmt: skip
    merged(np.zeros(2, np.int64), room_for_index(0), nothing, np.zeros((2, 1), np.int64))


def are_cached() -> bool:
    """Return whether every kernel has been compiled on this machine."""
    return all(kernel.is_cached for kernel in engine_kernels)


def load_kernels() -> None:
    """Make every kernel ready if the cache has them all; otherwise do nothing, since another process compiles them."""
    if are_cached():
        compile_kernels()
