"""The networks whose sessions are measured, and the events that they are sent.

Both are convolutional, with random dyadic weights: one for the shape of N-MNIST, one for that of DVS-Gesture. A step,
and a window, are 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.workloads import FLATTEN, Node, conv, drawn, linear, pool, stack
from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.spec.network import Network
from tests.bundles import publish

WINDOW_US = 10_000
CLASSES = 10
LIF: Node = {"type": "LIF", "decay": 0.75}


@dataclass(frozen=True)
class Streamed:
    """A network of events from a camera of `side` by `side` pixels; `stride` is that of its first convolution."""

    name: str
    side: int
    channels: tuple[int, int]
    stride: int

    @property
    def network(self) -> Network:
        """Two convolutions, each with a pool behind it, and a layer of classes; all neurons LIF of decay 0.75."""
        first, second = self.channels
        size = self.side
        for kernel, stride in ((3, self.stride), (2, 2), (3, 1), (2, 2)):
            size = (size - kernel) // stride + 1
        nodes = (
            *(conv(2, first, 3, self.stride), LIF, pool("Sum", 2)),
            *(conv(first, second, 3), LIF, pool("Sum", 2), FLATTEN),
            *(linear(second * size**2, CLASSES), LIF),
        )
        sensor = [self.side, self.side]
        given = {"shape": [2, *sensor], "events": {"step_us": WINDOW_US, "sensor": sensor}}
        return drawn(stack(given, nodes, 30, coding="spikes"), self.side, deviation=0.2)

    def publish(self, repository: Path) -> None:
        """Write the bundle."""
        publish(repository, self.network, self.name)

    def events(self, windows: int, per_window: int, seed: int = 0) -> Records:
        """Return a stream of so many windows: a blob that moves over the sensor, with noise around it."""
        rng = np.random.default_rng(seed)
        count = windows * per_window
        t = np.sort(rng.integers(0, windows * WINDOW_US, count))
        t[0] = 0
        middle = self.side / 2 + self.side / 4 * np.stack([np.sin(t / 60_000), np.cos(t / 60_000)])
        places = np.where(
            rng.random(count) < 0.8,
            middle + rng.normal(0, self.side / 12, (2, count)),
            rng.random((2, count)) * self.side,
        )
        x, y = places.astype(np.int64).clip(0, self.side - 1)
        return make_records(t, x, y, rng.integers(0, 2, count))


NETWORKS = (Streamed("nmnist-shape", 34, (12, 32), 1), Streamed("gesture-shape", 128, (8, 16), 2))
