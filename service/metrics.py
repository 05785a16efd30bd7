"""What Prometheus is told. Labels take their values from what is served, never from what a client sends."""

from __future__ import annotations

import os
import weakref
from collections import Counter as Counted
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.jobs import Answer
from service.served import ServedModel

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class OfModel:
    """The metrics of one model's version on its engine."""

    inference_seconds: Histogram
    batch_samples: Histogram
    samples: Counter
    spikes: Counter
    synaptic_operations: Counter


@dataclass(frozen=True)
class OfQueue:
    """The metrics of the queues of one model's versions."""

    depth: Gauge
    seconds: Histogram
    shed: Counter
    abandoned: Counter
    expired: Counter


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR") is not None  # with the other workers of this server
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "spikeserve_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "spikeserve_http_request_seconds",
            "From a request's arrival to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        model = ("model", "version")
        self.inference_seconds = Histogram(
            "spikeserve_inference_seconds",
            "What the engine takes for one run.",
            (*model, "engine"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_samples = Histogram(
            "spikeserve_batch_samples",
            "Samples that went through the engine in one run.",
            model,
            buckets=SAMPLES,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "spikeserve_queue_depth",
            "Requests that wait for a worker.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_seconds = Histogram(
            "spikeserve_queue_seconds",
            "What the requests that had to wait for a worker waited.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "spikeserve_requests_shed", "Requests refused since the queue was full.", ("model",), registry=registry
        )
        self.abandoned = Counter(
            "spikeserve_requests_abandoned",
            "Requests whose client left before the answer.",
            ("model",),
            registry=registry,
        )
        self.expired = Counter(
            "spikeserve_requests_expired", "Requests that had no time left.", ("model",), registry=registry
        )
        self.samples = Counter("spikeserve_samples", "Samples classified.", model, registry=registry)
        self.spikes = Counter("spikeserve_spikes", "Spikes of all neurons.", model, registry=registry)
        self.synaptic_operations = Counter(
            "spikeserve_synaptic_operations", "Weights met by non-zero inputs.", model, registry=registry
        )

        self.alive: Counted[tuple[str, int]] = Counted()  # the models that requests may still count for

        # To find a metric by its labels takes longer than to count, and the labels are few.
        self.of_route = cache(self._of_route)
        self.of_model = cache(self._of_model)
        self.of_queue = cache(self._of_queue)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the route's template."""
        requests, request_seconds = self.of_route(method if method in METHODS else OTHER, route, status)
        requests.inc()
        request_seconds.observe(seconds)

    def count_run(self, model: ServedModel, samples: int, seconds: float) -> None:
        """Count one run of a model's engine."""
        of_model = self.of_model(model.name, model.version, model.engine.name)
        of_model.inference_seconds.observe(seconds)
        of_model.batch_samples.observe(samples)

    def queue_changed(self, model: ServedModel, by: int) -> None:
        """Note that so many requests more, or fewer, wait for a worker."""
        self.of_queue(model.name).depth.inc(by)

    def count_wait(self, model: ServedModel, seconds: float) -> None:
        """Count a request that has waited."""
        self.of_queue(model.name).seconds.observe(seconds)

    def count_shed(self, model: ServedModel) -> None:
        """Count a request that found the queue full."""
        self.of_queue(model.name).shed.inc()

    def count_abandoned(self, model: ServedModel) -> None:
        """Count a request whose client left."""
        self.of_queue(model.name).abandoned.inc()

    def count_expired(self, model: ServedModel) -> None:
        """Count a request whose time was over before its answer."""
        self.of_queue(model.name).expired.inc()

    def count_answer(self, model: ServedModel, answer: Answer[Any]) -> None:
        """Count what a model did for one request."""
        of_model = self.of_model(model.name, model.version, model.engine.name)
        of_model.samples.inc(answer.samples)
        of_model.spikes.inc(answer.spikes)
        of_model.synaptic_operations.inc(answer.synaptic_operations)

    def _of_route(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, status), self.request_seconds.labels(route)

    def _of_model(self, name: str, version: int, engine: str) -> OfModel:
        return OfModel(
            self.inference_seconds.labels(name, version, engine),
            self.batch_samples.labels(name, version),
            self.samples.labels(name, version),
            self.spikes.labels(name, version),
            self.synaptic_operations.labels(name, version),
        )

    def watch(self, model: ServedModel) -> None:
        """Drop the series of a model's version once no model of it is left, so that reloads do not add up."""
        if self.shared:
            return  # files that several processes count in cannot forget
        version = (model.name, model.version)
        self.alive[version] += 1
        weakref.finalize(model, self._forget, version, model.engine.name).atexit = False

    def _forget(self, version: tuple[str, int], engine: str) -> None:
        self.alive[version] -= 1
        if self.alive[version] > 0:
            return
        del self.alive[version]
        self.of_model.cache_clear()
        self.inference_seconds.remove(*version, engine)
        for of_version in (self.batch_samples, self.samples, self.spikes, self.synaptic_operations):
            of_version.remove(*version)

    def _of_queue(self, name: str) -> OfQueue:
        return OfQueue(
            self.queue_depth.labels(name),
            self.queue_seconds.labels(name),
            self.shed.labels(name),
            self.abandoned.labels(name),
            self.expired.labels(name),
        )

    def exposition(self) -> bytes:
        """Return every metric in Prometheus' text format: of all workers together, but then none of the process."""
        registry = self.registry
        if self.shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
