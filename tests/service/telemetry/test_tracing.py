"""Spans arrive at a collector, below the client's own; without the variable or the extra there are none."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve.models.coding.records import make_records
from spikeserve.plugins.grpc.messages import ModelInferRequest
from spikeserve.plugins.grpc.wire import MAX_FIELDS
from spikeserve.service.app import create_app
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.tracing import ENDPOINT, Tracing
from tests.bundles import publish
from tests.inside import Inside
from tests.plugins.grpc.rpc import Open, Rpc, infer_request, serving_grpc
from tests.service.sessions.conftest import pairs
from tests.service.sessions.test_streams import lines, socket
from tests.serving import Process, running, serving

RPC = {"rpc.system.name": "grpc", "rpc.method": "inference.GRPCInferenceService/ModelInfer"}
BODY = {"inputs": [[0, 1], [1, 0]]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """A collector on the loopback, and the bodies that it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span for each in requests for resource in each.resource_spans for scope in resource.scope_spans
            for span in scope.spans
        ]  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector to which the servers that start meanwhile send their spans."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed here")
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(ENDPOINT, collector.url)
        yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector to which the servers of a test send their spans."""
    with collecting() as collector:
        yield collector


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_request_is_a_span_below_its_clients_and_has_its_own(
    repository: Path, collector: Collector, in_batch: bool
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with running(repository) if in_batch else serving(repository) as server:
        post = httpx.post if isinstance(server, Process) else server.post
        url, asked = server.url if isinstance(server, Process) else "", time.time_ns()
        assert post(f"{url}/models/toy/predict", json=BODY, headers=headers).status_code == 200
        if isinstance(server, Process):
            assert server.stop() == 0
    spans = {span.name: span for span in collector.spans()}
    assert spans.keys() == {"POST /models/{name}/predict", "encode", "infer"}
    request, encode, infer = (spans[name] for name in ("POST /models/{name}/predict", "encode", "infer"))
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert {encode.parent_span_id, infer.parent_span_id} == {request.span_id}
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/models/{name}/predict",
        "http.response.status_code": 200,
        "spikeserve.model": "toy",
        "spikeserve.version": 1,
        "spikeserve.samples": 2,
        "spikeserve.synaptic_operations": 4,
    }
    moments = [at for span in (encode, infer) for at in (span.start_time_unix_nano, span.end_time_unix_nano)]
    moments = [asked, request.start_time_unix_nano, *moments, request.end_time_unix_nano]
    assert sorted(moments) == moments


def test_a_request_without_a_trace_begins_the_one_that_its_line_names(repository: Path, collector: Collector) -> None:
    with running(repository) as service:
        assert httpx.post(f"{service.url}/predict", json=BODY).status_code == 200
        assert service.stop() == 0
    (line,) = (entry for entry in service.entries if entry["event"] == "request")
    assert {span.trace_id.hex() for span in collector.spans()} == {line["trace_id"]}


def test_a_span_says_how_it_fails(repository: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(repository) as client:
        client.get("/models", headers={"traceparent": "nonsense"})
        client.get("/models/toy", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})  # which is not sampled
        client.get("/metrics")
        client.get("/some/path")
        model = Inside(client.app).model()
        monkeypatch.setattr(model, "engine", None)
        assert client.post("/predict", json=BODY).status_code == 500
    listed, unknown, failed = collector.spans()
    assert (listed.name, listed.parent_span_id) == ("GET /models", b"")
    assert listed.trace_id.hex() != TRACE
    # A path that there is not names no span, and a client's mistake is no failure.
    assert (unknown.name, unknown.status.code) == ("GET", 0)
    assert attributes(unknown) == {"http.request.method": "GET", "http.response.status_code": 404}
    assert (attributes(failed)["http.response.status_code"], failed.status.code) == (500, 2)
    assert attributes(failed)["error.type"] == "AttributeError"


@pytest.mark.usefixtures("reference_engine")
def test_a_wrong_tracestate_is_dropped_and_not_repeated_in_the_log(repository: Path, collector: Collector) -> None:
    with running(repository) as service:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "nonsense" * 1000}
        assert httpx.get(f"{service.url}/models", headers=headers).status_code == 200
        assert service.stop() == 0
    assert "nonsense" not in str(service.entries)
    (span,) = collector.spans()
    assert (span.trace_id.hex(), span.trace_state) == (TRACE, "")


def test_without_the_extra_the_variable_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9/v1/traces")
    with pytest.raises(Misconfigured, match=rf"{ENDPOINT}: is set, but 'opentelemetry\S*' is not installed"):
        create_app(Settings(repository=repository))


def test_without_the_variable_nothing_is_traced(repository: Path) -> None:
    assert Tracing.of_environment() is None
    assert Inside(create_app(Settings(repository=repository))).services.tracing is None


def test_a_call_over_grpc_is_a_span_below_its_clients_too(repository: Path, collector: Collector) -> None:
    carried = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
    with serving_grpc(repository) as service:
        with Rpc(service) as rpc:
            rpc.call("ModelInfer", infer_request(np.array([[0, 1]])), metadata=carried)
            rpc.refused("ModelInfer", infer_request(np.array([[0, 1]]), "nobody"), metadata=carried)
            assert rpc.call("ServerLive").live  # a probe, which has no span
        assert service.stop() == 0
    refused, answered = sorted(
        (span for span in collector.spans() if span.name == RPC["rpc.method"]),
        key=lambda span: str(attributes(span)["rpc.response.status_code"]),
    )
    assert len(collector.spans()) == 4  # these two, and encode and infer of the first
    assert (answered.trace_id.hex(), answered.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(answered)["spikeserve.model"] == "toy"
    assert attributes(refused) == RPC | {"rpc.response.status_code": "NOT_FOUND"}


def test_each_message_of_a_stream_over_grpc_is_a_span_below_the_streams(repository: Path, collector: Collector) -> None:
    asked, fields = infer_request(np.array([[0, 1]])), ModelInferRequest(raw_input_contents=[b""] * (MAX_FIELDS + 1))
    with serving_grpc(repository) as service:
        with Rpc(service) as rpc:
            stream = Open(rpc)
            for message in (asked, infer_request(np.array([[0, 1]]), "nobody"), fields):
                stream.ask(message)
            stream.close()
            assert list(stream.answers) == []
        assert service.stop() == 0
    whole = [span for span in collector.spans() if span.name.endswith("/ModelStreamInfer")]
    messages = [span for span in collector.spans() if span.name == "message"]
    messages.sort(key=lambda span: int(span.start_time_unix_nano))
    assert [span.parent_span_id for span in messages] == [whole[0].span_id] * 3
    codes = [attributes(span)["rpc.response.status_code"] for span in (*messages, *whole)]
    assert codes == ["OK", "NOT_FOUND", "RESOURCE_EXHAUSTED", "OK"]
    answered = attributes(messages[0])
    assert (answered["rpc.method"], answered["rpc.system.name"]) == (whole[0].name, "grpc")
    assert (answered["spikeserve.model"], answered["spikeserve.samples"]) == ("toy", 1)
    assert [span.parent_span_id for span in collector.spans() if span.name == "infer"] == [messages[0].span_id]


@pytest.mark.usefixtures("reference_engine")
def test_a_session_is_a_span_and_a_line_with_windows_events_and_reason(tmp_path: Path, collector: Collector) -> None:
    publish(tmp_path, pairs(), "pairs")
    with running(tmp_path) as service:
        for end in ('{"type": "end"}', '{"type": "sing"}'):
            with socket(service) as session:
                session.send(make_records([0, 2000, 500], [0, 0, 0]).tobytes())  # the last one is late
                session.send(end)
                lines(session)
        assert service.stop() == 0
    logged = [entry for entry in service.entries if entry["event"] == "request"]
    names = ("windows", "events", "late", "ended")
    assert [[each.get(name) for name in names] for each in logged] == [[2, 2, 1, "client"], [1, 2, 1, "error"]]
    spans = collector.spans()
    assert [span.name for span in spans] == ["GET /models/{name}/stream"] * 2
    for span, line in zip(spans, logged, strict=True):
        assert line["trace_id"] == span.trace_id.hex()
        assert attributes(span) == {
            "http.request.method": "GET",
            "http.route": "/models/{name}/stream",
            "http.response.status_code": 101,
            **{f"spikeserve.{name}": line[name] for name in ("model", "version", *names)},
        }
