"""What is counted of the requests that wait for a worker, by model, and of those that waited in vain."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.telemetry.metrics.distribution import SECONDS
from service.telemetry.record import Model

MODEL = ("model",)


@dataclass(frozen=True)
class ModelQueueMetrics:
    """The metrics of the queues of one model's versions: to find them by their label takes longer than to count."""

    depth: Gauge
    seconds: Histogram
    shed: Counter
    abandoned: Counter
    expired: Counter


class QueueMetrics:
    """The queues of all models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, labelnames=MODEL, registry=registry)
        self.depth = Gauge("spikeserve_queue_depth", "Requests that wait for a worker.", MODEL, registry=registry)
        about = "What the requests that had to wait for a worker waited."
        self.seconds = Histogram("spikeserve_queue_seconds", about, MODEL, buckets=SECONDS, registry=registry)
        self.shed = counter("spikeserve_requests_shed", "Requests refused since the queue was full.")
        self.abandoned = counter("spikeserve_requests_abandoned", "Requests whose client left before the answer.")
        self.expired = counter("spikeserve_requests_expired", "Requests that had no time left.")
        self.by_model: dict[str, ModelQueueMetrics] = {}
        self.waiting = collections.Counter[str]()  # requests, by model

    def depth_changed(self, model: Model, by: int) -> None:
        """Note that so many requests more, or fewer, wait for a worker."""
        self.waiting[model.name] += by

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
        """Count a request whose time was over before its answer."""
        self._metrics_of(model.name).expired.inc()

    def update(self, served: set[str]) -> None:
        """Have the metrics of each served model's queue, be it empty, and of no other that nothing waits for.

        An autoscaler needs to see a 0, and an alert what rises from it; yet models come and go, and would add up.
        """
        self.waiting = +self.waiting  # the positive ones
        there = served | self.waiting.keys()
        for name in self.by_model.keys() - there:  # what happened to its last requests may have come after it had gone
            del self.by_model[name]
            for metric in (self.depth, self.seconds, self.shed, self.abandoned, self.expired):
                metric.remove(name)
        for name in there:
            self._metrics_of(name).depth.set(self.waiting[name])

    def _metrics_of(self, name: str) -> ModelQueueMetrics:
        """Return the metrics of a model's queue, and make them where there are none."""
        return self.by_model.get(name) or self.by_model.setdefault(name, self._label(name))

    def _label(self, name: str) -> ModelQueueMetrics:
        return ModelQueueMetrics(
            self.depth.labels(name),
            self.seconds.labels(name),
            self.shed.labels(name),
            self.abandoned.labels(name),
            self.expired.labels(name),
        )
