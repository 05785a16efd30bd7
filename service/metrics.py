"""What Prometheus is told. Labels take their values from what is served, never from what a client sends.

Requests are counted on the event loop, and on no other thread, so that what a model did is kept as plain numbers: they
become metrics when somebody asks, which costs a request a tenth of what it takes to count under a lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.jobs import Answer
from service.schemas import ModelStatus
from service.served import ServedModel

REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHORT_SECONDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, *SECONDS)  # of what may take microseconds
OPERATIONS = tuple(10.0**power for power in range(2, 12))
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL = ("model", "version")

Statuses = Callable[[], list[ModelStatus]]


class Distribution:
    """How often a value was at most each of some bounds: a histogram, in plain numbers."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with the count of values up to it, as Prometheus has them."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


@dataclass
class Asked:
    """The requests for one version of a model, by status, and how long they took."""

    statuses: Tally[int] = field(default_factory=Tally)
    seconds: Distribution = field(default_factory=lambda: Distribution(SECONDS))


@dataclass
class Layer:
    """What the neurons of one layer did."""

    neurons: int
    spikes: int = 0
    neuron_steps: int = 0


@dataclass
class Ran:
    """What one version of a model did on its engine."""

    neurons: dict[str, int]  # by layer, as the model has them
    layers: dict[str, Layer]
    samples: int = 0
    encode_seconds: Distribution = field(default_factory=lambda: Distribution(SHORT_SECONDS))
    inference_seconds: Distribution = field(default_factory=lambda: Distribution(SHORT_SECONDS))
    batch_samples: Distribution = field(default_factory=lambda: Distribution(SAMPLES))
    operations: Distribution = field(default_factory=lambda: Distribution(OPERATIONS))


@dataclass(frozen=True)
class OfQueue:
    """The metrics of the queues of one model's versions."""

    depth: Gauge
    seconds: Histogram
    shed: Counter
    abandoned: Counter
    expired: Counter


