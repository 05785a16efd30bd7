"""What Prometheus is told. Labels take their values from what is served, never from what a client sends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from service.served import Answer, ServedModel

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class OfModel:
    """The metrics of one model's version on its engine."""

    inference_seconds: Histogram
    samples: Counter
    spikes: Counter
    synaptic_operations: Counter


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
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
        self.samples = Counter("spikeserve_samples", "Samples classified.", model, registry=registry)
        self.spikes = Counter("spikeserve_spikes", "Spikes of all neurons.", model, registry=registry)
        self.synaptic_operations = Counter(
            "spikeserve_synaptic_operations", "Weights met by non-zero inputs.", model, registry=registry
        )

        # To find a metric by its labels takes longer than to count, and the labels are few.
        self.of_route = cache(self._of_route)
        self.of_model = cache(self._of_model)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the route's template."""
        requests, request_seconds = self.of_route(method if method in METHODS else OTHER, route, status)
        requests.inc()
        request_seconds.observe(seconds)

    def count_answer(self, model: ServedModel, answer: Answer) -> None:
        """Count what a model did for one request."""
        of_model = self.of_model(model.name, model.version, model.engine.name)
        of_model.inference_seconds.observe(answer.inference_seconds)
        of_model.samples.inc(answer.samples)
        of_model.spikes.inc(answer.spikes)
        of_model.synaptic_operations.inc(answer.synaptic_operations or 0)

    def _of_route(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, status), self.request_seconds.labels(route)

    def _of_model(self, name: str, version: int, engine: str) -> OfModel:
        return OfModel(
            self.inference_seconds.labels(name, version, engine),
            self.samples.labels(name, version),
            self.spikes.labels(name, version),
            self.synaptic_operations.labels(name, version),
        )

    def exposition(self) -> bytes:
        """Return every metric in Prometheus' text format."""
        return generate_latest(self.registry)
