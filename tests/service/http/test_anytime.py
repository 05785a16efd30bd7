"""Requests that say `stop`: what models say of it, what is counted, and the output of the protocol v2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from spikeserve.models.bundle.repository import ModelRepository
from tests.bundles import contents
from tests.models.test_anytime import calibration
from tests.networks import toy
from tests.service.infer_requests import INFER, outputs, request
from tests.serving import serving

# Of the toy network's two neurons, the first fires at each of eight steps: after 5 it is 5 ahead, with 3 to come. The
# second sample's are level to the end, and so are those of the third, which never fire.
EARLY: dict[str, Any] = {"inputs": [[1.0, 0.0], [1.0, 1.0], [0.25, 0.25]], "time_steps": 8, "stop": "decided"}


def test_a_model_says_how_it_is_calibrated(tmp_path: Path) -> None:
    rule = calibration(0.5, first=2)
    ModelRepository(tmp_path).publish(replace(contents(toy(time_steps=8)), calibration=rule))
    with serving(tmp_path) as client:
        assert client.get("/models/toy").json()["calibration"] == rule.model_dump()


def test_the_steps_that_were_saved_are_counted(fresh: TestClient) -> None:
    fresh.post("/predict", json=EARLY)
    lines = fresh.get("/metrics").text.splitlines()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counted['spikeserve_steps_saved_total{model="toy",version="1"}'] == 3
    # Two neurons, which took 5, 8 and 8 steps.
    assert counted['spikeserve_layer_neuron_steps_total{layer="out",model="toy",version="1"}'] == 2 * 21


def test_the_protocol_has_the_steps_as_an_output_and_no_early_end_in_a_sequence(client: TestClient) -> None:
    asked = request([[1.0, 0.0]], outputs=[{"name": "steps_used"}])
    assert outputs(client.post(INFER, json=asked)) == {"steps_used": [[3]]}  # all of the toy's
    sequence = {"stop": "decided", "sequence_id": 7, "sequence_start": True}
    refused = client.post(INFER, json=request([[1.0, 0.0]], parameters=sequence))
    sentence = "parameters.stop is 'decided', but a sequence goes on after the last step"
    assert (refused.status_code, refused.json()["error"].startswith(sentence)) == (400, True)
