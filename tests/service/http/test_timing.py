"""Where the time of an answer went: the header Server-Timing, for a request that asks for it."""

from __future__ import annotations

import json
import re
from time import perf_counter

import pytest
from fastapi.testclient import TestClient

from spikeserve.service.http.answers import TIMING_WANTED, server_timing
from spikeserve.service.telemetry.record import Times

PARTS = ["decode", "queue", "encode", "run", "render"]
ASKED = {"X-Server-Timing": "1"}
BODY = {"inputs": [[0, 1]]}
INFER = {"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [0, 1]}]}


def parts_of(header: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)(?:, |$)", header)}


def test_the_parts_are_those_of_the_times() -> None:
    # Decoded in 1 ms, encoded from 4 to 7 ms, run from 9 to 15 ms in three runs side by side: 9 - 1 - 3 were waited.
    now = perf_counter()
    times = Times(now - 0.020, decode_seconds=0.001, encode_began=now - 0.016, encode_ended=now - 0.013)
    times.ran(now - 0.0105, now - 0.006)
    times.ran(now - 0.011, now - 0.005)
    times.ran(now - 0.010, now - 0.007)
    ((name, value),) = server_timing({TIMING_WANTED: b""}, times)
    parts = parts_of(value.decode())
    assert name == b"server-timing"
    assert list(parts) == PARTS
    assert [parts[part] for part in PARTS[:4]] == pytest.approx([1, 5, 3, 6], abs=0.002)
    assert 5 <= parts["render"] < 1000


@pytest.mark.parametrize(("path", "body"), [("/predict", BODY), ("/v2/models/toy/infer", INFER)])
@pytest.mark.parametrize("padding", [0, 2**15])  # a longer body goes to another thread
def test_an_answer_tells_its_parts_if_asked(
    client: TestClient, path: str, body: dict[str, object], padding: int
) -> None:
    content = json.dumps(body) + " " * padding
    sent = {"Content-Type": "application/json"}
    began = perf_counter()
    answer = client.post(path, content=content, headers=sent | ASKED)
    took = 1000 * (perf_counter() - began)
    parts = parts_of(answer.headers["Server-Timing"])
    assert list(parts) == PARTS
    assert 0 < sum(parts.values()) <= took
    assert all(parts[part] > 0 for part in ("decode", "encode", "run"))
    assert "Server-Timing" not in client.post(path, content=content, headers=sent).headers
