"""Requests that say `stop`: samples end early, and say after how many steps; in both protocols."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.bundle.repository import ModelRepository
from tests.bundles import contents, publish
from tests.models.test_anytime import calibration
from tests.networks import regression, toy
from tests.service.infer_requests import INFER, outputs, request
from tests.serving import serving

# Of the toy network's two neurons, the first fires at each of eight steps: after 5 it is 5 ahead, with 3 to come. The
# second sample's are level to the end, and so are those of the third, which never fire.
CLEAR, LEVEL, SILENT = [1.0, 0.0], [1.0, 1.0], [0.25, 0.25]
EARLY: dict[str, Any] = {"inputs": [CLEAR, LEVEL, SILENT], "time_steps": 8, "stop": "decided"}
CALIBRATION = calibration(0.5, first=2)


@pytest.fixture
def calibrated(tmp_path: Path) -> Iterator[TestClient]:
    """A client of the toy network of eight steps, with a calibration."""
    ModelRepository(tmp_path).publish(replace(contents(toy(time_steps=8)), calibration=CALIBRATION))
    with serving(tmp_path) as client:
        yield client


def test_what_is_recorded_ends_with_its_sample(client: TestClient) -> None:
    body = EARLY | {"return": ["raster", "membrane", "spikes_per_node"]}
    clear, level, _ = client.post("/predict", json=body).json()["predictions"]
    assert clear["raster"] == {"out": {"t": [0, 1, 2, 3, 4], "unit": [0] * 5}}
    assert clear["membrane"] == {"out": [[0.0, 0.0]] * 5}
    assert clear["spikes_per_node"] == {"out": 5}
    assert len(level["membrane"]["out"]) == 8


def test_a_confident_sample_ends_by_the_calibration_of_its_model(calibrated: TestClient) -> None:
    # It is looked at after 2, 3, 5 and 8 steps, and its lead n has to be 0.5 for each of the 8 - n that remain: 3 is
    # more than 2.5.
    answer = calibrated.post("/predict", json=EARLY | {"stop": "confident"}).json()
    assert [each["steps_used"] for each in answer["predictions"]] == [3, 8, 8]
    described = calibrated.get("/models/toy").json()["calibration"]
    assert described == CALIBRATION.model_dump()
    other = calibrated.post("/predict", json=EARLY | {"stop": "confident", "time_steps": 9})
    assert other.status_code == 422
    assert other.json() == {
        "error": "stop is 'confident', but time_steps is 9, and the model is calibrated for 8"
    }  # the threshold is for each of the steps that remain of 8


def test_what_a_model_cannot_do_is_a_sentence(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/models/toy").json()["calibration"] is None
    publish(tmp_path / "values", regression(), "values")
    with serving(tmp_path / "values") as values:
        for asked, body, sentence in (
            (client, EARLY | {"stop": "confident"}, "stop is 'confident', but the model has no calibration for it"),
            (client, EARLY | {"stop": "soon"}, "stop is 'soon', expected 'decided' or 'confident'"),
            (client, EARLY | {"stop": 1}, "stop is 1, expected 'decided' or 'confident'"),
            (values, {"inputs": [[1, 1]], "stop": "decided"}, "stop is 'decided', but the model gives values and no"),
        ):
            refused = asked.post("/predict", json=body)
            assert refused.status_code == 422
            assert refused.json()["error"].startswith(sentence)


def test_the_steps_that_were_saved_are_counted(fresh: TestClient) -> None:
    fresh.post("/predict", json=EARLY)
    lines = fresh.get("/metrics").text.splitlines()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counted['spikeserve_steps_saved_total{model="toy",version="1"}'] == 3
    # Two neurons, which took 5, 8 and 8 steps.
    assert counted['spikeserve_layer_neuron_steps_total{layer="out",model="toy",version="1"}'] == 2 * 21


def test_the_protocol_has_the_steps_as_an_output(client: TestClient) -> None:
    body = request(EARLY["inputs"], parameters={"time_steps": 8, "stop": "decided"})
    found = outputs(client.post(INFER, json=body))
    assert found["steps_used"] == [[5], [8], [8]]
    assert found["spike_counts"] == [[5, 0], [8, 8], [0, 0]]
    whole = outputs(client.post(INFER, json=request(EARLY["inputs"], parameters={"time_steps": 8})))
    assert "steps_used" not in whole
    asked = request([CLEAR], outputs=[{"name": "steps_used"}])
    assert outputs(client.post(INFER, json=asked)) == {"steps_used": [[3]]}  # all of the toy's


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"stop": "soon"}, "parameters.stop is 'soon', expected 'decided' or 'confident'"),
        ({"stop": "confident"}, "parameters.stop is 'confident', but the model has no calibration for it"),
        (
            {"stop": "decided", "sequence_id": 7, "sequence_start": True},
            "parameters.stop is 'decided', but a sequence goes on after the last step",
        ),
    ],
)
def test_the_protocol_refuses_with_a_sentence(client: TestClient, parameters: dict[str, Any], sentence: str) -> None:
    refused = client.post(INFER, json=request([CLEAR], parameters=parameters))
    assert refused.status_code == 400
    assert refused.json()["error"].startswith(sentence)
