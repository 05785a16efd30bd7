"""The work that one request may ask for is bounded, and what is over a bound is named before anything runs.

Samples of events reach the engine as events, and no raster of them is made on the way.

Neurons of every kind behind the service: several spikes a step, membranes of readouts, absent parameters.
"""

import json
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.coding import DenseInputs, EventInputs, encode
from spikeserve.models.spec import Coding, Spec
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


def camera(side: int = 3, time_steps: int = 4, **declared: Any) -> Spec:
    """Return the spec of a camera of 2 × side × side."""
    plain = toy(Coding.SPIKES, time_steps).spec
    shape = {"shape": (2, side, side)} | declared
    return plain.model_copy(update={"input": plain.input.model_copy(update=shape)})


def sent(spec: Spec, *samples: Any) -> Any:
    """Return samples as a request holds them, as `to_samples` makes them."""
    request = request_type(spec).model_validate({"inputs": list(samples)})
    return to_samples(request.inputs, spec, spec.time_steps)


def test_a_raster_among_events_makes_all_of_them_rasters() -> None:
    spec, raster = camera(), np.zeros((4, 2, 3, 3), np.float32)
    raster[1, 0, 2, 1] = 0.5
    values = sent(spec, raster.tolist(), {"t": [3], "unit": [11]})
    assert isinstance(values, np.ndarray)
    np.testing.assert_array_equal(values[0], raster)
    assert np.argwhere(values[1]).tolist() == [[3, 1, 0, 2]]


def test_events_of_an_input_with_an_offset_come_as_the_currents_of_their_raster() -> None:
    inputs = sent(camera(offset=0.25), {"t": [3], "unit": [11]})
    assert isinstance(inputs, DenseInputs)
    raster = np.zeros((1, 4, 2, 3, 3), np.float32)
    raster[0, 3, 1, 0, 2] = 1
    np.testing.assert_array_equal(inputs.steps, encode(raster, camera(offset=0.25)).steps)


def test_the_memory_of_events_follows_their_number_and_steps_not_the_sensor() -> None:
    # 1000 events: 4 bytes of units, the lists' integers and some copies of them, beside a raster of 52 MB.
    spec, rng = camera(256, 100), np.random.default_rng(0)
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


NODES: list[dict[str, Any]] = [
    {"type": "Delay", "name": "delay", "delay": 1},
    {"type": "Scale", "name": "scale", "scale": 2.0},
    {"type": "Threshold", "name": "several", "fire": "multiple"},
    {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
    {"type": "CubaLI", "name": "out", "decay": 0.5, "syn_decay": 0.5},
]


def test_several_spikes_of_a_step_are_as_many_events(tmp_path: Path) -> None:
    network = network_of(
        NODES, {"fc.weight": [[1, 0], [0, 1]]}, **task(2, 3, "ab", "spikes", low=0, high=4, readout="last_membrane")
    )
    publish(tmp_path, network)
    body = {"inputs": [[[1.75, 0.5], [0, 0], [4, 4]]], "return": ["raster", "membrane", "spikes_per_node"]}
    with serving(tmp_path) as client:
        answer = client.post("/models/toy/predict", json=body).json()["predictions"][0]
        described = client.get("/models/toy").json()
    # One step later and doubled: 3.5 gives 3 spikes, 1.0 gives 1. They charge j = 3, 1.5 and v = 3, 0.5 * 3 + 1.5; the
    # other neuron a third of that.
    assert answer["raster"] == {"several": {"t": [1, 1, 1, 1], "unit": [0, 0, 0, 1]}}
    assert answer["spikes_per_node"] == {"several": 4}
    assert answer["membrane"]["out"] == [[0, 0], [3, 1], [3, 1]]
    assert (answer["label"], answer["spike_counts"]) == ("a", [0, 0])
    assert answer["synaptic_operations"] == 4
    assert [(node["name"], node["type"]) for node in described["nodes"]] == [
        (node["name"], node["type"]) for node in NODES
    ]


def test_more_spikes_in_a_step_than_can_be_counted_are_422_for_the_request_that_asks_for_them(tmp_path: Path) -> None:
    # A value of 4 has room for a threshold of 2**-23 2**25 times; one of 1 has it 2**23 times, which can be counted.
    network = network_of(
        [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": 2.0**-23}],
        {},
        **task(1, 2, ["only"], low=0, high=4),
    )
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        refused = client.post("/models/toy/predict", json={"inputs": [[4]]})
        answered = client.post("/models/toy/predict", json={"inputs": [[1]]})
    assert (refused.status_code, refused.json()["error"].partition(",")[0]) == (
        422,
        "node 'many': a neuron fires 33554432 times in one step",
    )
    assert answered.json()["predictions"][0]["spike_counts"] == [2**24]


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
