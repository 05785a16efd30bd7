"""The work that one request may ask for is bounded, and what is over a bound is named before anything runs.

Samples of events reach the engine as events, and no raster of them is made on the way.
"""

import json
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.coding import EventInputs
from spikeserve.models.spec import Coding
from spikeserve.service.catalog import limits
from spikeserve.service.catalog.limits import SPARE, ModelLimits
from spikeserve.service.inference.protocols.native.codec import to_samples
from spikeserve.service.inference.protocols.native.schemas import request_type
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.service.infer_requests import INFER
from tests.serving import serving


def test_more_neuron_steps_than_twice_the_values_are_413(tmp_path: Path) -> None:
    # Six layers of one neuron: a sample of two steps is 2 values of the widest layer and 12 neuron steps.
    nodes = [{"type": "IF", "name": f"layer_{place}"} for place in range(6)]
    publish(tmp_path, network_of(nodes, {}, **task(1, 2, ["only"])))
    with serving(tmp_path, max_values=6) as client:
        assert client.post("/predict", json={"inputs": [[1]]}).status_code == 200
        answer = client.post("/predict", json={"inputs": [[1]] * 2})
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "inputs has 2 samples, which at 2 time_steps of this model's 6 neurons are 24 neuron steps, "
        "expected at most 12"
    }


@pytest.mark.parametrize(
    ("values", "found"),
    [
        # A comma each but the last; 1,024 samples of two values, and 2**14 marks beside them.
        (b"0," * 18_433, "18433 commas, expected at most 18432"),
        (b"[0]," * 18_433, "18433 commas, expected at most 18432"),
        (b"[] " * 17_408, "17410 lists and objects, expected at most 17408"),
        (b"{} " * 17_408, "17410 lists and objects, expected at most 17408"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", INFER])
def test_a_body_of_too_many_values_or_lists_is_413(client: TestClient, path: str, values: bytes, found: str) -> None:
    answer = client.post(path, content=b'{"inputs": [' + values + b"0]}")
    assert answer.status_code == 413
    assert answer.json()["error"].startswith(f"the body has {found} in one request for this model")


SHAPES = ([6], [2, 3], [2, 3, 4])


@pytest.mark.parametrize(("coding", "shape"), list(product((Coding.DIRECT, Coding.SPIKES, Coding.CURRENT), SHAPES)))
def test_a_body_may_hold_the_largest_samples(monkeypatch: pytest.MonkeyPatch, coding: Coding, shape: list[int]) -> None:
    monkeypatch.setattr(limits, "SAMPLES", 5)
    # 5 samples, and where each step has values 7 steps each: what is beside them is two brackets.
    size = int(np.prod(shape))
    labels = [str(unit) for unit in range(size)]
    nodes = [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}]
    spec = network_of(nodes, {}, **task(shape, 3, labels, coding)).spec
    most = ModelLimits(spec, Settings(max_time_steps=7))
    steps = [7] if coding.per_step else []
    nested = json.dumps({"inputs": np.zeros((5, *steps, *shape)).tolist()})
    assert nested.count(",") <= most.commas - SPARE
    assert 0 <= most.brackets - SPARE - (nested.count("[") - 1) <= 5 * 5
    if coding is Coding.SPIKES:
        fields = ("t", "x", "y", "p")
        events = json.dumps({"inputs": [{field: [0] * 7 * size for field in fields} for _ in range(5)]})
        assert events.count(",") <= most.commas - SPARE + 5
        assert events.count("[") + events.count("{") <= most.brackets - SPARE + 2
    less = ModelLimits(spec, Settings(max_time_steps=7, max_values=2 * size))
    assert less.commas < most.commas


def test_the_memory_of_events_follows_their_number_and_steps_not_the_sensor() -> None:
    # 1000 events: 4 bytes of units, the lists' integers and some copies of them, beside a raster of 52 MB.
    plain, rng = toy(Coding.SPIKES, 100).spec, np.random.default_rng(0)
    spec = plain.model_copy(update={"input": plain.input.model_copy(update={"shape": (2, 256, 256)})})
    columns = {
        name: rng.integers(0, most, 1000).tolist() for name, most in zip("txyp", (100, 256, 256, 2), strict=True)
    }
    request = request_type(spec).model_validate({"inputs": [columns]})
    tracemalloc.start()
    try:
        inputs = to_samples(request.inputs, spec, 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(inputs, EventInputs)
    assert inputs.nbytes <= 1000 * 4 + 101 * 8
    assert peak < 200_000


def test_a_raster_of_more_spikes_than_may_be_recorded_is_422(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A value of 3 has room for a threshold of 1/4 twelve times, at each of two steps: 24 spikes of one neuron.
    network = network_of(
        [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": 0.25}],
        {},
        **task(1, 2, ["only"], low=0, high=4),
    )
    publish(tmp_path, network)
    body = {"inputs": [[3]], "return": ["raster"]}
    monkeypatch.setattr(limits, "RECORDED_VALUES", 24)
    with serving(tmp_path) as client:
        assert len(client.post("/models/toy/predict", json=body).json()["predictions"][0]["raster"]["many"]["t"]) == 24
    monkeypatch.setattr(limits, "RECORDED_VALUES", 23)
    with serving(tmp_path) as client:
        refused = client.post("/models/toy/predict", json=body)
    assert refused.status_code == 422
    assert refused.json() == {
        "error": "return has 'raster', which for these inputs holds 24 spikes, expected at most 23"
    }
