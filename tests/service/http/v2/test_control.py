"""Health, metadata and configuration, and models that are loaded and unloaded at run time."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.bundle.repository import shipped_names
from spikeserve.models.spec import Coding
from spikeserve.models.version import VERSION
from tests.bundles import publish
from tests.networks import toy
from tests.service.infer_requests import INFER, outputs, request
from tests.serving import serving

INDEX, LOAD, UNLOAD = (f"/v2/repository/{call}" for call in ("index", "models/toy/load", "models/toy/unload"))


def counts(client: TestClient, path: str = INFER) -> Any:
    return outputs(client.post(path, json=request([[1.0, 0.0]])))["spike_counts"]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_names_itself_and_its_extensions(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert {"name": "spikeserve", "version": VERSION}.items() <= answer.json().items()
    extensions = set(answer.json()["extensions"])
    assert {"binary_tensor_data", "classification", "model_repository"} <= extensions
    assert "statistics" not in extensions  # perf_analyzer asks for them where they are listed


def test_health(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/toy/ready", "/v2/models/toy/versions/1/ready"):
        assert http.get(path).json() == {"name": "toy", "ready": True}


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_metadata_says_what_varies_and_configuration_leaves_the_batch_out(http: httpx.Client, version: str) -> None:
    metadata = http.get(f"/v2/models/spikes{version}").json()
    assert {name: metadata[name] for name in ("name", "versions", "platform", "inputs")} == {
        "name": "spikes",
        "versions": ["1"],
        "platform": "spikeserve",
        "inputs": [{"name": "inputs", "datatype": "FP32", "shape": [-1, -1, 2]}],
    }
    config = http.get(f"/v2/models/spikes{version}/config").json()
    assert config["input"] == [{"name": "inputs", "data_type": "TYPE_FP32", "dims": [-1, 2]}]
    assert [(each["name"], [-1, *each["dims"]]) for each in config["output"]] == [
        (each["name"], each["shape"]) for each in metadata["outputs"]
    ]
    assert config["max_batch_size"] == 1024
    assert config["parameters"]["time_steps"] == {"string_value": "3"}
    assert config["sequence_batching"] == {"max_sequence_idle_microseconds": 60_000_000, "direct": {}}


def test_the_configuration_of_a_regression_has_names_and_units_and_its_outputs_no_classes(http: httpx.Client) -> None:
    outputs = [output["name"] for output in http.get("/v2/models/arm").json()["outputs"]]
    assert outputs == ["values", "spike_counts", "synaptic_operations"]
    parameters = http.get("/v2/models/arm/config").json()["parameters"]
    assert parameters["scores"] == {"string_value": "values"}
    assert [json.loads(parameters[name]["string_value"]) for name in ("names", "units")] == [
        ["angle", "speed"], ["rad", "m/s"],
    ]  # fmt: skip
    asked = request([[0.0, 0.0]], outputs=[{"name": "values", "parameters": {"classification": 2}}])
    sentence = "outputs[0].parameters.classification is 2, but the model gives values and no classes"
    assert http.post("/v2/models/arm/infer", json=asked).json()["error"].startswith(sentence)


def test_the_configuration_of_a_model_without_sequences_has_no_sequence_batching(repository: Path) -> None:
    publish(repository, toy(Coding.LATENCY), "latency")
    with serving(repository) as client:
        assert "sequence_batching" not in client.get("/v2/models/latency/config").json()


def test_the_largest_batch_is_one_that_is_answered(repository: Path) -> None:
    # 70 values over 3 steps of 2 neurons are 11 samples.
    with serving(repository, max_values=70) as client:
        assert client.get("/v2/models/toy/config").json()["max_batch_size"] == 11
        assert client.post(INFER, json=request([[1.0, 0.0]] * 11)).status_code == 200
        assert client.post(INFER, json=request([[1.0, 0.0]] * 12)).status_code == 413
        fewer = request([[1.0, 0.0]] * 12, parameters={"time_steps": 2})
        assert client.post(INFER, json=fewer).status_code == 200


def test_a_model_that_is_unloaded_answers_no_more_until_it_is_loaded(client: TestClient) -> None:
    assert client.post(INDEX).json() == [{"name": "toy", "version": "1", "state": "READY", "reason": ""}]
    unloaded = client.post(UNLOAD, json={"parameters": {"unload_dependents": False}})
    assert (unloaded.status_code, unloaded.json()) == (200, {"name": "toy", "load": False})
    gone = "model 'toy' is not served here; this server has: none"
    for answer in (
        client.post(INFER, json=request([[1.0, 0.0]])),
        client.post("/predict", json={"inputs": [[1, 0]]}),
        client.get("/v2/models/toy"),
        client.get("/v2/models/toy/ready"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"error": gone})
    assert client.get("/v2/health/ready").json() == {"error": "no model is loaded"}
    assert client.get("/v2/health/live").status_code == client.get("/openapi.json").status_code == 200
    entry = {"name": "toy", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert client.post(INDEX, json={}).json() == [entry]
    assert client.post(INDEX, json={"ready": True}).json() == []
    assert client.post(LOAD).json() == {"name": "toy", "load": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert counts(client) == [[3, 0]]


def test_the_models_that_ship_are_loaded_by_name_beside_a_repository_where_that_is_allowed(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    load = "/v2/repository/models/digits/load"
    with serving(tmp_path) as client:
        assert client.post(load).status_code == 404
    with serving(tmp_path, gallery=True) as client:
        assert [each["name"] for each in client.get("/models").json()["models"]] == ["toy"]
        listed = client.post(INDEX).json()
        assert [each["name"] for each in listed] == ["toy", *sorted(shipped_names())]
        assert client.post(load).status_code == 200
        assert client.post("/models/digits/predict", json={"inputs": [[0] * 64]}).json()["model"] == "digits"
        assert client.post("/v2/repository/models/nothing/load").status_code == 404
    assert [each.name for each in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b" \r\n\t", 200), (b"\x0c", 400), (b"\xa0", 400)])
def test_a_body_that_is_no_white_space_has_to_be_json(client: TestClient, body: bytes, status: int) -> None:
    assert client.post(INDEX, content=body).status_code == status


def test_an_id_comes_back_where_it_is_text(client: TestClient) -> None:
    answer = client.post(INFER, content=json.dumps(request([[1.0, 0.0]], id="\ud800é")))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is not JSON: ")
    assert client.post(INFER, json=request([[1.0, 0.0]], id="é")).json()["id"] == "é"
