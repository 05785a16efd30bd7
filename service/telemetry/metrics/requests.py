"""The metrics of HTTP requests, and of connections that were refused before there was a request.

Only the event loop counts requests, in plain numbers, which become Prometheus metrics on each scrape.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from spikeserve.service.telemetry.metrics.distribution import SECONDS, Distribution

REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"


class RequestMetrics(Collector):
    """The requests by method, route and status, those in flight, and the connections refused."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answered = Counter[tuple[str, str, int]]()
        self.seconds = defaultdict[str, Distribution](lambda: Distribution(SECONDS))  # by route
        registry.register(self)
        about = "Connections ended for what is no request: headers that are malformed, too long or too slow."
        self.refused = PrometheusCounter("spikeserve_connections_refused", about, ("status",), registry=registry)
        for status in REFUSALS:
            self.refused.labels(int(status))  # exported as 0 from the start, so that the first refusal is an increase
        self.in_flight = 0
        about = "Requests that wait or are being answered."
        Gauge("spikeserve_http_requests_in_flight", about, registry=registry).set_function(lambda: self.in_flight)

    def count_requests(self, method: str, route: str, status: int, seconds: Collection[float]) -> None:
        """Count answered requests by the seconds that each took; `route` is the route's template."""
        self.answered[method if method in METHODS else OTHER, route, status] += len(seconds)
        self.seconds[route].observe_all(seconds)

    def count_refused(self, status: int) -> None:
        """Count a connection that was refused with `status` before there was a request."""
        self.refused.labels(int(status)).inc()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering collects nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the requests by method, route and status, and their seconds by route."""
        labels = ("method", "route", "status")
        answered = CounterMetricFamily("spikeserve_http_requests", "Requests answered.", labels=labels)
        for (method, route, status), count in self.answered.items():
            answered.add_metric((method, route, str(status)), count)
        about = "From a request's arrival to the end of its answer."
        seconds = HistogramMetricFamily("spikeserve_http_request_seconds", about, labels=("route",))
        for route, distribution in self.seconds.items():
            seconds.add_metric((route,), distribution.buckets(), distribution.sum)
        yield from (answered, seconds)
