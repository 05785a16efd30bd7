"""The metrics of each model's queue: waiting requests, and those that were shed, abandoned or expired."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from spikeserve.service.telemetry.metrics.distribution import SECONDS
from spikeserve.service.telemetry.record import Model

MODEL = ("model",)
Counts: TypeAlias = collections.Counter[str]


@dataclass(frozen=True)
class ModelQueueMetrics:
    """The metrics of one model's queues, kept because looking them up by label takes longer than counting."""

    depth: Gauge
    seconds: Histogram
    shed: Counter
    abandoned: Counter
    expired: Counter


class QueueMetrics:
    """The metrics of all models' queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, labelnames=MODEL, registry=registry)
        self.depth = Gauge("spikeserve_queue_depth", "Requests that wait for a worker.", MODEL, registry=registry)
        about = "What the requests that had to wait for a worker waited."
        self.seconds = Histogram("spikeserve_queue_seconds", about, MODEL, buckets=SECONDS, registry=registry)
        self.shed = counter("spikeserve_requests_shed", "Requests refused since the queue was full.")
        self.abandoned = counter("spikeserve_requests_abandoned", "Requests whose client left before the answer.")
        self.expired = counter("spikeserve_requests_expired", "Requests that had no time left.")
        self.by_model: dict[str, ModelQueueMetrics] = {}
        self.depths: Callable[[], Counts] = Counts  # returns how many requests wait, by model

    def watch(self, depths: Callable[[], Counts]) -> None:
        """Export what `depths` returns: how many requests wait for each model; one that is missing has none."""
        self.depths = depths

    def count_wait(self, model: Model, seconds: float) -> None:
        """Count a request that has waited."""
        self._metrics_of(model.name).seconds.observe(seconds)

    def count_shed(self, model: Model) -> None:
        """Count a request that found the queue full."""
        self._metrics_of(model.name).shed.inc()

    def count_abandoned(self, model: Model) -> None:
        """Count a request whose client left."""
        self._metrics_of(model.name).abandoned.inc()

    def count_expired(self, model: Model) -> None:
        """Count a request whose deadline passed before its answer."""
        self._metrics_of(model.name).expired.inc()

    def update(self, models: set[str]) -> None:
        """Export the queue of each of `models`, even an empty one, and of each other model that has requests waiting.

        An autoscaler needs to see a 0, and an alert an increase from 0. The metrics of other models are dropped, since
        they would add up as models come and go.
        """
        depths = +self.depths()  # only the positive ones
        exported = models | depths.keys()
        for name in self.by_model.keys() - exported:  # dropped here, since its last requests may end after its unload
            del self.by_model[name]
            for metric in (self.depth, self.seconds, self.shed, self.abandoned, self.expired):
                metric.remove(name)
        for name in exported:
            self._metrics_of(name).depth.set(depths[name])

    def _metrics_of(self, name: str) -> ModelQueueMetrics:
        """Return the metrics of a model's queue, made when they are missing."""
        return self.by_model.get(name) or self.by_model.setdefault(name, self._label(name))

    def _label(self, name: str) -> ModelQueueMetrics:
        return ModelQueueMetrics(
            self.depth.labels(name),
            self.seconds.labels(name),
            self.shed.labels(name),
            self.abandoned.labels(name),
            self.expired.labels(name),
        )
