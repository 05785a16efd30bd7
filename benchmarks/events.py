"""What an event costs, from a client's lists to the answer: `python -m benchmarks.events`, as a raster and as events.

A camera's events go through a convolutional network, one sample at a time on one thread: checked and encoded, then run
by the `event` engine. `raster` makes the dense array of all steps first, `events` does not. The times are medians of
interleaved calls. The memory is what a fresh process grows by at most while it answers one sample, above what it had
with the model loaded and one step without events run.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.workloads import FLATTEN, conv, drawn, linear, pool, stack
from spikeserve.models.coding import Events, Inputs, encode, encode_events, rasterise
from spikeserve.models.engines.event import EventEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

CALLS = 15
STATUS = Path("/proc/self/status")
CLEAR_PEAK = Path("/proc/self/clear_refs"), "5"  # written there, it sets the peak to what there is now


@dataclass(frozen=True)
class Camera:
    """A camera of two polarities, and how many events it sends in so many steps."""

    side: int
    time_steps: int
    events: int

    @property
    def name(self) -> str:
        """Its shape, steps and events."""
        return f"2×{self.side}×{self.side}, {self.time_steps} steps, {self.events} events"

    def network(self) -> Network:
        """Return a network of two convolutions and one layer behind them, of which few neurons fire."""
        lif, left = {"type": "LIF", "decay": 0.9}, self.side // 2 // 2
        nodes = (
            *(conv(2, 8, 3, padding=1), lif, pool("Avg", 2)),
            *(conv(8, 16, 3, padding=1), lif, pool("Avg", 2), FLATTEN),
            *(linear(16 * left * left, 10), lif),
        )
        spec = stack({"shape": [2, self.side, self.side]}, nodes, self.time_steps, coding="spikes")
        return drawn(spec, 0, deviation=0.15)

    def sample(self, seed: int) -> Events:
        """Return events in order of time, at any place."""
        rng = np.random.default_rng(seed)
        t = np.sort(rng.integers(0, self.time_steps, self.events))
        return Events(t.tolist(), rng.integers(0, 2 * self.side**2, self.events).tolist())


CAMERAS = (Camera(34, 100, 4_000), Camera(34, 300, 4_000), Camera(128, 100, 30_000), Camera(128, 1000, 30_000))


def as_raster(sample: Events, spec: Spec) -> Inputs:
    """Encode a sample by its raster."""
    return encode(rasterise([sample], spec), spec)


def as_events(sample: Events, spec: Spec) -> Inputs:
    """Encode a sample as events."""
    return encode_events([sample], spec)


WAYS: dict[str, Callable[[Events, Spec], Inputs]] = {"raster": as_raster, "events": as_events}


def seconds(camera: Camera) -> dict[str, tuple[float, float]]:
    """Return the seconds that encoding and running one sample take, by the way."""
    engine, sample = EventEngine(camera.network()), camera.sample(1)
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    answers = []
    for _ in range(CALLS + 1):  # the first is not counted
        for way, make in WAYS.items():
            began = time.perf_counter()
            inputs = make(sample, engine.spec)
            encoded = time.perf_counter()
            result, _ = engine.run(inputs)
            taken[way].append((encoded - began, time.perf_counter() - encoded))
            answers.append(result.spike_counts)
            del inputs  # here, and not while the next are timed
    if any((answer != answers[0]).any() for answer in answers):
        raise AssertionError("raster and events give different counts")
    return {way: (median(e for e, _ in times[1:]), median(r for _, r in times[1:])) for way, times in taken.items()}


def peak_bytes(camera: Camera, way: str) -> int:
    """Return by how many bytes a fresh process grows at most while it answers one sample."""
    command = [sys.executable, "-m", "benchmarks.events", str(CAMERAS.index(camera)), way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def grown(camera: Camera, way: str) -> int:
    """Answer one sample and return by how many bytes this process grew at most meanwhile."""
    engine, sample = EventEngine(camera.network()), camera.sample(1)
    engine.run(encode_events([Events([], [])], engine.spec, 1))  # what any first run allocates
    ctypes.CDLL(None).malloc_trim(0)  # or what loading has freed would be used first, and not be counted
    path, text = CLEAR_PEAK
    path.write_text(text)
    before = _bytes("VmRSS")
    engine.run(WAYS[way](sample, engine.spec))
    return _bytes("VmHWM") - before


def _bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print the table, or the growth of one case where its number and way are given."""
    if len(sys.argv) > 1:
        print(grown(CAMERAS[int(sys.argv[1])], sys.argv[2]))
        return
    table = Table("camera", "way", "encoding, ns an event", "running, ns an event", "together", "memory, MB")
    for camera in CAMERAS:
        for way, (encoding, running) in seconds(camera).items():
            each = [1e9 * taken / camera.events for taken in (encoding, running, encoding + running)]
            table.add_row(camera.name, way, *(f"{ns:.0f}" for ns in each), f"{peak_bytes(camera, way) / 1e6:.1f}")
    console = Console(width=140)
    console.print(table)
    console.print(machine(["numpy", "numba"]))


if __name__ == "__main__":
    main()
