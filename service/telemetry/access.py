"""The access log: each request's line in the log and its place in the metrics, over HTTP and gRPC."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeAlias

import structlog

from spikeserve.service.telemetry.logs import AS_JSON, COMPACT, LossyStream
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import BatchRecord, RequestRecord

Labels: TypeAlias = Mapping[str, str | int]

METHOD, STATUS = "POST", 200  # of requests that are answered together
REQUEST_ID = b"x-request-id"
CLIENT_GONE = 499  # nginx's status for a client that hung up; it is only logged

_encode = json.JSONEncoder(separators=COMPACT).encode  # escapes what is not ASCII, as the log does
_PLAIN_WORD = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class AccessLog:
    """Logs and counts requests that are over."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    @cached_property
    def log(self) -> Any:
        """The logger, bound at the first line: after the log is configured, and once, since that takes time."""
        return structlog.get_logger().bind()

    def finish(
        self, record: RequestRecord, method: str, route: str, status: int, seconds: float, *, streamed: bool = False
    ) -> None:
        """Log and count a request; `route` is the route's template, or the name of an RPC.

        A stream takes as long as its client likes, so that its seconds are not those of its model.
        """
        labels, request_id, ms = record.labels, record.request_id.decode(), seconds * 1000
        self.metrics.requests.count_requests(method, route, status, [seconds])
        if "model" in labels:
            answered = [] if streamed else [seconds]
            self.metrics.models.count_requests(str(labels["model"]), int(labels["version"]), status, 1, answered)
        if (stream := json_stream()) is None:
            told = {"method": method, "route": route, "status": status, "ms": round(ms, 3), **labels}
            self.log.info("request", request_id=request_id, **told)
            return
        stream.write(line_template(method, route, status, labels) % (request_id, ms, "", timestamp()))
        stream.flush()

    def finish_batch(self, batch: BatchRecord) -> None:
        """Log and count requests that were answered together, with one write of all their lines."""
        self.metrics.count_batch(batch)
        stream, now = json_stream(), timestamp()
        lines: list[str] = []
        for endpoint, request_id, started, samples, _, _, trace in batch.answers:
            ms = (batch.ended - started) * 1000
            if stream is not None:
                traced = f'"trace_id":"{trace.id}",' if trace else ""
                lines.append(endpoint.line % (request_id.decode(), ms, traced, samples, now))
                continue
            told = {"method": METHOD, "route": endpoint.route, "status": STATUS, "ms": round(ms, 3), **endpoint.labels}
            told |= {"trace_id": trace.id} if trace else {}
            self.log.info("request", request_id=request_id.decode(), **told, samples=samples)
        if stream is not None:
            stream.write("".join(lines))
            stream.flush()


def line_template(method: str, route: str, status: int, labels: Labels, number: str | None = None) -> str:
    """Return the template of the lines that the log would write of requests, in a tenth of the time.

    It takes the request's id, its milliseconds, the field of its trace or nothing, the label `number` if there is one,
    and the time stamp.
    """
    answer = _encode({"method": method, "route": route, "status": status})[1:-1]
    told = _encode(labels)[1:-1] + "," if labels else ""
    answer, told = (each.replace("%", "%%") for each in (answer, told))
    numbered = f'"{number}":%d,' if number else ""
    ending = '"event":"request","level":"info","timestamp":"%s"}\n'
    return f'{{"request_id":"%s",{answer},"ms":%.3f,%s{told}{numbered}{ending}'


def json_stream() -> LossyStream | None:
    """Return where lines of JSON at the level `info` may be written as they are; None where there are no such lines.

    There are none where the log is text, tells less, or was not configured.
    """
    stream = LossyStream.of_requests
    return None if stream is None or structlog.get_config()["processors"][-1] is not AS_JSON else stream


def timestamp() -> str:
    """Return the time as lines of JSON have it."""
    return datetime.now(UTC).isoformat().removesuffix("+00:00") + "Z"


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's X-Request-ID if it is 1 to 128 letters, digits and any of `._-`; otherwise a new id."""
    if (value := headers.get(REQUEST_ID)) and _PLAIN_WORD.fullmatch(value):
        return bytes(value)
    return b"%032x" % random.getrandbits(128)
