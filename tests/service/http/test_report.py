"""Requests that return a report: NeuroBench's metrics of each sample, and what is refused."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.complexity import ESTIMATES
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.catalog.limits import AnswerSize
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.scheduling.batching import RUN_SECONDS, Policy
from spikeserve.service.inference.scheduling.job import Decoded, Job
from spikeserve.service.inference.scheduling.queue import Queue
from spikeserve.service.telemetry.record import Times
from tests.bundles import publish
from tests.networks import network_of, regression, toy
from tests.serving import serving

ASKED = {"return": ["report"]}


def test_each_sample_has_a_report_of_its_own(client: TestClient) -> None:
    # Three steps of two inputs that meet two weights each, one of which is 0. 0.75 multiplies, and 1 and 0 do not.
    answer = client.post("/predict", json={"inputs": [[0.75, 1.0], [1, 0]]} | ASKED).json()
    first, second = (each.pop("report") for each in answer["predictions"])
    assert (first["Effective_MACs"], first["Effective_ACs"], first["Dense"]) == (6, 0, 12)
    assert (second["Effective_MACs"], second["Effective_ACs"], second["Dense"]) == (0, 3, 12)
    # Of the first sample one neuron fires once and the other at each of three steps; of the second, one at each step.
    assert (first["ActivationSparsity"], second["ActivationSparsity"]) == (2 / 6, 3 / 6)
    # The first neuron's membrane is 0.75, 0.125, 0.8125; all others stay at 0 and count in the first step alone.
    assert (first["MembraneUpdates"], second["MembraneUpdates"]) == (2 + 2, 2)
    energy = second["energy_estimate_pj"]
    assert energy.keys() == ESTIMATES.keys()
    assert energy["operations"] == pytest.approx(3 * 0.9)
    # The same answer as without a report, its synaptic operations included.
    assert answer == client.post("/predict", json={"inputs": [[0.75, 1.0], [1, 0]]}).json()


def test_a_report_stands_beside_a_raster_and_does_not_bring_one(client: TestClient) -> None:
    body = {"inputs": [[0.75, 1.0]], "return": ["raster", "report", "membrane"]}
    both = client.post("/predict", json=body).json()["predictions"][0]
    assert both["raster"] == {"out": {"t": [0, 1, 1, 2], "unit": [1, 0, 1, 1]}}
    assert both["membrane"] == {"out": [[0.75, 0.0], [0.125, 0.0], [0.8125, 0.0]]}
    alone = client.post("/predict", json=body | ASKED).json()["predictions"][0]
    assert both.keys() - alone.keys() == {"raster", "membrane"}
    assert alone["report"] == both["report"]


def test_a_report_of_a_sample_that_ends_early_is_that_of_its_steps(client: TestClient) -> None:
    # 5 ahead after five of eight steps.
    body = {"inputs": [[1, 0]], "time_steps": 8} | ASKED
    early = client.post("/predict", json=body | {"stop": "decided"}).json()["predictions"][0]
    shorter = client.post("/predict", json=body | {"time_steps": 5}).json()["predictions"][0]
    assert early["steps_used"] == 5
    assert early["report"] == shorter["report"]


def test_the_query_of_an_array_asks_for_a_report_too(client: TestClient) -> None:
    body = {"inputs": [[1, 0]]} | ASKED
    expected = client.post("/predict", json=body).json()
    file = BytesIO()
    np.save(file, np.array([[1, 0]], np.float32))
    headers = {"content-type": "application/x-npy"}
    assert client.post("/predict?return=report", content=file.getvalue(), headers=headers).json() == expected


def test_a_regression_without_neurons_has_a_report(tmp_path: Path) -> None:
    publish(tmp_path, regression())
    with serving(tmp_path) as client:
        (prediction,) = client.post("/predict", json={"inputs": [[1, 3]]} | ASKED).json()["predictions"]
    report = prediction["report"]
    assert (report["Effective_MACs"], report["MembraneUpdates"], report["ActivationSparsity"]) == (3 * 2, 0, 0.0)


def test_a_report_of_many_samples_may_record_more_than_one_answer_may_hold(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two neurons at three steps are six values of one sample; a raster of two samples would be twelve.
    monkeypatch.setattr("spikeserve.service.catalog.limits.RECORDED_VALUES", 6)
    with serving(repository) as client:
        assert client.post("/predict", json={"inputs": [[1, 0]] * 20} | ASKED).status_code == 200
        refused = client.post("/predict", json={"inputs": [[1, 0]], "time_steps": 4} | ASKED)
    assert refused.status_code == 422
    assert refused.json() == {
        "error": "return has 'report', which for one sample at 4 time_steps records 8 values, expected at most 6"
    }


def test_the_document_of_the_service_describes_every_number_of_a_report(client: TestClient) -> None:
    answer = client.post("/predict", json={"inputs": [[1, 0]]} | ASKED).json()
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    report = answer["predictions"][0]["report"]
    assert schemas["Report"]["properties"].keys() == report.keys()
    assert schemas["EnergyEstimate"]["properties"].keys() == report["energy_estimate_pj"].keys()


def test_every_engine_gives_the_same_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    network = network_of(
        [
            {"type": "Conv2d", "name": "c", "in_channels": 1, "out_channels": 3, "kernel_size": 3, "padding": 1},
            {"type": "LIF", "name": "n", "decay": 0.5},
            {"type": "AvgPool2d", "name": "p", "kernel_size": 2},
            {"type": "Flatten", "name": "f"},
            {"type": "Linear", "name": "l", "in_features": 12, "out_features": 2},
            {"type": "IF", "name": "out", "threshold": 0.25, "recurrent": {}},
        ],
        {
            "c.weight": rng.integers(-4, 5, (3, 1, 3, 3)) / 8,
            "c.bias": np.zeros(3),
            "l.weight": rng.integers(-4, 5, (2, 12)) / 8,
            "l.bias": [0.25, 0.25],
            "out.recurrent.weight": [[0, 0.125], [0.125, 0.5]],
        },
        input={"shape": [1, 4, 4], "low": 0, "high": 8},
        time_steps=12,
        labels=["a", "b"],
    )
    publish(tmp_path, network)
    body = {"inputs": rng.integers(0, 9, (3, 1, 4, 4)).tolist()} | ASKED
    answers = []
    for engine in ("event", "reference", "onnx", "torch"):
        with serving(tmp_path, engine=engine) as client:
            answer = client.post("/predict", json=body).json()
        assert answer.pop("engine") == engine
        answers.append(answer)
    assert answers[0]["predictions"][0]["report"]["Effective_ACs"] > 0
    for other in answers[1:]:
        assert other == answers[0]


def test_the_bytes_of_a_report_are_known_before() -> None:
    size = AnswerSize(toy().spec, "toy")
    one = size.native(1, 3, ["report"]) - size.native(1, 3)
    # Eleven numbers of at most 24 characters, with their names.
    names = ["Effective_MACs", "Effective_ACs", "Dense", "MembraneUpdates", "ActivationSparsity", *ESTIMATES]
    longest = sum(len(f'"{name}":,') + 24 for name in names) + len('"report":{"energy_estimate_pj":{}},')
    assert longest < one


def test_a_run_with_reports_holds_a_twelfth_of_the_samples(client: TestClient) -> None:
    model = client.app.state.services.catalog.get()  # type: ignore[attr-defined]
    codec = NativeCodec(model)
    # Three steps of 24 samples take the time that a run may, and so do those of 2 with reports.
    queue = Queue(Policy(64, RUN_SECONDS), Cost(RUN_SECONDS / 24 / 3 * 0.99, 0, 0), limit=1)
    with closing(asyncio.new_event_loop()) as loop:
        job = Job(model, loop.create_future(), Times(0.0), 0.0)
        most = [
            queue.max_samples(Decoded.of(job, codec, codec.decode(json.dumps(body).encode())).terms)
            for body in ({"inputs": [[1, 0]]}, {"inputs": [[1, 0]]} | ASKED)
        ]
    assert most == [24, 2]
