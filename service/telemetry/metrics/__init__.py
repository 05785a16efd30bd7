"""Prometheus metrics of one app, and those of several workers merged into one text.

Label values come from the models and routes, never from what a client sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric

from spikeserve.service.telemetry.metrics.models import ModelMetrics
from spikeserve.service.telemetry.metrics.queues import QueueMetrics
from spikeserve.service.telemetry.metrics.requests import RequestMetrics
from spikeserve.service.telemetry.metrics.sessions import SessionMetrics
from spikeserve.service.telemetry.record import BatchRecord, Endpoint, VersionRecord

MAX_UNSETTLED = 256  # requests that wait to be counted: counting them takes half a millisecond


class LabelledRegistry(CollectorRegistry):
    """The metrics of another registry, with more labels."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.registry = registry
        self.labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, which are new objects on each call, with the labels added."""
        for metric in self.registry.collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self.labels}) for sample in metric.samples]
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


class Metrics:
    """The metrics of one app, in their own collector registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it would add a second series, with the creation time, to each
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.models = ModelMetrics()
        registry.register(self.models)
        self.requests = RequestMetrics(registry)
        self.queues = QueueMetrics(registry)
        self.sessions = SessionMetrics(registry)
        self.batches: list[BatchRecord] = []  # that are not counted yet, of so many requests
        self.unsettled = 0
        self.ready = Gauge("spikeserve_ready", "1 where the server is ready for requests, else 0.", registry=registry)
        self.threads = Gauge("spikeserve_worker_threads", "Threads that requests run on.", registry=registry)
        about = "Threads that are running something, even for a client that has left."
        self.busy_threads = Gauge("spikeserve_worker_threads_busy", about, registry=registry)
        about = "For how long the oldest run that goes on has gone on."
        self.longest_run = Gauge("spikeserve_longest_run_seconds", about, registry=registry)
        about = "Bytes that bodies, answers and sessions have reserved of max_pending_bytes."
        self.reserved = Gauge("spikeserve_reserved_bytes", about, registry=registry)

    def count_batch(self, batch: BatchRecord) -> None:
        """Count requests that were answered as one batch; what is counted becomes metrics in `settle`."""
        self.batches.append(batch)
        self.unsettled += len(batch.answers)
        if self.unsettled >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Count the batches that were not counted yet: many in a row take a third of the time that each takes alone."""
        batches, self.batches, self.unsettled = self.batches, [], 0
        seconds: dict[Endpoint, list[float]] = {}
        for batch in batches:
            self.models.count_batch(batch)
            for answer in batch.answers:
                seconds.setdefault(answer.endpoint, []).append(batch.ended - answer.started)
                if answer.endpoint.statistics is not None:
                    answer.endpoint.statistics.count_batched(batch, answer)
        for endpoint, took in seconds.items():
            name, version = str(endpoint.labels["model"]), int(endpoint.labels["version"])
            self.requests.count_requests("POST", endpoint.route, 200, took)
            self.models.count_requests(name, version, 200, len(took), took)

    def watch_threads(self, threads: int, busy: Callable[[], int], longest: Callable[[], float]) -> None:
        """Export the number of threads, how many are `busy`, and the seconds of the `longest` run."""
        self.threads.set(threads)
        self.busy_threads.set_function(busy)
        self.longest_run.set_function(longest)

    def watch_memory(self, reserved: Callable[[], int]) -> None:
        """Export the bytes that are `reserved` in the memory budget."""
        self.reserved.set_function(reserved)

    def exposition(self, versions: Sequence[VersionRecord], *, ready: bool, labels: Mapping[str, str]) -> str:
        """Return every metric in Prometheus' text format, `labels` added to each.

        `versions` holds the state of every version of all models; `ready` says whether the server is ready.
        """
        self.settle()
        self.ready.set(ready)
        self.models.versions = versions
        names = {each.model for each in versions}
        self.queues.update(names)
        self.sessions.update(names)
        return generate_latest(LabelledRegistry(self.registry, labels) if labels else self.registry).decode()
