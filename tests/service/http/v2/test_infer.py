"""What an infer request is answered, by hand and beside the native route."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.service.infer_requests import HEADER, INFER, binary_request, outputs, request

# Decay 0.5, threshold 1, three steps: 0.6 charges 0.60, 0.90, 1.05, one spike; 2 fires at each step, as 3 does.
SAMPLES = [[0.6, 2], [3, 0]]
COUNTS = [[1, 3], [3, 0]]


def native(http: httpx.Client, model: str, values: Any, **more: Any) -> dict[str, Any]:
    """Return the native answer in the form of this protocol's outputs."""
    answer = http.post(f"/models/{model}/predict", json={"inputs": values, **more})
    assert answer.status_code == 200, answer.text
    columns: dict[str, Any] = {}
    for prediction in answer.json()["predictions"]:
        for name, value in prediction.items():
            columns.setdefault(name, []).append(value if isinstance(value, list) else [value])
    return columns


def test_an_answer_has_every_output_and_the_id(http: httpx.Client) -> None:
    answer = http.post(INFER, json=request(SAMPLES, id="42"))
    assert HEADER not in answer.headers
    body = answer.json()
    assert {name: body[name] for name in ("model_name", "model_version", "id")} == {
        "model_name": "toy",
        "model_version": "1",
        "id": "42",
    }
    assert [(each["name"], each["datatype"], each["shape"]) for each in body["outputs"]] == [
        ("spike_counts", "INT64", [2, 2]),
        ("probabilities", "FP32", [2, 2]),
        ("class_index", "INT64", [2, 1]),
        ("label", "BYTES", [2, 1]),
        ("synaptic_operations", "INT64", [2, 1]),
    ]
    found = outputs(answer)
    assert found["spike_counts"] == COUNTS
    assert found["label"] == [["right"], ["left"]]
    assert found == native(http, "toy", SAMPLES)


def test_only_the_outputs_that_are_asked_for_come_back_in_their_order(http: httpx.Client) -> None:
    asked = [{"name": "class_index"}, {"name": "spike_counts"}]
    answer = http.post(INFER, json=request(SAMPLES, outputs=asked))
    assert list(outputs(answer).items()) == [("class_index", [[1], [0]]), ("spike_counts", COUNTS)]


