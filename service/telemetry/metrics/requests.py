"""The metrics of HTTP requests, and of connections that were refused before there was a request."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from spikeserve.service.telemetry.metrics.distribution import SECONDS

REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"


class RequestMetrics:
    """The requests by method, route and status, those in flight, and the connections refused."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answered = Counter(
            "spikeserve_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        about = "From a request's arrival to the end of its answer."
        self.seconds = Histogram(
            "spikeserve_http_request_seconds", about, ("route",), buckets=SECONDS, registry=registry
        )
        about = "Connections ended for what is no request: headers that are malformed, too long or too slow."
        self.refused = Counter("spikeserve_connections_refused", about, ("status",), registry=registry)
        for status in REFUSALS:
            self.refused.labels(int(status))  # exported as 0 from the start, so that the first refusal is an increase
        self.in_flight = 0
        about = "Requests that wait or are being answered."
        Gauge("spikeserve_http_requests_in_flight", about, registry=registry).set_function(lambda: self.in_flight)
        # Looking a metric up by its labels takes longer than counting, and there are few labels.
        self.labelled = cache(self._labelled)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the route's template."""
        answered, route_seconds = self.labelled(method if method in METHODS else OTHER, route, status)
        answered.inc()
        route_seconds.observe(seconds)

    def count_refused(self, status: int) -> None:
        """Count a connection that was refused with `status` before there was a request."""
        self.refused.labels(int(status)).inc()

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.answered.labels(method, route, status), self.seconds.labels(route)
