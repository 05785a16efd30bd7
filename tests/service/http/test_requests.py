"""Every request has an id, one line in the log and its metrics, and what nobody caught is a 500 that says nothing."""

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from spikeserve.service.telemetry import logs
from tests.inside import Inside
from tests.service.asgi import Broken
from tests.serving import ROOT, serving

BODY = {"inputs": [[0, 1], [1, 0]]}


@pytest.fixture
def json_logs(restored_logging: None) -> io.StringIO:  # noqa: ARG001
    """Log as the command line does, into what is returned."""
    stream = io.StringIO()
    logs.configure("info", stream)
    return stream


def requests_logged(stream: io.StringIO) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [entry for entry in entries if entry["event"] == "request" and entry["route"] != "/health/ready"]


@pytest.mark.parametrize("path", ["/", "/docs", "/models", "/v2/models/toy/ready", "/models/toy/stream", "/nothing"])
def test_a_query_of_too_many_parameters_is_refused_on_every_route(client: TestClient, path: str) -> None:
    many, few = ("&".join(f"p{index}=" for index in range(count)) for count in (17, 16))
    for method in ("GET", "POST"):
        answer = client.request(method, f"{path}?{many}")
        assert (answer.status_code, answer.json()) == (
            422,
            {"error": "the query has more than 16 parameters, expected at most as many"},
        )
        assert "X-Request-ID" in answer.headers
        assert "more than 16 parameters" not in client.request(method, f"{path}?{few}").text


@pytest.mark.parametrize("sent", ["", "x" * 129, "two words", 'a"b', "é"])
def test_any_other_request_id_is_replaced(client: TestClient, sent: str) -> None:
    headers = {"X-Request-ID": sent.encode()}
    found = [client.get("/models", headers=headers).headers["X-Request-ID"] for _ in range(2)]
    assert sent not in found
    assert found[0] != found[1]
    assert all(each.isalnum() for each in found)


def test_a_request_is_one_line_of_json(repository: Path, json_logs: io.StringIO) -> None:
    with serving(repository) as client:
        client.post("/predict", json=BODY, headers={"X-Request-ID": "one"})
        client.post("/models/nobody/predict", json=BODY, headers={"X-Request-ID": "two"})
        client.get("/nothing", headers={"X-Request-ID": "three"})
    first, second, third = requests_logged(json_logs)
    assert first.pop("ms") > 0
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "request",
        "level": "info",
        "request_id": "one",
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "model": "toy",
        "version": 1,
        "samples": 2,
    }
    assert (second["request_id"], second["route"], second["status"]) == ("two", "/models/{name}/predict", 404)
    assert "model" not in second
    assert (third["request_id"], third["route"], third["status"]) == ("three", "unmatched", 404)


def test_the_log_has_a_500s_traceback(
    repository: Path, json_logs: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(repository) as client:
        model = Inside(client.app).model()
        monkeypatch.setattr(model, "engine", Broken(model.engine))
        answer = client.post("/predict", json=BODY, headers={"X-Request-ID": "broken"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "broken"
    assert answer.json() == {"error": "something went wrong here; the log has it as request broken"}
    entries = [json.loads(line) for line in json_logs.getvalue().splitlines()]
    (failed,) = [entry for entry in entries if entry["event"] == "request_failed"]
    assert failed["request_id"] == "broken"
    assert "RuntimeError: the secret path" in failed["exception"]
    assert [entry["status"] for entry in entries if entry["event"] == "request"][-1] == 500


def test_what_a_thread_does_not_catch_is_one_line(json_logs: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("nobody caught this")

    for function in (fail, sys.exit):  # the second is an end that was meant
        thread = threading.Thread(target=function, name="failing")
        thread.start()
        thread.join()
    (entry,) = map(json.loads, json_logs.getvalue().splitlines())
    assert (entry["event"], entry["level"], entry["thread"]) == ("thread_failed", "error", "failing")
    assert "RuntimeError: nobody caught this" in entry["exception"]
    assert capfd.readouterr() == ("", "")


def test_what_ends_the_process_is_one_line_of_json() -> None:
    set_up = "import sys; from spikeserve.service.telemetry import logs; logs.configure('info', sys.stdout)"
    program = f"{set_up}; raise RuntimeError('the end')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    entry = json.loads(done.stdout)
    assert (entry["event"], entry["level"]) == ("process_failed", "critical")
    assert "RuntimeError: the end" in entry["exception"]


def test_metrics_count_what_was_asked_by_route_and_status(fresh: TestClient) -> None:
    fresh.post("/predict", json=BODY)
    fresh.get("/nothing")
    fresh.request("BREW", "/predict")
    fresh.get("/openapi.json")
    fresh.get("/docs/files/swagger-ui.css")
    fresh.get("/docs/files/nothing")
    text = fresh.get("/metrics").text
    for line in (
        'spikeserve_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'spikeserve_http_requests_total{method="other",route="/predict",status="405"} 1.0',
        'spikeserve_http_requests_total{method="GET",route="/openapi.json",status="200"} 1.0',
        'spikeserve_http_requests_total{method="GET",route="/docs/files/{name}",status="200"} 1.0',
        'spikeserve_http_requests_total{method="GET",route="/docs/files/{name}",status="404"} 1.0',
        'spikeserve_http_request_seconds_count{route="/predict"} 2.0',
    ):
        assert line in text
    assert "nothing" not in text


def test_each_app_counts_for_itself(repository: Path) -> None:
    with serving(repository) as first, serving(repository) as second:
        first.post("/predict", json=BODY)
        assert 'spikeserve_samples_total{model="toy",version="1"} 2.0' in first.get("/metrics").text
        assert "spikeserve_samples_total{" not in second.get("/metrics").text