def test_an_output_says_for_itself_whether_it_is_bytes(http: httpx.Client) -> None:
    asked = [
        {"name": "label"},
        {"name": "spike_counts", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    answer = http.post(INFER, json=request(SAMPLES, outputs=asked, parameters={"binary_data_output": True}))
    header = json.loads(answer.content[: int(answer.headers[HEADER])])
    # "right" and "left" are 5 and 4 bytes after 4 of length each; four FP32 are 16 bytes.
    assert [each.get("parameters") for each in header["outputs"]] == [
        {"binary_data_size": 17},
        None,
        {"binary_data_size": 16},
    ]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    expected = native(http, "toy", SAMPLES)
    assert outputs(answer) == {name: expected[name] for name in ("label", "spike_counts", "probabilities")}


def test_a_raster_runs_for_as_many_steps_as_it_has(http: httpx.Client) -> None:
    raster = [[0, 1], [1, 1], [0, 0], [1, 0], [1, 0]]
    answer = http.post("/v2/models/spikes/infer", json=request([raster], parameters={"time_steps": 5}))
    assert outputs(answer) == native(http, "spikes", [raster])
    answer = http.post("/v2/models/spikes/infer", json=request([raster], parameters={"time_steps": 4}))
    assert answer.status_code == 400
    assert answer.json() == {"error": "parameters.time_steps is 4, but inputs[0] has 5 steps"}


def test_time_steps_and_seed_are_parameters(http: httpx.Client) -> None:
    answers = []
    for seed in (1, 2):
        parameters = {"time_steps": 50, "seed": seed}
        answer = http.post("/v2/models/rate/infer", json=request([[0.5, 0.5]], parameters=parameters))
        assert outputs(answer) == native(http, "rate", [[0.5, 0.5]], **parameters)
        answers.append(outputs(answer))
    assert answers[0] != answers[1]


def test_a_membrane_readout_is_an_output_of_its_own(http: httpx.Client) -> None:
    # Two steps of 1.5 and -2 sum to 3 and -4.
    answer = http.post("/v2/models/integrator/infer", json=request([[1.5, -2.0]], outputs=[{"name": "readout"}]))
    assert outputs(answer) == {"readout": [[3.0, -4.0]]}
    assert "readout" not in outputs(http.post(INFER, json=request(SAMPLES)))


def test_classification_gives_the_greatest_as_text_and_a_tie_to_the_lower_index(http: httpx.Client) -> None:
    asked = [{"name": "spike_counts", "parameters": {"classification": 5}}]
    answer = http.post(INFER, json=request([[0.6, 2], [3, 3]], outputs=asked))
    assert answer.json()["outputs"][0]["datatype"] == "BYTES"
    assert outputs(answer) == {"spike_counts": [["3:1:right", "1:0:left"], ["3:0:left", "3:1:right"]]}
    asked = [{"name": "readout", "parameters": {"classification": 1, "binary_data": True}}]
    answer = http.post("/v2/models/integrator/infer", json=request([[1.5, -2.0]], outputs=asked))
    assert outputs(answer) == {"readout": [["3.000000:0:left"]]}


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("BOOL", "?"), ("UINT8", "<u1"), ("UINT16", "<u2"), ("UINT32", "<u4"), ("UINT64", "<u8"), ("INT8", "<i1"),
        ("INT16", "<i2"), ("INT32", "<i4"), ("INT64", "<i8"), ("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8"),
    ],
)  # fmt: skip
def test_any_datatype_of_numbers_is_taken_as_json_and_as_bytes(http: httpx.Client, datatype: str, dtype: str) -> None:
    array = np.array([[0, 1], [1, 1]], dtype)
    expected = native(http, "toy", [[0, 1], [1, 1]])
    body, headers = binary_request(array, datatype)
    assert outputs(http.post(INFER, json=request(array, datatype))) == expected
    assert outputs(http.post(INFER, content=body, headers=headers)) == expected


@pytest.mark.parametrize("path", ["/v2/models/toy/versions/1/infer", INFER])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("DEFLATE", lambda body: zlib.compress(body, wbits=-15))],
)
def test_a_compressed_request_counts_it_unpacked(http: httpx.Client, path: str, encoding: str, compress: Any) -> None:
    body, headers = binary_request(np.array(SAMPLES, "<f4"))
    answer = http.post(path, content=compress(body), headers=headers | {"Content-Encoding": encoding})
    assert outputs(answer) == native(http, "toy", SAMPLES)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.sampled_from(["FP32", "FP64", "INT32"]).flatmap(
        lambda datatype: st.tuples(
            st.just(datatype),
            arrays.arrays(
                {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4"}[datatype],
                st.tuples(st.integers(1, 4), st.just(2)),
                elements=st.integers(0, 10)
                if datatype == "INT32"
                else st.floats(0, 10, width=32 if datatype == "FP32" else 64),
            ),
        )
    ),
    time_steps=st.integers(1, 9),
)
def test_json_bytes_and_the_native_route_agree(http: httpx.Client, values: tuple[str, Any], time_steps: int) -> None:
    datatype, array = values
    more: dict[str, Any] = {"parameters": {"time_steps": time_steps}}
    body, headers = binary_request(array, datatype, **more)
    expected = native(http, "toy", array.tolist(), time_steps=time_steps)
    assert outputs(http.post(INFER, json=request(array, datatype, **more))) == expected
    assert outputs(http.post(INFER, content=body, headers=headers)) == expected
    more["parameters"]["binary_data_output"] = True
    assert outputs(http.post(INFER, json=request(array, datatype, **more))) == expected
