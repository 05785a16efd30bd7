"""Where reading every weight beats picking some: `python -m benchmarks.crossover`, for the event engine's `BUSY`.

One layer, 784 to 1000 LIF neurons over 25 steps, one sample, one thread: the time of a call both ways at each activity,
as medians of interleaved calls.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.workloads import drawn, linear, stack
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event import EventEngine, connections
from spikeserve.models.spec.network import Network

STEPS, UNITS, NEURONS = 25, 784, 1000
ACTIVITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
CALLS = 60
READ_ALL, PICK = 0.0, 1.0  # as the share above which all are read


def layer() -> Network:
    """Return the layer, of which a few percent fire."""
    nodes = (linear(UNITS, NEURONS), {"type": "LIF", "decay": 0.9})
    return drawn(stack({"shape": [UNITS]}, nodes, STEPS, coding="spikes"), 0, deviation=0.03)


def main() -> None:
    """Print both times and their ratio at each activity."""
    engines = {}
    for busy in (READ_ALL, PICK):
        connections.BUSY = busy
        engines[busy] = EventEngine(layer())
    table = Table("activity", "read all, µs", "pick, µs", "ratio")
    for activity in ACTIVITIES:
        raster = (np.random.default_rng(1).random((STEPS, 1, UNITS)) < activity).astype(np.float32)
        inputs = DenseInputs(raster, STEPS)
        times: dict[float, list[float]] = {READ_ALL: [], PICK: []}
        for _ in range(CALLS):
            for busy, taken in times.items():
                began = time.perf_counter()
                engines[busy].run(inputs)
                taken.append(time.perf_counter() - began)
        read, pick = (1e6 * median(taken) for taken in times.values())
        table.add_row(f"{activity:.0%}", f"{read:.0f}", f"{pick:.0f}", f"{read / pick:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
