"""The work that one request may ask for is bounded, and what is over a bound is named before anything runs.

Samples of events reach the engine as events, and no raster of them is made on the way.
"""

import json
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.coding import EventInputs
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.service.catalog import limits
from spikeserve.service.catalog.limits import SPARE, ModelLimits
from spikeserve.service.inference.protocols.native.codec import to_samples
from spikeserve.service.inference.protocols.native.schemas import request_type
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.service.infer_requests import INFER
from tests.serving import serving

SIX_LAYERS = network_of([{"type": "IF", "name": f"layer_{place}"} for place in range(6)], {}, **task(1, 2, ["only"]))
MANY = network_of(
    [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": 0.25}], {}, **task(1, 2, 1, low=0, high=4)
)
THREE: dict[str, Any] = {"inputs": [[0.25, 1], [0.5, 1], [1, 1]]}
RECORDED = "return has '{}', which for 3 samples at 3 time_steps is 18 values, expected at most 17"


@pytest.mark.parametrize(
    ("network", "limit", "passed", "fits", "body", "status", "sentence"),
    [
        (toy(), "max_time_steps", 9, 10, THREE | {"time_steps": 10}, 422, "time_steps is 10, expected 1 to 9"),
        (toy(), "max_values", 59, 60, THREE | {"time_steps": 10}, 413, "inputs has 3 samples, which at 10 "
            "time_steps are 60 values in this model's widest layer, expected at most 59"),
        (toy(), "max_body_bytes", 34, 35, THREE, 413, "the body has 35 bytes, expected at most 34"),
        # A sample of two steps is 2 values of the widest layer and 12 neuron steps, of which twice as many are allowed.
        (SIX_LAYERS, "max_values", 6, 12, {"inputs": [[1]] * 2}, 413, "inputs has 2 samples, which at 2 time_steps of "
            "this model's 6 neurons are 24 neuron steps, expected at most 12"),
        (toy(), "RECORDED_VALUES", 17, 18, THREE | {"return": ["membrane"]}, 422, RECORDED.format("membrane")),
        (toy(), "RECORDED_VALUES", 17, 18, THREE | {"return": ["raster"]}, 422, RECORDED.format("raster")),
        # A value of 3 has room for a threshold of 1/4 twelve times, at each of two steps: 24 spikes of one neuron.
        (MANY, "RECORDED_VALUES", 23, 24, {"inputs": [[3]], "return": ["raster"]}, 422,
            "return has 'raster', which for these inputs holds 24 spikes, expected at most 23"),
    ],
)  # fmt: skip
def test_a_limit_is_named_where_it_is_passed_and_lets_through_what_just_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network, limit: str, passed: int, fits: int, body: Any,
    status: int, sentence: str,
) -> None:  # fmt: skip
    publish(tmp_path, network)
    for most in (passed, fits):
        if limit.isupper():  # it is of the code, and no setting
            monkeypatch.setattr(limits, limit, most)
        settings: dict[str, Any] = {} if limit.isupper() else {limit: most}
        with serving(tmp_path, **settings) as client:
            answer = client.post("/predict", json=body)
        found = (answer.status_code, answer.json().get("error"))
        assert found == ((status, sentence) if most == passed else (200, None))


COMMAS = "18433 commas, expected at most 18432 in one request for this model"
LISTS = "17410 lists and objects, expected at most 17408 in one request for this model"
STRINGS = b",".join(b'"%d":null' % number for number in range(17_000))


@pytest.mark.parametrize(
    ("content", "native", "tensors"),
    [
        # A comma each but the last; 1,024 samples of two values, and 2**14 marks beside them.
        (b'"inputs": [%b0]' % (b"0," * 18_433), COMMAS, COMMAS),
        (b'"inputs": [%b0]' % (b"[0]," * 18_433), COMMAS, COMMAS),
        (b'"inputs": [%b0]' % (b"[] " * 17_408), LISTS, LISTS),
        (b'"inputs": [%b0]' % (b"{} " * 17_408), LISTS, LISTS),
        # 2 × (10,000 + 4 for each of 1,024 samples) = 28,192 quotation marks at most; over the other protocol 2**15.
        (STRINGS, *(f"34000 quotation marks, expected at most {most}" for most in (28_192, 32_768))),
    ],
)
def test_a_body_of_too_many_values_lists_or_strings_is_413(
    client: TestClient, content: bytes, native: str, tensors: str
) -> None:
    for path, found in (("/predict", native), (INFER, tensors)):
        answer = client.post(path, content=b"{%b}" % content)
        assert (answer.status_code, f"the body has {found}" in answer.text) == (413, True)


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
