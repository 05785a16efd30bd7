"""A long array of numbers is cut out of a body and decoded in slices; whatever is odd is left to the usual parser."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.spec import Coding
from spikeserve.service.inference.decoding import numbers
from spikeserve.service.inference.decoding.numbers import LONG_ARRAY, SLICE_BYTES, cut_array
from tests.bundles import publish
from tests.networks import toy
from tests.service.infer_requests import INFER, request
from tests.serving import serving


@pytest.fixture
def any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "LONG_ARRAY", 1)


def body(array: str, **fields: Any) -> bytes:
    rest = "".join(f', "{name}": {json.dumps(value)}' for name, value in fields.items())
    return f'{{"inputs" : {array}{rest}}}'.encode()


@pytest.mark.usefixtures("any_length")
@pytest.mark.parametrize("array", [[1], [-1.5, 2e3], [[1, 2], [3, 4], [5, 6]], [[[1], [2]]], [[[7]]], [[1], [2]]])
def test_an_array_is_cut_out_and_one_zero_of_as_many_axes_stays(array: list[Any]) -> None:
    cut = cut_array(body(json.dumps(array), seed=3), b"inputs", np.float32)
    assert cut is not None
    assert cut.array.tolist() == array
    assert np.shape(json.loads(cut.rest)["inputs"]) == (1,) * np.ndim(array)
    assert json.loads(cut.rest)["seed"] == 3


@pytest.mark.usefixtures("any_length")
@pytest.mark.parametrize(
    "array",
    [
        *("[]", "[[], []]", "[[1, 2], [3]]", "[[1, 2], 3]", "[1,, 2]", "[1 2]", "[1, ]", "[[1], [2]", "[[1], [2]]]"),
        *("[1][2]", "[[1, 2][3, 4]]", "[1], [2]", "[[1], 2, [3]]", "[[[1]], [2]]", "[01]", "[1.]", "[true]", "[-]"),
        *("[null, 1]", "[NaN]", "[1e39]", "[1e999]", "1", "{}", '["1"]'),
    ],
)
def test_what_is_odd_is_not_cut_out(array: str) -> None:
    assert cut_array(body(array), b"inputs", np.float32) is None


@pytest.mark.usefixtures("any_length")
def test_an_escape_or_a_string_of_that_name_or_another_field_is_not_taken_for_it() -> None:
    assert cut_array(b'{"\\u0069nputs": [1]}', b"inputs", np.float32) is None
    assert cut_array(b'{"return": ["inputs", [1]]}', b"inputs", np.float32) is None
    assert cut_array(body("[1]"), b"data", np.float64) is None


def test_a_short_array_stays_in_its_body() -> None:
    array = f"[{' ' * (LONG_ARRAY - 3)}1]"
    assert cut_array(body(array[:-20] + "]"), b"inputs", np.float32) is None


def test_no_slice_has_more_bytes_than_its_length_and_one_number() -> None:
    text = ",".join(["12345"] * 100_000).encode()
    slices = list(numbers._slices(text))
    assert b",".join(slices) == text
    assert {len(each) for each in slices[:-1]} == {SLICE_BYTES // 6 * 6 + 5}  # 65,536 are in the 10,923rd number
    assert all(first and second for first, second in pairwise(slices))


def test_numbers_are_rounded_as_those_of_short_bodies(any_length: None) -> None:  # noqa: ARG001
    rng = np.random.default_rng(1)
    values = [*(rng.random(500) * 10 ** rng.integers(-45, 38, 500).astype(float)).tolist(), 0.1, 2**53 + 1, 16777217]
    cut = cut_array(body(json.dumps(values)), b"inputs", np.float32)
    assert cut is not None
    assert cut.array.tobytes() == np.array(values, np.float32).tobytes()


@pytest.mark.parametrize("nested", [True, False])
def test_long_bodies_are_answered_as_short_ones(client: TestClient, nested: bool) -> None:
    rng = np.random.default_rng(2)
    samples = (rng.random((1024, 2)) * 10).round(9)
    values = samples.tolist()
    long = json.dumps({"inputs": values}).ljust(LONG_ARRAY).replace("[[", "[ [" + " " * LONG_ARRAY)
    tensor = request(values)
    if nested:
        tensor["inputs"][0]["data"] = values
    padded = json.dumps(tensor).replace('"data": [', '"data": [' + " " * LONG_ARRAY)
    native = client.post("/predict", content=long)
    tensors = client.post(INFER, content=padded)
    short = [client.post("/predict", json={"inputs": values[at : at + 100]}).json() for at in range(0, 1024, 100)]
    counts = [each["spike_counts"] for answer in short for each in answer["predictions"]]
    assert [each["spike_counts"] for each in native.json()["predictions"]] == counts
    assert np.reshape(tensors.json()["outputs"][0]["data"], (1024, 2)).tolist() == counts


@pytest.mark.parametrize(
    ("inputs", "status", "sentence"),
    [
        ([[1.0, 2.0, 3.0]], 422, "inputs[0] has shape 3, expected 2"),
        ([[1.0, 2.0], [1.0, 11.0]], 422, "inputs[1][1] is 11, expected 0 to 10"),
        ([1.0, 2.0], 422, "inputs[0] is 0, expected an array"),
        ([[[1.0, 2.0]]], 422, "inputs[0][0] is an array, expected a number"),
        ([[1.0, 2.0], [1.0]], 422, "inputs[1] has shape 1, expected 2"),
        ([[1.0, 1e39]], 422, "inputs[0][1] is 1e+39, expected at most 340282346638528860000000000000000000000"),
    ],
)
def test_what_is_wrong_in_a_long_body_is_said(client: TestClient, inputs: Any, status: int, sentence: str) -> None:
    long = json.dumps({"inputs": inputs}).replace('"inputs": [', '"inputs": [' + " " * LONG_ARRAY)
    answer = client.post("/predict", content=long)
    assert (answer.status_code, answer.json()["error"]) == (status, sentence)


def test_a_long_raster_is_read_as_one_array(tmp_path: Path) -> None:
    publish(tmp_path, toy(Coding.SPIKES))
    rasters = np.random.default_rng(3).integers(0, 2, (40, 500, 2))
    long = json.dumps({"inputs": rasters.tolist()})
    assert len(long) > LONG_ARRAY
    with serving(tmp_path) as client:
        answer = client.post("/predict", content=long)
        alone = client.post("/predict", json={"inputs": rasters[7:8].tolist()})
    assert answer.json()["time_steps"] == 500
    assert answer.json()["predictions"][7] == alone.json()["predictions"][0]
