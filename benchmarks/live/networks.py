"""The networks whose sessions are measured, and the events that they are sent.

Both are convolutional, with random dyadic weights: one for the shape of N-MNIST, one for that of DVS-Gesture. A step,
and a window, are 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from tests.bundles import publish

WINDOW_US = 10_000
CLASSES = 10


@dataclass(frozen=True)
class Streamed:
    """A network of events from a camera of `side` by `side` pixels; `first` is the stride of its first convolution."""

    name: str
    side: int
    channels: tuple[int, int]
    stride: int

    @property
    def network(self) -> Network:
        """Two convolutions, each with a pool behind it, and a layer of classes; all neurons LIF of decay 0.75."""
        rng = np.random.default_rng(self.side)
        first, second = self.channels
        sizes = [self.side]
        for kernel, stride in ((3, self.stride), (2, 2), (3, 1), (2, 2)):
            sizes.append((sizes[-1] - kernel) // stride + 1)
        flat = second * sizes[-1] ** 2
        nodes = [
            {
                "type": "Conv2d",
                "name": "conv1",
                "in_channels": 2,
                "out_channels": first,
                "kernel_size": 3,
                "stride": self.stride,
                "bias": False,
            },
            {"type": "LIF", "name": "lif1", "decay": 0.75},
            {"type": "SumPool2d", "name": "pool1", "kernel_size": 2},
            {
                "type": "Conv2d",
                "name": "conv2",
                "in_channels": first,
                "out_channels": second,
                "kernel_size": 3,
                "bias": False,
            },
            {"type": "LIF", "name": "lif2", "decay": 0.75},
            {"type": "SumPool2d", "name": "pool2", "kernel_size": 2},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": flat, "out_features": CLASSES, "bias": False},
            {"type": "LIF", "name": "classes", "decay": 0.75},
        ]
        shapes = {"conv1": (first, 2, 3, 3), "conv2": (second, first, 3, 3), "fc": (CLASSES, flat)}
        tensors = {
            f"{name}.weight": (rng.normal(0.0, 0.2, shape) * 64).round().astype(np.float32) / np.float32(64)
            for name, shape in shapes.items()
        }
        spec = {
            "input": {
                "shape": [2, self.side, self.side],
                "events": {"step_us": WINDOW_US, "sensor": [self.side, self.side]},
            },
            "coding": "spikes",
            "time_steps": 30,
            "labels": [str(each) for each in range(CLASSES)],
            "nodes": nodes,
        }
        return Network(Spec.read(spec), tensors)

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
