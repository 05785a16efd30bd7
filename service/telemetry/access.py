"""The access log: each request's line in the log and its place in the metrics, over HTTP and gRPC."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import structlog
from pydantic_core import to_json

from spikeserve.service.telemetry import logs
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import RequestRecord

Labels: TypeAlias = Mapping[str, str | int]

REQUEST_ID = b"x-request-id"
CLIENT_GONE = 499  # nginx's status for a client that hung up; it is only logged

_PLAIN_WORD = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Ended(NamedTuple):
    """A request that is over: its id, the seconds that it took, and its labels."""

    request_id: bytes
    seconds: float
    labels: Labels


class AccessLog:
    """Logs and counts requests that are over."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.log = structlog.get_logger().bind()  # once: an unbound logger looks up its configuration at every line

    def finish(
        self, record: RequestRecord, method: str, route: str, status: int, seconds: float, *, streamed: bool = False
    ) -> None:
        """Log and count a request; `route` is the route's template, or the name of an RPC."""
        self.finish_all([Ended(record.request_id, seconds, record.labels)], method, route, status, streamed=streamed)

    def finish_all(
        self, requests: Sequence[Ended], method: str, route: str, status: int, *, streamed: bool = False
    ) -> None:
        """Log and count requests of one route that were answered alike, with one write of all their lines.

        A stream takes as long as its client likes, so that its seconds are not those of its model.
        """
        for _, seconds, labels in requests:
            self.metrics.requests.count_request(method, route, status, seconds)
            if "model" in labels:
                answered = None if streamed else seconds
                self.metrics.models.count_request(str(labels["model"]), int(labels["version"]), status, answered)
        if (stream := logs.json_stream()) is not None:
            answer = to_json({"method": method, "route": route, "status": status}).decode()[1:-1]
            ending = f'"event":"request","level":"info","timestamp":"{logs.timestamp()}"}}\n'
            stream.write("".join([_line(each, answer, ending) for each in requests]))
            stream.flush()
            return
        for request_id, seconds, labels in requests:
            told = {"method": method, "route": route, "status": status, "ms": _milliseconds(seconds), **labels}
            self.log.info("request", request_id=request_id.decode(), **told)


def _line(request: Ended, answer: str, ending: str) -> str:
    """Return the line that the log would write, in a tenth of the time."""
    labels = to_json(request.labels).decode()[1:-1]
    separator = "," if labels else ""
    line = (
        f'{{"request_id":"{request.request_id.decode()}",{answer},"ms":{_milliseconds(request.seconds)},'
        f"{labels}{separator}{ending}"
    )
    return line if line.isascii() else logs.escaped(line)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's X-Request-ID if it is 1 to 128 letters, digits and any of `._-`; otherwise a new id."""
    given = headers.get(REQUEST_ID)
    if given is not None and _PLAIN_WORD.fullmatch(given):
        return bytes(given)
    return b"%032x" % random.getrandbits(128)
