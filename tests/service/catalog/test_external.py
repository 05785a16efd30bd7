"""An ONNX model of others behind HTTP: what its answers hold and lack, and what is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.coding import encode
from spikeserve.models.engines.onnx import external
from spikeserve.models.engines.onnx.engine import run_session
from spikeserve.models.errors import EngineUnavailable
from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.scheduling.job import Answer, Decoded, Job, Shard
from spikeserve.service.inference.scheduling.run import compute
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.record import Times
from tests.bundles import publish as publish_network
from tests.external import WEIGHT, contract, model_of, of_spikes, publish, scores, spikes
from tests.networks import toy
from tests.serving import running, serving


def undefined_at_one() -> Any:
    """Return 1 / (scores - 1): the dry run draws from below 1, and a client may send 1."""
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    model.graph.node.append(helper.make_node("Sub", ["own", "one"], ["less"]))
    model.graph.node.append(helper.make_node("Reciprocal", ["less"], ["scores"]))
    return model


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Serve ONNX models of others beside a network."""
    root = tmp_path_factory.mktemp("repository")
    publish_network(root, toy())
    publish(root, scores(), contract())
    publish(root, spikes(), of_spikes(), "spiking")
    publish(root, undefined_at_one(), contract(), "undefined")
    publish(root, scores(), contract(labels=["a", "b"]), "broken")
    with serving(root) as client:
        yield client


def test_scores_are_answered_without_what_nobody_knows(client: TestClient) -> None:
    body = {"inputs": [[0.25, 1.0]], "return": ["spikes_per_node"]}
    answer = client.post("/models/external/predict", json=body).json()
    (prediction,) = answer.pop("predictions")
    # The scores are 0.25, 1 and 0.625; their softmax is what follows.
    expected = np.exp([0.25, 1.0, 0.625]) / np.exp([0.25, 1.0, 0.625]).sum()
    np.testing.assert_allclose(prediction.pop("probabilities"), expected, rtol=1e-6)
    assert answer == {"model": "external", "version": 1, "engine": "onnx", "time_steps": 4}
    assert prediction == {"class_index": 1, "label": "right", "spike_counts": [0, 0, 0], "spikes_per_node": {}}


@pytest.mark.parametrize(
    "inputs", [[[[1, 0], [1, 1], [0, 0]]], [{"t": [0, 1, 1], "unit": [0, 0, 1]}]], ids=["raster", "events"]
)
def test_a_raster_or_its_events_become_spike_counts(client: TestClient, inputs: Any) -> None:
    answer = client.post("/models/spiking/predict", json={"inputs": inputs, "time_steps": 3})
    assert answer.json()["predictions"][0]["spike_counts"] == [2, 1, 1]


