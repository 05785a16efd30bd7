"""The work that one request may ask for is bounded, and what is over a bound is named before anything runs."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.spec import Coding
from spikeserve.service.catalog.limits import SPARE, ModelLimits
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import network_of
from tests.serving import serving


@pytest.mark.parametrize(
    ("limits", "body", "sentence"),
    [
        ({"max_samples": 2}, {"inputs": [[0, 1]] * 3}, "inputs has 3 samples, expected at most 2 in one request"),
        (
            {"max_values": 11},
            {"inputs": [[0, 1]] * 2},
            "inputs has 2 samples, which at 3 time_steps are 12 values in this model's widest layer, "
            "expected at most 11",
        ),
    ],
)
def test_more_work_than_is_allowed_is_413(
    repository: Path, limits: dict[str, Any], body: dict[str, Any], sentence: str
) -> None:
    with serving(repository, **limits) as client:
        answer = client.post("/predict", json=body)
        assert client.post("/predict", json={"inputs": [[0, 1]]}).status_code == 200
    assert answer.status_code == 413
    assert answer.json() == {"error": sentence}


def test_more_neuron_steps_than_twice_the_values_are_413(tmp_path: Path) -> None:
    # Six layers of one neuron: a sample of two steps is 2 values of the widest layer and 12 neuron steps.
    nodes = [{"type": "IF", "name": f"layer_{place}"} for place in range(6)]
    publish(tmp_path, network_of(nodes, {}, input={"shape": [1]}, time_steps=2, labels=["only"]))
    with serving(tmp_path, max_values=6) as client:
        assert client.post("/predict", json={"inputs": [[1]]}).status_code == 200
        answer = client.post("/predict", json={"inputs": [[1]] * 2})
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "inputs has 2 samples, which at 2 time_steps of this model's 6 neurons are 24 neuron steps, "
        "expected at most 12"
    }


def test_json_is_read_only_so_deep(repository: Path) -> None:
    # Read by recursion, which stops at 200, long before the stack does.
    deep = b'{"inputs": ' + b"[" * 10_000
    with serving(repository) as client:
        answer = client.post("/predict", content=deep)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is not JSON: recursion limit exceeded")


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
def test_a_body_of_more_values_or_lists_than_any_request_has_is_refused_before_it_is_parsed(
    client: TestClient, values: bytes, found: str
) -> None:
    answer = client.post("/predict", content=b'{"inputs": [' + values + b"0]}")
    assert answer.status_code == 413
    assert answer.json() == {"error": f"the body has {found} in one request for this model"}


SHAPES = ([6], [2, 3], [2, 3, 4])


@pytest.mark.parametrize(("coding", "shape"), list(product((Coding.DIRECT, Coding.SPIKES, Coding.CURRENT), SHAPES)))
def test_what_a_body_may_hold_is_just_what_the_largest_samples_do(coding: Coding, shape: list[int]) -> None:
    # 5 samples, and where each step has values 7 steps each: what is beside them is two brackets.
    size = int(np.prod(shape))
    labels = [str(unit) for unit in range(size)]
    nodes = [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}]
    task = network_of(nodes, {}, input={"shape": shape}, coding=coding, time_steps=3, labels=labels).spec
    most = ModelLimits(task, Settings(max_samples=5, max_time_steps=7))
    steps = [7] if coding.per_step else []
    nested = json.dumps({"inputs": np.zeros((5, *steps, *shape)).tolist()})
    assert nested.count(",") <= most.commas - SPARE
    assert 0 <= most.brackets - SPARE - (nested.count("[") - 1) <= 5 * 5
    if coding is Coding.SPIKES:
        fields = ("t", "x", "y", "p")
        events = json.dumps({"inputs": [{field: [0] * 7 * size for field in fields} for _ in range(5)]})
        assert events.count(",") <= most.commas - SPARE + 5
        assert events.count("[") + events.count("{") <= most.brackets - SPARE + 2
    less = ModelLimits(task, Settings(max_samples=5, max_time_steps=7, max_values=2 * size))
    assert less.commas < most.commas


def test_a_long_body_of_as_many_values_as_are_allowed_is_answered(client: TestClient) -> None:
    assert client.post("/predict", json={"inputs": [[0.5, 1.25]] * 1024}).status_code == 200
