"""The metrics of HTTP requests, and of connections that were refused before there was a request."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

from spikeserve.service.telemetry.metrics.families import Families

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
        self.gauge("http_requests_in_flight", about).of().set_function(lambda: self.in_flight)

    def count_requests(self, method: str, route: str, status: int, seconds: Collection[float]) -> None:
        """Count answered requests by the seconds that each took; `route` is the route's template."""
        self.answered.of(method if method in METHODS else OTHER, route, status).inc(len(seconds))
        self.seconds.of(route).observe_all(seconds)

    def count_refused(self, status: int) -> None:
        """Count a connection that was refused with `status` before there was a request."""
        self.refused.of(int(status)).inc()
