"""Prometheus metrics of one app, and those of several workers merged into one text.

Label values come from the models and routes, never from what a client sends.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.requests import ClientDisconnect

from spikeserve.service.errors import DeadlineExceeded
from spikeserve.service.telemetry.metrics.families import Families
from spikeserve.service.telemetry.metrics.models import ModelMetrics
from spikeserve.service.telemetry.record import BatchRecord, Endpoint, Version

MAX_UNSETTLED = 256  # requests that wait to be counted: counting them takes half a millisecond


class Scrape(CollectorRegistry):
    """The metrics of some collectors, with more labels."""

    def __init__(self, collectors: Sequence[Families | ProcessCollector], labels: Mapping[str, str]) -> None:
        super().__init__()
        self.collectors = collectors
        self.labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are new objects on each call, with the labels added."""
        for collector in self.collectors:
            for metric in collector.collect():
                metric.samples = [each._replace(labels={**each.labels, **self.labels}) for each in metric.samples]
                yield metric


def merged(texts: Sequence[str]) -> str:
    """Merge several workers' metrics in Prometheus' text format; each family and its help appear once."""
    if len(texts) == 1:
        return texts[0]
    families: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        # Only a family's first line begins with "# HELP": line breaks in names, labels and help are escaped.
        for family in f"\n{text}".split("\n# HELP ")[1:]:
            about, kind, *samples = family.rstrip("\n").split("\n")
            families.setdefault((about, kind), []).extend(samples)
    return "".join("\n".join((f"# HELP {about}", kind, *samples, "")) for (about, kind), samples in families.items())


REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"


class RequestMetrics(Families):
    """The requests by method, route and status, those in flight, and the connections refused."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = self.counter("http_requests", "Requests answered.", "method", "route", "status")
        about = "From a request's arrival to the end of its answer."
        self.seconds = self.histogram("http_request_seconds", about, "route")
        about = "Connections ended for what is no request: headers that are malformed, too long or too slow."
        self.refused = self.counter("connections_refused", about, "status")
        for status in REFUSALS:
            self.refused.of(int(status))  # exported as 0 from the start, so that the first refusal is an increase
        self.in_flight = 0
        about = "Requests that wait or are being answered."
        self.gauge("http_requests_in_flight", about).of().function = lambda: self.in_flight

    def count_requests(self, method: str, route: str, status: int, seconds: Collection[float]) -> None:
        """Count answered requests by the seconds that each took; `route` is the route's template."""
        self.answered.of(method if method in METHODS else OTHER, route, status).inc(len(seconds))
        self.seconds.of(route).observe_all(seconds)

    def count_refused(self, status: int) -> None:
        """Count a connection that was refused with `status` before there was a request."""
        self.refused.of(int(status)).inc()


MODEL = "model"
Counts: TypeAlias = collections.Counter[str]


class OfModels(Families):
    """Metrics of each model, by its name, with a gauge of how many of something it has."""

    def __init__(self, gauge: str, about: str) -> None:
        super().__init__()
        self.number = self.gauge(gauge, about, MODEL)

    def update(self, models: set[str], numbers: Counts) -> None:
        """Export the metrics of each of `models`, even if it has none, and of each other model that has some.

        An autoscaler needs to see a 0, and an alert an increase from 0.
        """
        exported = models | (+numbers).keys()
        self.keep({(name,) for name in exported})
        for name in exported:
            for family in self.families:
                if family.labels == (MODEL,):
                    family.of(name)
            self.number.of(name).set(numbers[name])


class QueueMetrics(OfModels):
    """Each model's queue: waiting requests, and those that were shed, abandoned or expired."""

    def __init__(self) -> None:
        super().__init__("queue_depth", "Requests that wait for a worker.")
        about = "What the requests that had to wait for a worker waited."
        self.seconds = self.histogram("queue_seconds", about, MODEL)
        self.shed = self.counter("requests_shed", "Requests refused since the queue was full.", MODEL)
        self.abandoned = self.counter("requests_abandoned", "Requests whose client left before the answer.", MODEL)
        self.expired = self.counter("requests_expired", "Requests that had no time left.", MODEL)
        self.depths: Callable[[], Counts] = Counts  # returns how many requests wait, by model

    def count_end(self, model: str, error: BaseException) -> None:
        """Count a request of a model that ended by an error, if its time was over or its client left."""
        if isinstance(error, DeadlineExceeded):
            self.expired.of(model).inc()
        elif isinstance(error, ClientDisconnect):
            self.abandoned.of(model).inc()


