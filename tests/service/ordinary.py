"""Models for requests that may be ordinary, and a tick that counts those that are."""

from typing import Any

import numpy as np

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.service.inference.ordinary.tick import Tick
from spikeserve.service.services import Services
from tests.networks import network_of, regression, task, toy


def image() -> Network:
    """Return a network of an image of 2 × 2 × 3, whose values are normalised and some of which are drawn as spikes."""
    return network_of(
        [
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": 12, "out_features": 3, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"fc.weight": np.eye(3, 12).tolist()},
        **task([2, 2, 3], 4, ["a", 'b"', "é"], low=-1, high=255, scale=0.25, out_of_range="clip"),
    )


def networks() -> dict[str, Network]:
    """Return a network of each kind of input and answer, by the name that it is published with."""
    return {
        "toy": toy(),
        "rate": toy(Coding.RATE),
        "late": toy(Coding.LATENCY, time_steps=5),
        "raster": toy(Coding.SPIKES),
        "values": regression(units=["rad", "m/s"]),
        "image": image(),
    }


class Counting(Tick):
    """A tick that counts how many requests it answers as a batch; while it is `held`, it answers none."""

    def __init__(self, services: Services) -> None:
        super().__init__(services.metrics, services.iteration, services.settings.max_queue, services.tracing)
        self.answered = self.batches = 0
        self.held = False

    def answer_all(self) -> None:
        if not self.held:
            super().answer_all()

    def _run(self, group: Any, batch: Any, end: int, began: float) -> None:
        self.answered += len(batch)
        self.batches += 1
        super()._run(group, batch, end, began)