@pytest.mark.parametrize(
    ("model", "body", "status", "sentence"),
    [
        ("external", {"return": ["raster"]}, 422, "return has 'raster', but this model is only an ONNX graph"),
        ("external", {"return": ["membrane"]}, 422, "return has 'membrane', but this model is only an ONNX graph"),
        ("external", {"time_steps": 5}, 422, "time_steps is 5, but this ONNX model runs for 4"),
        (
            "undefined",
            {"inputs": [[1, 0]]},
            422,
            "model.onnx: its output 'scores' holds NaN or infinite values, expected finite ones",
        ),
        (
            "broken",
            {},
            503,
            "model 'broken' version 1 could not be loaded: model.onnx: its output 'scores' has shape ['batch', 3], but "
            "the contract says [batch, 2]",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(
    client: TestClient, model: str, body: dict[str, Any], status: int, sentence: str
) -> None:
    answer = client.post(f"/models/{model}/predict", json={"inputs": [[0, 1]]} | body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(sentence)


def test_a_graph_runs_in_the_batches_in_which_its_promise_was_found_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, scores(), contract(independent_rows=True))
    settings = Settings(repository=tmp_path)
    engine = LoadedModel.load("external", 1, settings, verify("external", 1, settings)).engine
    batches = list[int]()

    def watched(session: Any, outputs: list[str], feed: dict[str, Any], stop: Any) -> Any:
        batches.append(len(feed["x"]))
        return run_session(session, outputs, feed, stop)

    monkeypatch.setattr(external, "run_session", watched)
    engine.run(encode(np.full((70, 2), 0.5, np.float32), contract()))
    assert batches == [64, 4, 2]


def test_a_sample_without_an_answer_is_its_own_requests_fault_alone(client: TestClient) -> None:
    model = client.app.state.services.catalog.get("undefined")  # type: ignore[attr-defined]
    codec = NativeCodec(model)
    queries = [codec.decode(body) for body in (b'{"inputs": [[1, 0]]}', b'{"inputs": [[0.5, 0.5]]}')]
    with closing(asyncio.new_event_loop()) as loop:
        jobs = [Job(model, loop.create_future(), Times(0.0), 0.0) for _ in queries]
        works = [Decoded.of(job, codec, query) for job, query in zip(jobs, queries, strict=True)]
        ran = compute([Shard(work, 0, 1) for work in works])
    assert [isinstance(outcome, Answer) for _, outcome in ran.outcomes] == [False, True]
    assert ran.samples == 1
    assert not model.cost.is_small(samples=1, time_steps=1)  # it never runs on the event loop


def test_it_is_described_listed_and_counted_beside_a_network(client: TestClient) -> None:
    described, spiking = (client.get(f"/models/{name}").json() for name in ("external", "spiking"))
    assert (described["any_time_steps"], spiking["any_time_steps"]) == (False, True)
    assert (described["nodes"], described["readout"], described["labels"]) == ([], "scores", ["left", "right", "both"])
    engines = {model["name"]: model["versions"][0].get("engine") for model in client.get("/models").json()["models"]}
    assert engines == {"broken": None, "external": "onnx", "spiking": "onnx", "toy": "event", "undefined": "onnx"}
    client.post("/models/external/predict", json={"inputs": [[0, 1]]})
    metrics = client.get("/metrics").text
    assert re.search(r'spikeserve_samples_total{model="external",version="1"} [1-9]', metrics)
    assert 'spikeserve_request_synaptic_operations_count{model="external",version="1"} 0.0' in metrics
    prediction = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]
    assert "synaptic_operations" not in prediction["required"]
    assert "external ONNX model" in prediction["properties"]["synaptic_operations"]["description"]


def test_the_open_inference_protocol_gives_its_scores_and_no_operations(client: TestClient) -> None:
    body = {"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 1.0]}]}
    outputs = client.post("/v2/models/external/infer", json=body).json()["outputs"]
    found = {output["name"]: output["data"] for output in outputs}
    assert found.keys() == {"spike_counts", "probabilities", "class_index", "label", "readout"}
    assert (found["readout"], found["label"]) == ([0.25, 1.0, 0.625], ["right"])


@pytest.mark.parametrize("engine", ["event", "reference", "torch"])
def test_an_engine_that_cannot_run_it_says_so(tmp_path: Path, engine: Literal["event", "reference", "torch"]) -> None:
    publish(tmp_path, scores(), contract())
    sentence = f"^engine '{engine}' on 'cpu': the model is only an ONNX graph, which engine 'onnx' runs"
    with pytest.raises(EngineUnavailable, match=sentence):
        verify("external", 1, Settings(repository=tmp_path, engine=engine))


def test_every_line_of_the_log_is_json_where_graphs_fail_at_load_and_in_a_run(tmp_path: Path) -> None:
    # A table of one row, read at the greatest input, rounded down: 0.5 reads row 0, and 1 a row that is not there.
    reading = model_of(
        [
            helper.make_node("ReduceMax", ["x"], ["greatest"], axes=[0, 1], keepdims=0),
            helper.make_node("Cast", ["greatest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["read"], axis=0),
            helper.make_node("Gemm", ["x", "weight"], ["sums"], transB=1),
            helper.make_node("Mul", ["sums", "read"], ["scores"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(np.ones((1,), np.float32), "table")],
    )
    publish(tmp_path, reading, contract(), "reading")
    unknown, unfit, odd = scores(), scores(weight=np.zeros((3, 5))), scores()
    unknown.graph.node[0].op_type = "Nonsense"
    odd.graph.initializer.append(numpy_helper.from_array(np.zeros(7, np.float32), "unused"))  # which it warns of
    for name, model in {"unknown": unknown, "unfit": unfit, "odd": odd}.items():
        publish(tmp_path, model, contract(), name)
    with running(tmp_path, "--default-model", "reading", until="listening") as service:
        found: dict[str, str] = {}
        while len(found) < 4:
            entry = service.wait_for("model_")
            found[entry["model"]] = entry["event"]
        states = {name: event.removeprefix("model_") for name, event in found.items()}
        assert states == {"odd": "ready", "reading": "ready", "unfit": "failed", "unknown": "failed"}
        statuses = [
            httpx.post(f"{service.url}/predict", json={"inputs": [sample]}, timeout=60).status_code
            for sample in ([0, 0.5], [1, 0])
        ]
        assert statuses == [200, 422]
        assert service.stop() == 0  # which parses every line of standard output
        assert service.process.stderr is not None
        assert service.process.stderr.read() == ""