class Metrics:
    """The metrics of one app, in a registry of its own.

    When they are asked for, `statuses` says what is served, and `ready` whether the server is.
    """

    def __init__(self, statuses: Statuses, ready: Callable[[], bool]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of each series a second one, that says when it began
        self.statuses = statuses
        self.models = Models(statuses)
        self.in_flight = 0
        self.waiting = Tally[str]()  # requests, by model
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self.models)
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
        is_ready = Gauge("spikeserve_ready", "1 where the server is ready for requests, else 0.", registry=registry)
        is_ready.set_function(ready)
        self.threads = Gauge("spikeserve_worker_threads", "Threads that requests run on.", registry=registry)
        self.busy_threads = Gauge(
            "spikeserve_worker_threads_busy",
            "Those that run something, be it for a client that has left.",
            registry=registry,
        )
        self.refused = Counter(
            "spikeserve_connections_refused",
            "Connections ended for what is no request: headers that are malformed, too long or too slow.",
            ("status",),
            registry=registry,
        )
        for status in REFUSALS:
            self.refused.labels(int(status))  # there from the start, so that the first one is an increase
        in_flight = Gauge(
            "spikeserve_http_requests_in_flight", "Requests that wait or are being answered.", registry=registry
        )
        in_flight.set_function(lambda: self.in_flight)
        self.queue_depth = Gauge(
            "spikeserve_queue_depth",
            "Requests that wait for a worker.",
            ("model",),
            registry=registry,
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

        # To find a metric by its labels takes longer than to count, and the labels are few.
        self.of_route = cache(self._of_route)
        self.queues: dict[str, OfQueue] = {}  # by model

    def count_request(
        self, method: str, route: str, status: int, seconds: float, model: tuple[str, int] | None = None
    ) -> None:
        """Count an answered request; `route` is the route's template, `model` the name and version that it found."""
        requests, request_seconds = self.of_route(method if method in METHODS else OTHER, route, status)
        requests.inc()
        request_seconds.observe(seconds)
        if model is not None:
            asked = self.models.asked.get(model) or self.models.asked.setdefault(model, Asked())
            asked.statuses[status] += 1
            asked.seconds.observe(seconds)

    def watch_threads(self, threads: int, busy: Callable[[], int]) -> None:
        """Tell of so many threads how many are `busy` when they are asked for."""
        self.threads.set(threads)
        self.busy_threads.set_function(busy)

    def count_refused(self, status: int) -> None:
        """Count a connection that was ended before there was a request, with such an answer."""
        self.refused.labels(int(status)).inc()

    def count_run(self, model: ServedModel, samples: int, seconds: float) -> None:
        """Count one run of a model's engine."""
        ran = self.models.of(model)
        ran.inference_seconds.observe(seconds)
        ran.batch_samples.observe(samples)

    def queue_changed(self, model: ServedModel, by: int) -> None:
        """Note that so many requests more, or fewer, wait for a worker."""
        self.waiting[model.name] += by

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
        ran = self.models.of(model)
        ran.samples += answer.samples
        ran.encode_seconds.observe(answer.times.encode_seconds)
        if answer.synaptic_operations is not None:
            ran.operations.observe(answer.synaptic_operations)
        steps = answer.samples * answer.time_steps
        for name, spikes in answer.spikes_per_layer.items():
            layer = ran.layers[name]
            layer.spikes += spikes
            layer.neuron_steps += steps * layer.neurons

    def exposition(self, labels: Mapping[str, str]) -> str:
        """Return every metric in Prometheus' text format, `labels` added to each."""
        self._look_at_queues()
        return generate_latest(Labelled(self.registry, labels) if labels else self.registry).decode()

    def _look_at_queues(self) -> None:
        """Have the metrics of each served model's queue, be it empty, and of no other that nothing waits for.

        An autoscaler needs to see a 0, and an alert what rises from it; yet models come and go, and would add up.
        """
        served = {model["name"] for model in self.statuses()}
        self.waiting = +self.waiting  # the positive ones
        there = served | self.waiting.keys()
        for name in self.queues.keys() - there:  # what happened to its last requests may have come after it had gone
            del self.queues[name]
            for metric in (self.queue_depth, self.queue_seconds, self.shed, self.abandoned, self.expired):
                metric.remove(name)
        for name in there:
            self.of_queue(name).depth.set(self.waiting[name])

    def of_queue(self, name: str) -> OfQueue:
        """Return the metrics of a model's queue, and make them where there are none."""
        return self.queues.get(name) or self.queues.setdefault(name, self._of_queue(name))

    def _of_route(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, status), self.request_seconds.labels(route)

    def _of_queue(self, name: str) -> OfQueue:
        return OfQueue(
            self.queue_depth.labels(name),
            self.queue_seconds.labels(name),
            self.shed.labels(name),
            self.abandoned.labels(name),
            self.expired.labels(name),
        )


class Models(Collector):
    """The versions that are served, where each stands, what was asked of it and what it did."""

    def __init__(self, statuses: Statuses) -> None:
        self.statuses = statuses
        self.asked: dict[tuple[str, int], Asked] = {}
        self.ran: dict[tuple[str, int, str], Ran] = {}

    def of(self, model: ServedModel) -> Ran:
        """Return where to count what a model does."""
        key = (model.name, model.version, model.engine.name)
        ran = self.ran.get(key)
        if ran is None or ran.neurons != model.layers:  # a version that was loaded again may be another network
            layers = {name: Layer(neurons) for name, neurons in model.layers.items()}
            ran = self.ran[key] = Ran(dict(model.layers), layers)
        return ran

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry would otherwise collect once before there is anything to serve."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the versions that are served; what is served no more is forgotten."""
        statuses = self.statuses()
        self._forget_all_but({(model["name"], each["version"]) for model in statuses for each in model["versions"]})
        yield from self._versions(statuses)
        yield from self._requests()
        yield from self._runs()
        yield from self._layers()

    def _forget_all_but(self, served: set[tuple[str, int]]) -> None:
        """Versions come and go, and would add up for ever."""
        for asked in self.asked.keys() - served:
            del self.asked[asked]
        for ran in [key for key in self.ran if key[:2] not in served]:
            del self.ran[ran]

    def _versions(self, statuses: list[ModelStatus]) -> Iterator[Metric]:
        versions = GaugeMetricFamily(
            "spikeserve_model_versions", "1 for each version of a model, in its state.", labels=(*MODEL, "state")
        )
        loads = GaugeMetricFamily(
            "spikeserve_model_load_failed",
            "1 for each version whose last load failed, though it may answer as it was before, else 0.",
            labels=MODEL,
        )
        for model in statuses:
            for each in model["versions"]:
                versions.add_metric((model["name"], str(each["version"]), each["state"]), 1)
                loads.add_metric((model["name"], str(each["version"])), float("error" in each))
        yield versions
        yield loads

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "spikeserve_model_requests", "Requests for a model, answered.", labels=(*MODEL, "status")
        )
        seconds = HistogramMetricFamily(
            "spikeserve_model_request_seconds",
            "From the arrival of a request for a model to the end of its answer.",
            labels=MODEL,
        )
        for (name, version), asked in self.asked.items():
            seconds.add_metric((name, str(version)), asked.seconds.buckets(), asked.seconds.sum)
            for status, count in asked.statuses.items():
                requests.add_metric((name, str(version), str(status)), count)
        yield requests
        yield seconds

    def _runs(self) -> Iterator[Metric]:
        encode = HistogramMetricFamily(
            "spikeserve_encode_seconds",
            "What it takes to turn a request's samples into what the network sees.",
            labels=MODEL,
        )
        inference = HistogramMetricFamily(
            "spikeserve_inference_seconds", "What the engine takes for one run.", labels=(*MODEL, "engine")
        )
        batches = HistogramMetricFamily(
            "spikeserve_batch_samples", "Samples that went through the engine in one run.", labels=MODEL
        )
        operations = HistogramMetricFamily(
            "spikeserve_request_synaptic_operations", "Weights met by non-zero inputs, in one request.", labels=MODEL
        )
        samples = CounterMetricFamily("spikeserve_samples", "Samples classified.", labels=MODEL)
        for (name, version, engine), ran in self.ran.items():
            model = (name, str(version))
            encode.add_metric(model, ran.encode_seconds.buckets(), ran.encode_seconds.sum)
            inference.add_metric((*model, engine), ran.inference_seconds.buckets(), ran.inference_seconds.sum)
            batches.add_metric(model, ran.batch_samples.buckets(), ran.batch_samples.sum)
            operations.add_metric(model, ran.operations.buckets(), ran.operations.sum)
            samples.add_metric(model, ran.samples)
        yield from (encode, inference, batches, operations, samples)

    def _layers(self) -> Iterator[Metric]:
        """Return what gives a layer's firing rate: its spikes, by the neuron steps that could have been some."""
        labels = (*MODEL, "layer")
        spikes = CounterMetricFamily("spikeserve_layer_spikes", "Spikes of a layer's neurons.", labels=labels)
        steps = CounterMetricFamily(
            "spikeserve_layer_neuron_steps",
            "Steps of a layer's neurons, in each of which one may spike.",
            labels=labels,
        )
        for (name, version, _), ran in self.ran.items():
            for layer, did in ran.layers.items():
                spikes.add_metric((name, str(version), layer), did.spikes)
                steps.add_metric((name, str(version), layer), did.neuron_steps)
        yield spikes
        yield steps


class Labelled(CollectorRegistry):
    """What another registry tells, with more labels."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.registry = registry
        self.labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are made anew each time, with the labels."""
        for metric in self.registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self.labels}) for sample in metric.samples]
            yield metric


def merged(texts: Sequence[str]) -> str:
    """Return metrics in Prometheus' text format, of several workers, as one: a family and what is said of it once."""
    if len(texts) == 1:
        return texts[0]
    families: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        # A line begins so where a family does, and nowhere else: in names, labels and help a new line is escaped.
        for family in f"\n{text}".split("\n# HELP ")[1:]:
            about, kind, *samples = family.rstrip("\n").split("\n")
            families.setdefault((about, kind), []).extend(samples)
    return "".join("\n".join((f"# HELP {about}", kind, *samples, "")) for (about, kind), samples in families.items())
