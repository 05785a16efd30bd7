"""Every row of the error table: the status, and a sentence that names the field, the value and what was expected."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.service.http.answers import error_body
from tests.bundles import publish
from tests.networks import toy
from tests.serving import serving


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ("", 400, "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        ('{"inputs": [[1, 2]}', 400, "the body is not JSON: expected `,` or `]` at line 1 column 19"),
        ("[" * 10_000, 400, "the body is not JSON: recursion limit exceeded at line 1 column 202"),
        ('{"inputs": [[1, 2]], "\\ud800": 1}', 400, "the body is not JSON: unexpected end of hex escape at line 1"),
        ('{"inputs": [[%s, 0]]}' % ("9" * 5000), 400, "the body is not JSON: number out of range at line 1"),
        ('{"inputs": [[1, 2]], "inputs": [[3, 4]]}', 400, "the body says the name of a field twice"),
        ('{"inputs": [[1, 2]], "seed": 1, "s\\u0065ed": 1}', 400, "the body says the name of a field twice"),
        ("[]", 422, "the body is an array, expected an object"),
        ("{}", 422, "inputs is missing"),
        ('{"inputs": 1}', 422, "inputs is 1, expected an array"),
        ('{"inputs": {"0": [1, 2]}}', 422, "inputs is an object, expected an array"),
        ('{"inputs": [1, 2]}', 422, "inputs[0] is 1, expected an array"),
        ('{"inputs": [[1, [2]]]}', 422, "inputs[0][1] is an array, expected a number"),
        ('{"inputs": [[1, true]]}', 422, "inputs[0][1] is true, expected a number"),
        ('{"inputs": [[1, 1e999]]}', 422, "inputs[0][1] is Infinity, expected a finite number"),
        ('{"inputs": [[1, 1%s]]}' % ("0" * 400), 422, "inputs[0][1] is 1000000000"),
        ('{"inputs": [[1, 2]], "steps": 1}', 422, "steps is not a field here, expected one of inputs"),
        ('{"input": [[1, 2]]}', 422, "input is not a field here, expected one of inputs, time_steps, seed, stop, "
         "return; did you mean 'inputs'?"),
        ('{"inputs": [[1, "2"]], "Seed": 1}', 422, "did you mean 'seed'?"),
        ('{"inputs": [[1, 2]], "time_steps": 1.0}', 422, "time_steps is 1.0, expected an integer"),
        ('{"inputs": [[1, 2]], "time_steps": %s}' % ("9" * 4300), 422, "time_steps is 9999999999"),
        ('{"inputs": [[1, 2]], "seed": 18446744073709551616}', 422, "expected at most 18446744073709551615"),
        ('{"inputs": [[1, 2]], "seed": true}', 422, "seed is true, expected an integer"),
        ('{"inputs": [[1, 2]], "return": "raster"}', 422, "return is 'raster', expected an array"),
        (json.dumps(dict.fromkeys(map(str, range(1000)))), 422, "the body has 1001 errors, expected an object"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong_is_named(client: TestClient, body: str | bytes, status: int, sentence: str) -> None:
    answer = client.post("/predict", content=body)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].startswith(sentence) or sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 300


def test_an_error_reads_as_it_is_meant_and_no_text_fails_to_encode() -> None:
    # UTF-8 has no bytes for half a surrogate pair, but JSON has an escape.
    assert error_body("1×8 for '\ud800'") == '{"error": "1×8 for \'\\ud800\'"}'.encode()
    assert json.loads(error_body("1×8 for '\ud800'")) == {"error": "1×8 for '\ud800'"}


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("POST", "/models/%2e%2e/predict", 404, "model '..' is not served here; this server has: toy"),
        ("POST", "/models/toy/versions/01/predict", 404, "model 'toy' has no version '01' here; it has: 1"),
        ("GET", "/nothing", 404, "there is nothing at '/nothing'; /docs lists what there is"),
        ("GET", "/predict", 405, "method 'GET' is not allowed on '/predict', expected POST"),
        ("DELETE", "/models", 405, "method 'DELETE' is not allowed on '/models', expected GET, HEAD"),
        ("PUT", "/health/live", 405, "method 'PUT' is not allowed on '/health/live', expected GET, HEAD"),
        ("GET", "/models/", 404, "there is nothing at '/models/'; /docs lists what there is"),
        ("GET", "/v2/models/toy/", 404, "there is nothing at '/v2/models/toy/'; /docs lists what there is"),
        ("GET", "/docs/files/nothing", 404, "there is nothing at '/docs/files/nothing'; /docs lists what there is"),
        ("POST", "/v2/models/toy", 405, "method 'POST' is not allowed on '/v2/models/toy', expected GET, HEAD"),
        ("GET", "/v2/trace/setting", 404, "there is nothing at '/v2/trace/setting'; /docs lists what there is"),
        ("POST", "/v2/repository/models/other/load", 404, "model 'other' has no version in the repository"),
    ],
)
def test_a_path_that_is_wrong_is_named(client: TestClient, method: str, path: str, status: int, sentence: str) -> None:
    answer = client.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    assert answer.json() == {"error": sentence}
    if status == 405:
        assert sentence.endswith(f"expected {answer.headers['Allow']}")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/metrics", "/models", "/v2", "/v2/"),
        *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
    ],
)
def test_head_is_answered_wherever_get_is(client: TestClient, path: str) -> None:
    asked, got = client.head(path), client.get(path)
    assert asked.status_code == got.status_code == 200
    assert asked.headers["Content-Type"] == got.headers["Content-Type"]


def test_a_name_as_long_as_a_url_is_cut_short(client: TestClient) -> None:
    answer = client.post(f"/models/{'x' * 10_000}/predict")
    assert answer.status_code == 404
    assert len(answer.json()["error"]) < 200


def test_with_several_models_and_no_default_predict_lists_them(repository: Path) -> None:
    publish(repository, toy(), "other")
    with serving(repository) as client:
        answer = client.post("/predict", json={"inputs": [[0, 1]]})
    assert answer.status_code == 404
    assert answer.json() == {"error": "no default model is set; ask one of these at /models/<name>/predict: other, toy"}
    with serving(repository, default_model="other") as client:
        assert client.post("/predict", json={"inputs": [[0, 1]]}).json()["model"] == "other"
