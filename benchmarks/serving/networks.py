"""The networks that are served, with one request for each.

Their weights are seeded and on a dyadic grid, so that every sum is exact in any order and all contestants must agree.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spikeserve.models.bundle import Contents, GoldenSamples
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.plugins.onnx import target
from spikeserve.training.fit.exact import round_to_grid

TIME_STEPS = 25
DECAY = 0.9
CLASSES = 10


@dataclass(frozen=True)
class Served:
    """Two fully connected LIF layers, `hidden` neurons and ten, on an image of side × side pixels of 0 to `high`."""

    side: int
    high: int
    hidden: int

    @property
    def inputs(self) -> int:
        """The number of pixels."""
        return self.side**2

    @property
    def title(self) -> str:
        """Its sizes, as tables show them."""
        return f"{self.inputs}-{self.hidden}-{CLASSES}"

    @property
    def name(self) -> str:
        """Its name as a model."""
        return f"mlp-{self.title}"

    @property
    def network(self) -> Network:
        """Its spec and weights; on `image`, an eighth of the hidden neurons fires at a step."""
        spec = Spec.read(
            {
                # Values of 0 to 1 or less, by a power of two, so that they stay on the grid.
                "input": {"shape": [self.inputs], "high": self.high, "scale": 2.0 ** -math.ceil(math.log2(self.high))},
                "time_steps": TIME_STEPS,
                "nodes": [
                    {"type": "Linear", "name": "fc1", "in_features": self.inputs, "out_features": self.hidden},
                    {"type": "LIF", "name": "lif1", "decay": DECAY},
                    {"type": "Linear", "name": "fc2", "in_features": self.hidden, "out_features": CLASSES},
                    {"type": "LIF", "name": "lif2", "decay": DECAY},
                ],
                "labels": [str(label) for label in range(CLASSES)],
            }
        )
        rng = np.random.default_rng(self.hidden)
        fan_in = {"fc1": self.inputs, "fc2": self.hidden}
        tensors = {
            name: rng.normal(0, 1 / math.sqrt(fan_in[name.partition(".")[0]]), shape).astype(np.float32)
            for name, shape in spec.tensor_shapes.items()
        }
        rounded = round_to_grid(Network(spec, tensors))
        if not rounded.exact:
            raise RuntimeError(f"{self.name}: its sums are not exact, and contestants might not agree")
        return rounded.network

    @property
    def image(self) -> FloatArray:
        """A ring, as a handwritten 0 is, (1, inputs) whole numbers; four of five pixels of the larger one are 0."""
        row, column = np.mgrid[: self.side, : self.side] - (self.side - 1) / 2
        radius = np.hypot(row, column) / self.side
        ring: FloatArray = np.round(self.high * np.exp(-(((radius - 0.28) / 0.07) ** 2))).astype(np.float32)
        return ring.reshape(1, -1)

    @property
    def body(self) -> bytes:
        """The request, one sample."""
        return json.dumps({"inputs": self.image.astype(int).tolist()}).encode()

    def publish(self, root: Path) -> list[int]:
        """Publish it to the repository `root` and return the spike counts that answer `body`."""
        network = self.network
        inputs = encode(self.image, network.spec)
        result, _ = ReferenceEngine(network).run(inputs)
        golden = GoldenSamples(inputs, result.spike_counts, result.readout)
        card = f"# {self.name}\n\nRandom weights, to measure speed.\n"
        onnx_model = partial(target.write, network, self.name)
        ModelRepository(root).publish(Contents(self.name, network, golden, {}, card, None, onnx_model))
        return [int(count) for count in result.spike_counts[0]]


NETWORKS = (Served(side=8, high=16, hidden=32), Served(side=28, high=255, hidden=1000))
