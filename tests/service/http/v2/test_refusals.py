"""What a server must refuse: each a 4xx of one sentence, and the answer that follows is as right as before."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve.service.errors import TooLarge
from spikeserve.service.inference.protocols.v2.parsing import parse
from spikeserve.service.inference.protocols.v2.schemas import InferRequest
from tests.service.infer_requests import HEADER, INFER, binary_request, outputs, request

SAMPLE = np.array([[0.6, 2]], "<f4")
BYTES, HEADERS = binary_request(SAMPLE)
LENGTH = int(HEADERS[HEADER])


def changed(**fields: Any) -> str:
    """Return a request whose input differs by `fields`."""
    body = request([[0.6, 2.0]])
    body["inputs"][0] |= fields
    return json.dumps(body)


def of(**fields: Any) -> str:
    """Return a request that differs by `fields`."""
    return json.dumps(request([[0.6, 2.0]]) | fields)


def tensor(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = request([[0.6, 2.0]])["inputs"][0]
    return found | fields


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        ("[" * 16_000, "the body is not JSON: recursion limit exceeded"),
        ('{"inputs": ' + "[" * 199 + "]" * 199 + "}", "inputs[0] "),
        ('{"id": "' + '[{\\"' * 99 + '", "inputs": ' + "[1]" * 1 + "}", "inputs[0] "),
        (b"\xff\xfe{}", "the body is not JSON: expected value at line 1 column 1"),
        (of().encode("utf-16"), "the body is not JSON"),
        (of(id="1").replace('"id"', '"id": "2", "id"'), "the body says the name of a field twice"),
        ("[]", "the body is an array, expected an object"),
        ("{}", "inputs is missing"),
        (of(inputs=[]), "inputs holds 0 tensors, expected one, 'inputs'"),
        (of(inputs={}), "inputs is an object, expected an array"),
        (of(more=1), "more is not a field here, expected one of id, model_name, parameters, inputs, outputs"),
        (of(id=7), "id is 7, expected"),
        (of(model_name="other"), "model_name is 'other', expected 'toy' as in the path"),
        (of(parameters={"time_steps": {}}), "parameters.time_steps is an object, expected an integer"),
        (changed(name="other"), "inputs[0].name is 'other', expected 'inputs'"),
        (changed(datatype="FP33"), "inputs[0].datatype is 'FP33', expected 'BOOL', 'UINT8'"),
        (changed(datatype="BYTES", data=["a", "b"]), "inputs[0].datatype is BYTES, expected FP32"),
        (changed(shape=[-1, 2]), "inputs[0].shape[0] is -1, expected at least 0"),
        (changed(shape=[1.0, 2]), "inputs[0].shape[0] is 1.0, expected an integer"),
        (changed(shape=[2**63, 2]), "inputs[0].shape[0] is 9223372036854775808, expected at most"),
        (changed(shape=[1] * 10_000), "inputs[0].shape"),
        (changed(shape=[2**62, 2]), "inputs has 4611686018427387904 samples, expected at most 1024"),
        (changed(data=None), "inputs[0].data is missing"),
        (changed(data=1), "inputs[0].data is 1, expected an array"),
        (changed(data=[[1.0], [2.0]]), "inputs[0].data holds a row of 2 where its shape 1×2 has 1"),
        (changed(data=[[[1.0, 2.0]]]), "inputs[0].data holds a row of 1 where its shape 1×2 has 2"),
        (changed(data=[[1.0, [2.0]]]), "inputs[0].data holds an array at 1, expected a number"),
        (changed(data=[1.0, "2"]), "inputs[0].data holds '2' at 1, expected a number as FP32 is"),
        (changed(data=[1.0, None]), "inputs[0].data holds null at 1, expected a number"),
        (of().replace("2.0", "1e39"), "inputs[0].data holds 1e+39, expected a number within ±3.40282e+38"),
        (of().replace("2.0", "9" * 400), "inputs[0].data holds an integer beyond ±3.40282e+38"),
        (of().replace("2.0", "9" * 5000), "the body is not JSON: number out of range"),
        (changed(datatype="INT8", data=[1, 128]), "inputs[0].data holds 128, expected -128 to 127"),
        (changed(datatype="UINT64", data=[1, -1]), "inputs[0].data holds -1, expected 0 to 18446744073709551615"),
        (changed(datatype="INT64", data=[1, 2**64]), "inputs[0].data holds 18446744073709551616, expected"),
        (changed(datatype="INT64", data=[1, 2**24 + 1]), "inputs[0] holds 16777217, expected integers within ±1677"),
        (changed(datatype="INT8", data=[1, 1.0]), "inputs[0].data holds 1.0 at 1, expected an integer as INT8 is"),
        (changed(datatype="BOOL", data=[1, 0]), "inputs[0].data holds 1 at 0, expected true or false as BOOL is"),
        (changed(parameters={"binary_data_size": 8}), "inputs[0] has data and binary_data_size"),
        (changed(parameters={"binary_data_size": 8}, data=None), "binary_data_size is 8, but 0 bytes follow the JSON"),
        (changed(parameters={"binary_data_size": -8}), "inputs[0].parameters.binary_data_size is -8, expected"),
        (changed(parameters={"shared_memory_region": "r"}), "shared_memory_region is not a field here"),
        (of(outputs=[{"name": "logits"}]), "outputs[0].name is 'logits', expected one of spike_counts, probabilities"),
        (of(outputs=[{"name": "label"}] * 2), "outputs[1].name is 'label' again, expected each output once"),
        (of(outputs=[{}]), "outputs[0].name is missing"),
        (of(outputs=[{"name": "label", "parameters": {"classification": 1}}]), "'label' has no value for each class"),
        (of(outputs=[{"name": "spike_counts", "parameters": {"classification": 0}}]), "is 0, expected at least 1"),
        (of(outputs=[{"name": "spike_counts", "parameters": {"binary_data": 1}}]), "is 1, expected true or false"),
        (of(outputs=[{"name": "spike_counts", "parameters": {"top": 1}}]), "expected one of binary_data, classificat"),
    ],
)  # fmt: skip
def test_json_that_is_wrong_is_named(http: httpx.Client, body: str | bytes, sentence: str) -> None:
    refused(http, http.post(INFER, content=body), {400, 413} if "samples" in sentence else {400}, sentence)


def refused(http: httpx.Client, answer: httpx.Response, statuses: set[int], sentence: str) -> None:
    """Check a refusal, and that the next request is answered as ever."""
    assert answer.status_code in statuses, answer.text
    assert answer.json().keys() == {"error"}
    assert sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 400
    assert outputs(http.post(INFER, content=BYTES, headers=HEADERS))["spike_counts"] == [[1, 3]]


@pytest.mark.parametrize(
    ("length", "body", "sentence"),
    [
        ("99999999999", BYTES, f"{HEADER} is '99999999999', expected 0 to {len(BYTES)}"),
        ("9" * 5000, BYTES, f"{HEADER} is '9999"),
        ("-1", BYTES, f"{HEADER} is '-1'"),
        ("many", BYTES, f"{HEADER} is 'many'"),
        ("", BYTES, f"{HEADER} is ''"),
        ("0", BYTES, "the body is not JSON: EOF while parsing a value"),
        (str(LENGTH - 1), BYTES, "the body is not JSON"),
        (str(LENGTH + 1), BYTES, "the body is not JSON"),
        (None, BYTES, "the body is not JSON"),
        (str(LENGTH), BYTES[:-1], "binary_data_size is 8, but 7 bytes follow the JSON"),
        (str(LENGTH), BYTES + b"?", "binary_data_size is 8, but 9 bytes follow the JSON"),
        (str(LENGTH), BYTES[:LENGTH], "binary_data_size is 8, but 0 bytes follow the JSON"),
    ],
)  # fmt: skip
def test_bytes_that_do_not_fit_are_named(http: httpx.Client, length: str | None, body: bytes, sentence: str) -> None:
    headers = {} if length is None else {HEADER: length}
    refused(http, http.post(INFER, content=body, headers=headers), {400}, sentence)


def test_bytes_that_are_not_what_the_json_says_are_named(http: httpx.Client) -> None:
    for array, datatype, sentence in (
        (SAMPLE, "FP64", "inputs[0] has 8 bytes, expected 16 for FP64 of shape 1×2"),
        (np.array([[1, 2]], "u1"), "BOOL", "inputs[0] holds a byte that is neither 0 nor 1, expected BOOL"),
    ):
        body, headers = binary_request(array, datatype)
        refused(http, http.post(INFER, content=body, headers=headers), {400}, sentence)
    for surplus in (1, 4, 8):  # which the JSON counts in
        said = tensor(parameters={"binary_data_size": 8 + surplus})
        del said["data"]
        header = json.dumps({"inputs": [said]}).encode()
        body, headers = header + SAMPLE.tobytes() + bytes(surplus), {HEADER: str(len(header))}
        sentence = f"inputs[0] has {8 + surplus} bytes, expected 8 for FP32 of shape 1×2"
        refused(http, http.post(INFER, content=body, headers=headers), {400}, sentence)
    blob = json.dumps(request([[0.6, 2.0]])).encode()
    answer = http.post(INFER, content=blob + b"12345678", headers={HEADER: str(len(blob))})
    refused(http, answer, {400}, "the body has 8 bytes after its JSON, but no input says binary_data_size")


def test_however_much_a_model_takes_a_body_has_no_more_lists_than_python_holds_well() -> None:
    with pytest.raises(TooLarge, match="1048578 lists and objects, expected at most 1048576; send bytes"):
        parse(b'{"inputs": [' + b"[]," * (2**20 - 1) + b"[]]}", InferRequest)


# Names and versions that nobody serves, as they stand in a path.
NAMES = ["%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5cwindows", "%00", "a%0d%0aX-Odd:%20b", "%ff%fe", "%", "*", "x" * 9000]
VERSIONS = ["0", "-1", "01", "+1", "1.0", "latest", "%31%00", "%EF%BC%91", "9" * 5000]
PLACES = [f"/v2/models/{name}" for name in NAMES] + [f"/v2/models/toy/versions/{version}" for version in VERSIONS]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:40])
def test_an_odd_name_or_version_is_served_nowhere(http: httpx.Client, place: str) -> None:
    for method, last in (("GET", ""), ("GET", "/ready"), ("GET", "/config"), ("POST", "/infer")):
        answer = http.request(method, f"{place}{last}", content=b"{}")
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
        assert len(answer.json()["error"]) < 300


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/v2/repository/index", "[]", "the body is an array, expected an object"),
        ("/v2/repository/index", '{"ready": 1}', "ready is 1, expected"),
        ("/v2/repository/models/toy/load", '{"parameters": {"config": "{}"}}',
            "parameters is an object, expected none, since a model is what its bundle"),
        ("/v2/repository/models/toy/unload", '{"parameters": {"now": true}}', "parameters.now is not a field here"),
        ("/v2/repository/models/toy/unload", "{", "the body is not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_call_of_the_repository_does_nothing(http: httpx.Client, path: str, body: str, sentence: str) -> None:
    refused(http, http.post(path, content=body), {400}, sentence)


def test_a_call_to_the_repository_has_a_short_body(http: httpx.Client) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/toy/load", "/v2/repository/models/toy/unload"):
        answer = http.post(path, content=b" " * 2**16 + b"{}")
        refused(http, answer, {413}, "the body has 65538 bytes, expected at most 65536 here")
