"""The access log: each request's line in the log and its place in the metrics, over HTTP and gRPC."""

from __future__ import annotations

import structlog

from spikeserve.service.telemetry.metrics.app import Metrics
from spikeserve.service.telemetry.record import RequestRecord


class AccessLog:
    """Logs and counts requests that are over."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.log = structlog.get_logger().bind()  # once: an unbound logger looks up its configuration at every line

    def finish(
        self, record: RequestRecord, method: str, route: str, status: int, seconds: float, *, streamed: bool = False
    ) -> None:
        """Log and count a request; `route` is the route's template, or the name of an RPC.

        A stream takes as long as its client likes, so that its seconds are not those of its model.
        """
        labels = record.labels
        self.metrics.requests.count_request(method, route, status, seconds)
        if "model" in labels:
            answered = None if streamed else seconds
            self.metrics.models.count_request(str(labels["model"]), int(labels["version"]), status, answered)
        self.log.info(
            "request",
            request_id=record.request_id.decode(),
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            **labels,
        )
