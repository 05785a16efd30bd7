"""What Prometheus is told. Labels take their values from what is served, never from what a client sends."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from service.served import Answer, ServedModel

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the route's template."""
        self.requests.labels(method if method in METHODS else OTHER, route, status).inc()
        self.request_seconds.labels(route).observe(seconds)

    def count_answer(self, model: ServedModel, answer: Answer) -> None:
        """Count what a model did for one request."""
        labels = (model.name, str(model.version))
        self.inference_seconds.labels(*labels, model.engine.name).observe(answer.inference_seconds)
        self.samples.labels(*labels).inc(answer.samples)
        self.spikes.labels(*labels).inc(answer.spikes)
        self.synaptic_operations.labels(*labels).inc(answer.synaptic_operations)

    def exposition(self) -> bytes:
        """Return every metric in Prometheus' text format."""
        return generate_latest(self.registry)
