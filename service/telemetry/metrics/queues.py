"""The metrics of each model's queue: waiting requests, and those that were shed, abandoned or expired."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TypeAlias

from spikeserve.service.telemetry.metrics.families import Families
from spikeserve.service.telemetry.record import Model

MODEL = "model"
Counts: TypeAlias = collections.Counter[str]


class QueueMetrics(Families):
    """The metrics of all models' queues."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.gauge("queue_depth", "Requests that wait for a worker.", MODEL)
        about = "What the requests that had to wait for a worker waited."
        self.seconds = self.histogram("queue_seconds", about, MODEL)
        self.shed = self.counter("requests_shed", "Requests refused since the queue was full.", MODEL)
        self.abandoned = self.counter("requests_abandoned", "Requests whose client left before the answer.", MODEL)
        self.expired = self.counter("requests_expired", "Requests that had no time left.", MODEL)
        self.depths: Callable[[], Counts] = Counts  # returns how many requests wait, by model

    def watch(self, depths: Callable[[], Counts]) -> None:
        """Export what `depths` returns: how many requests wait for each model; one that is missing has none."""
        self.depths = depths

    def count_wait(self, model: Model, seconds: float) -> None:
        """Count a request that has waited."""
        self.seconds.of(model.name).observe(seconds)

    def count_shed(self, model: Model) -> None:
        """Count a request that found the queue full."""
        self.shed.of(model.name).inc()

    def count_abandoned(self, model: Model) -> None:
        """Count a request whose client left."""
        self.abandoned.of(model.name).inc()

    def count_expired(self, model: Model) -> None:
        """Count a request whose deadline passed before its answer."""
        self.expired.of(model.name).inc()

    def update(self, models: set[str]) -> None:
        """Export the queue of each of `models`, even an empty one, and of each other model that has requests waiting.

        An autoscaler needs to see a 0, and an alert an increase from 0.
        """
        depths = +self.depths()  # only the positive ones
        exported = models | depths.keys()
        self.keep({(name,) for name in exported})
        for name in exported:
            for family in self.families:
                family.of(name)
            self.depth.of(name).set(depths[name])
