"""All metrics of one app."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics, generate_latest

from service.inference.schemas import ModelStatus
from service.telemetry.metrics.exposition import Labelled
from service.telemetry.metrics.models import ModelMetrics
from service.telemetry.metrics.queues import QueueMetrics
from service.telemetry.metrics.requests import RequestMetrics


class Metrics:
    """The metrics of one app, in a registry of its own.

    When they are asked for, `statuses` says what is served, and `ready` whether the server is.
    """

    def __init__(self, statuses: Callable[[], list[ModelStatus]], ready: Callable[[], bool]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of each series a second one, that says when it began
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.models = ModelMetrics(statuses)
        registry.register(self.models)
        self.requests = RequestMetrics(registry)
        self.queues = QueueMetrics(registry)
        is_ready = Gauge("spikeserve_ready", "1 where the server is ready for requests, else 0.", registry=registry)
        is_ready.set_function(ready)
        self.threads = Gauge("spikeserve_worker_threads", "Threads that requests run on.", registry=registry)
        about = "Those that run something, be it for a client that has left."
        self.busy_threads = Gauge("spikeserve_worker_threads_busy", about, registry=registry)

    def watch_threads(self, threads: int, busy: Callable[[], int]) -> None:
        """Tell of so many threads how many are `busy` when they are asked for."""
        self.threads.set(threads)
        self.busy_threads.set_function(busy)

    def exposition(self, labels: Mapping[str, str]) -> str:
        """Return every metric in Prometheus' text format, `labels` added to each."""
        self.queues.update({model["name"] for model in self.models.statuses()})
        return generate_latest(Labelled(self.registry, labels) if labels else self.registry).decode()
