"""What Prometheus is told. Labels take their values from what is served, never from what a client sends.

A request is counted on the event loop, and on no other thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.schemas import ModelStatus
from service.served import Answer, ServedModel

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHORT_SECONDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, *SECONDS)  # of what may take microseconds
OPERATIONS = tuple(10.0**power for power in range(2, 12))
MODEL = ("model", "version")

Statuses = Callable[[], list[ModelStatus]]


@dataclass
class Layer:
    """What the neurons of one layer did, as plain numbers: they become metrics when somebody asks."""

    neurons: int
    spikes: int = 0
    neuron_steps: int = 0


@dataclass(frozen=True)
class OfModel:
    """The metrics of one model's version on its engine."""

    encode_seconds: Histogram
    inference_seconds: Histogram
    request_operations: Histogram
    samples: Counter
    spikes: Counter
    layers: Mapping[str, Layer]


class Metrics:
    """The metrics of one app, in a registry of its own; `statuses` says what is served when they are asked for."""

    def __init__(self, statuses: Statuses) -> None:
        self.statuses = statuses
        self.models: dict[tuple[str, int, str], OfModel] = {}
        self.asked: set[tuple[str, int]] = set()  # the versions that requests were counted for
        self.in_flight = 0
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
        in_flight = Gauge(
            "spikeserve_http_requests_in_flight", "Requests that wait or are being answered.", registry=registry
        )
        in_flight.set_function(lambda: self.in_flight)
        self.model_requests = Counter(
            "spikeserve_model_requests", "Requests for a model, answered.", (*MODEL, "status"), registry=registry
        )
        self.model_request_seconds = Histogram(
            "spikeserve_model_request_seconds",
            "From the arrival of a request for a model to the end of its answer.",
            MODEL,
            buckets=SECONDS,
            registry=registry,
        )
        self.encode_seconds = Histogram(
            "spikeserve_encode_seconds",
            "What it takes to turn a request's samples into what the network sees.",
            MODEL,
            buckets=SHORT_SECONDS,
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "spikeserve_inference_seconds",
            "What the engine takes for one run.",
            (*MODEL, "engine"),
            buckets=SHORT_SECONDS,
            registry=registry,
        )
        self.request_operations = Histogram(
            "spikeserve_request_synaptic_operations",
            "Weights met by non-zero inputs, in one request.",
            MODEL,
            buckets=OPERATIONS,
            registry=registry,
        )
        self.samples = Counter("spikeserve_samples", "Samples classified.", MODEL, registry=registry)
        self.spikes = Counter("spikeserve_spikes", "Spikes of all neurons.", MODEL, registry=registry)
        registry.register(Served(statuses))
        registry.register(Layers(self.models))

        # To find a metric by its labels takes longer than to count, and the labels are few.
        self.of_route = cache(self._of_route)
        self.of_requests = cache(self._of_requests)

    def count_request(
        self, method: str, route: str, status: int, seconds: float, model: tuple[str, int] | None = None
    ) -> None:
        """Count an answered request; `route` is the route's template, `model` the name and version that it found."""
        requests, request_seconds = self.of_route(method if method in METHODS else OTHER, route, status)
        requests.inc()
        request_seconds.observe(seconds)
        if model is not None:
            requests, request_seconds = self.of_requests(*model, status)
            requests.inc()
            request_seconds.observe(seconds)

    def count_answer(self, model: ServedModel, answer: Answer) -> None:
        """Count what a model did for one request."""
        of_model = self.models.get((model.name, model.version, model.engine.name)) or self._of_model(model)
        of_model.encode_seconds.observe(answer.encode_seconds)
        of_model.inference_seconds.observe(answer.inference_seconds)
        of_model.request_operations.observe(answer.synaptic_operations)
        of_model.samples.inc(answer.samples)
        of_model.spikes.inc(sum(answer.spikes_per_layer.values()))
        steps = answer.samples * answer.time_steps
        for name, spikes in answer.spikes_per_layer.items():
            layer = of_model.layers[name]
            layer.spikes += spikes
            layer.neuron_steps += steps * layer.neurons

    def exposition(self) -> bytes:
        """Return every metric of what is served in Prometheus' text format."""
        self._forget_what_is_gone()
        return generate_latest(self.registry)

    def _of_route(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, status), self.request_seconds.labels(route)

    def _of_requests(self, name: str, version: int, status: int) -> tuple[Counter, Histogram]:
        self.asked.add((name, version))
        return self.model_requests.labels(name, version, status), self.model_request_seconds.labels(name, version)

    def _of_model(self, model: ServedModel) -> OfModel:
        name, version, engine = model.name, model.version, model.engine.name
        made = self.models[name, version, engine] = OfModel(
            self.encode_seconds.labels(name, version),
            self.inference_seconds.labels(name, version, engine),
            self.request_operations.labels(name, version),
            self.samples.labels(name, version),
            self.spikes.labels(name, version),
            {layer: Layer(neurons) for layer, neurons in model.layers.items()},
        )
        return made

    def _forget_what_is_gone(self) -> None:
        """Drop the metrics of versions that are served no more: versions come and go, and would add up for ever."""
        served = {(model["name"], each["version"]) for model in self.statuses() for each in model["versions"]}
        gone = self.asked - served
        for name, version in gone:
            for metric in (
                self.model_requests,
                self.model_request_seconds,
                self.encode_seconds,
                self.inference_seconds,
                self.request_operations,
                self.samples,
                self.spikes,
            ):
                metric.remove_by_labels({"model": name, "version": str(version)})
        if gone:
            self.asked -= gone
            self.of_requests.cache_clear()
            for key in [key for key in self.models if key[:2] in gone]:
                del self.models[key]


class Served(Collector):
    """Each version that is served, and where it stands."""

    def __init__(self, statuses: Statuses) -> None:
        self.statuses = statuses

    def collect(self) -> Iterator[Metric]:
        """Return 1 for each version, in its state."""
        versions = GaugeMetricFamily(
            "spikeserve_model_versions", "1 for each version of a model, in its state.", labels=(*MODEL, "state")
        )
        for model in self.statuses():
            for each in model["versions"]:
                versions.add_metric((model["name"], str(each["version"]), each["state"]), 1)
        yield versions


class Layers(Collector):
    """What the neurons of each layer did: the one metric divided by the other is the layer's firing rate."""

    def __init__(self, models: Mapping[tuple[str, int, str], OfModel]) -> None:
        self.models = models

    def collect(self) -> Iterator[Metric]:
        """Return the spikes of each layer, and the neuron steps that they could have been."""
        labels = (*MODEL, "layer")
        spikes = CounterMetricFamily("spikeserve_layer_spikes", "Spikes of a layer's neurons.", labels=labels)
        steps = CounterMetricFamily(
            "spikeserve_layer_neuron_steps",
            "Steps of a layer's neurons, in each of which one may spike.",
            labels=labels,
        )
        for (name, version, _), of_model in self.models.items():
            for layer, totals in of_model.layers.items():
                spikes.add_metric((name, str(version), layer), totals.spikes)
                steps.add_metric((name, str(version), layer), totals.neuron_steps)
        yield spikes
        yield steps
