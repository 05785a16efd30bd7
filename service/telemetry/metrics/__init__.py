"""Prometheus metrics of one app, and those of several workers merged into one text.

Label values come from the models and routes, never from what a client sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from spikeserve.service.telemetry.metrics.families import Families
from spikeserve.service.telemetry.metrics.models import ModelMetrics
from spikeserve.service.telemetry.metrics.queues import QueueMetrics
from spikeserve.service.telemetry.metrics.requests import RequestMetrics
from spikeserve.service.telemetry.metrics.sessions import SessionMetrics
from spikeserve.service.telemetry.record import BatchRecord, Endpoint, VersionRecord

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


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
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
        self.reserved = own.gauge("reserved_bytes", about).of()
        process = ProcessCollector(registry=None)
        self.collectors = (process, self.models, self.requests, self.queues, self.sessions, self.sessions.bytes, own)

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
        self.models.update(versions)
        names = {each.model for each in versions}
        self.queues.update(names)
        self.sessions.update(names)
        return generate_latest(Scrape(self.collectors, labels)).decode()