LAGS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class SessionMetrics(OfModels):
    """The metrics of all sessions."""

    def __init__(self) -> None:
        super().__init__("sessions", "Sessions that are open.")
        self.windows = self.counter("session_windows", "Windows that were answered.", MODEL)
        self.events = self.counter("session_events", "Events that sessions were sent.", MODEL)
        self.late = self.counter("session_late_events", "Events that came after their window was closed.", MODEL)
        self.refused = self.counter("sessions_refused", "Sessions that were refused, as too many were open.", MODEL)
        about = "Seconds from the message that closed a window to its line."
        self.lag = self.histogram("session_lag_seconds", about, MODEL, bounds=LAGS)
        self.ended = self.counter("sessions_ended", "Sessions that have ended, by the reason.", MODEL, "reason")
        self.open = Counts()  # by model


class Metrics:
    """The metrics of one app; a `function`, as of the `reserved` bytes, is asked at each scrape."""

    def __init__(self, reserved: Callable[[], float] | None = None) -> None:
        self.models = ModelMetrics()
        self.requests = RequestMetrics()
        self.queues = QueueMetrics()
        self.sessions = SessionMetrics()
        self.batches: list[BatchRecord] = []  # that are not counted yet, of so many requests
        self.unsettled = 0
        own = Families()
        self.ready = own.gauge("ready", "1 where the server is ready for requests, else 0.").of()
        self.threads = own.gauge("worker_threads", "Threads that requests run on.").of()
        about = "Threads that are running something, even for a client that has left."
        self.busy_threads = own.gauge("worker_threads_busy", about).of()
        about = "For how long the oldest run that goes on has gone on."
        self.longest_run = own.gauge("longest_run_seconds", about).of()
        about = "Bytes that bodies, answers and sessions have reserved of max_pending_bytes."
        own.gauge("reserved_bytes", about).of().function = reserved
        # Of all models: no label, so that it is never dropped.
        self.state_bytes = own.gauge("session_state_bytes", "Bytes of their states.").of()
        process = ProcessCollector(registry=None)
        self.collectors = (process, self.models, self.requests, self.queues, self.sessions, own)

    def count_batch(self, batch: BatchRecord) -> None:
        """Count requests that were answered as one batch; what is counted becomes metrics in `settle`."""
        self.batches.append(batch)
        self.unsettled += len(batch.answers)
        if self.unsettled >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Count the batches that were not counted yet: many in a row take a third of the time that each takes alone."""
        batches, self.batches, self.unsettled = self.batches, [], 0
        self.models.count_batches(batches)
        seconds: dict[Endpoint, list[float]] = {}
        for batch in batches:
            for answer in batch.answers:
                seconds.setdefault(answer.endpoint, []).append(batch.ended - answer.started)
        for endpoint, took in seconds.items():
            name, version = str(endpoint.labels["model"]), int(endpoint.labels["version"])
            self.requests.count_requests("POST", endpoint.route, 200, took)
            self.models.count_requests(name, version, 200, len(took), took)

    def exposition(self, versions: Sequence[Version], *, ready: bool, labels: Mapping[str, str]) -> str:
        """Return every metric in Prometheus' text format, `labels` added to each.

        `versions` holds the state of every version of all models; `ready` says whether the server is ready.
        """
        self.settle()
        self.ready.set(ready)
        self.models.update(versions)
        names = {each.name for each in versions}
        self.queues.update(names, self.queues.depths())
        self.sessions.update(names, self.sessions.open)
        return generate_latest(Scrape(self.collectors, labels)).decode()
