"""The OpenAPI document says all there is, and its example works as it stands."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from spikeserve.service.inference.sessions.messages import StreamOptions
from tests.bundles import published
from tests.contracts.answers import NETWORKS
from tests.inside import Inside
from tests.serving import serving

PREDICT = ["/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict"]
NAMES = ["weather", "toy", "rate", "late", "spikes", "series", "image"]
INFER_STATUSES = {"200", "400", "401", "403", "404", "408", "413", "415", "503", "504"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of models of each coding."""
    root = published(tmp_path_factory, **{name: NETWORKS[name] for name in NAMES})
    with serving(root) as client:
        yield client


@pytest.mark.parametrize("default", NAMES)
def test_the_examples_fit_their_schemas(served: TestClient, default: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inside(served.app).catalog, "default", default)
    document = served.get("/openapi.json").json()
    examined = []
    for name, operation in operations(document):
        bodies = operation.get("requestBody", {"content": {}})["content"]
        for part in (*operation["parameters"], *bodies.values()):
            if "example" in part:
                schema = {**part["schema"], "components": document["components"]}
                Draft202012Validator(schema).validate(part["example"])
                examined.append(name)
        if "application/json" in bodies:
            assert "example" in bodies["application/json"], name
    assert {"post /predict", "post /v2/models/{name}/infer", "post /v2/repository/index"} <= set(examined)
    for path in (*PREDICT, "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        operation = document["paths"][path]["post"]
        place = {each["name"]: each["example"] for each in operation["parameters"] if each["in"] == "path"}
        body = operation["requestBody"]["content"]["application/json"]["example"]
        answer = served.post(path.format(**place), json=body)
        assert answer.status_code == 200, answer.text
    assert set(document["paths"]["/v2/models/{name}/infer"]["post"]["responses"]) == INFER_STATUSES


def test_a_verb_that_a_path_does_not_have_is_405(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        place = path.format(name="toy", version="1")
        for verb in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - {each.upper() for each in methods}:
            answer = client.request(verb, place)
            assert (answer.status_code, list(answer.json())) == (405, ["error"]), f"{verb} {place}"


def test_every_reference_leads_somewhere_and_every_error_has_the_one_body(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            found = [part["$ref"]] if "$ref" in part else []
            return found + [each for value in part.values() for each in references(value)]
        return [each for value in part for each in references(value)] if isinstance(part, list) else []

    prefix = "#/components/schemas/"
    assert {reference.removeprefix(prefix) for reference in references(document)} == schemas.keys()
    for path in PREDICT:
        responses = document["paths"][path]["post"]["responses"]
        assert responses.keys() == {"200", "400", "401", "403", "404", "408", "413", "415", "422", "503", "504"}
        for status, response in responses.items():
            (content,) = response["content"].values()
            body = "PredictResponse" if status == "200" else "ErrorBody"
            assert content["schema"] == {"$ref": f"{prefix}{body}"}


def test_headers_and_statuses_are_named_where_a_path_has_them_and_head_nowhere(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        assert operations.keys() <= {"get", "post"}
        for operation in operations.values():
            assert ("422" in operation["responses"]) == (path in PREDICT or path.endswith("/stream"))
            assert ("401" in operation["responses"]) == ("/health/" not in path)
            named = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
            expected = {"X-Request-ID"}
            if path.endswith(("/predict", "/infer")):
                expected |= {"X-Request-Timeout-Ms", "X-Server-Timing", "Content-Encoding"}
                assert "Server-Timing" in operation["responses"]["200"]["headers"]
            if path.endswith("/infer"):
                expected |= {"Inference-Header-Content-Length"}
                answer = operation["responses"]["200"]
                assert answer["content"].keys() == {"application/json", "application/octet-stream"}
                assert answer["headers"].keys() == {"X-Request-ID", "Server-Timing", "Inference-Header-Content-Length"}
            assert named == expected
            assert all("X-Request-ID" in response["headers"] for response in operation["responses"].values())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_parameter_and_answer_is_described_in_sentences(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for name, operation in operations(document):
        summary = operation["summary"]
        assert re.fullmatch(r"[A-Z][^.:\n]{10,100}\.", summary), f"{name}: {summary}"  # one sentence, on one line
        described = [operation, *operation["parameters"], *operation["responses"].values()]
        described += [operation["requestBody"]] if "requestBody" in operation else []
        described += [header for each in operation["responses"].values() for header in each["headers"].values()]
        for part in described:
            if part is not operation or "description" in part:
                assert part["description"].endswith("."), f"{name}: {part}"
                assert "Successful Response" not in part["description"], name
    groups = {each["name"]: each["description"] for each in document["tags"]}
    assert all(description.endswith(".") for description in groups.values())
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == groups.keys()


def test_operation_ids_stay_as_generated_clients_know_them(client: TestClient) -> None:
    found = {name: operation["operationId"] for name, operation in operations(client.get("/openapi.json").json())}
    assert found["post /predict"] == "predict_predict_post"
    assert found["post /models/{name}/stream"] == "stream_by_post_models__name__stream_post"
    versioned = "/models/{name}/versions/{version}/stream"
    assert found[f"post {versioned}"] == "stream_by_post_models__name__versions__version__stream_post"
    assert len(set(found.values())) == len(found)


def test_the_options_of_a_stream_are_those_that_it_takes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/models/{name}/stream", "/models/{name}/versions/{version}/stream"):
        named = {each["name"] for each in document["paths"][path]["post"]["parameters"] if each["in"] == "query"}
        assert named == StreamOptions.model_fields.keys()
        answer = client.post(path.format(name="toy", version="1"), params={"version": "1"})
        assert (answer.status_code, "version" in answer.json()["error"]) == (422, True)


def test_a_predict_request_has_its_fields_and_as_options_those_that_a_body_without_fields_takes(
    client: TestClient,
) -> None:
    document = client.get("/openapi.json").json()
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = {"inputs", "time_steps", "seed", "stop", "return"}
    assert schema["properties"].keys() == fields
    assert (schema["required"], schema["additionalProperties"]) == (["inputs"], False)
    for path in PREDICT:
        options = [each for each in document["paths"][path]["post"]["parameters"] if each["in"] == "query"]
        assert {each["name"] for each in options} == fields - {"inputs"}
        assert not [each for each in options if "default" in each["schema"]]  # some clients send each default


def test_the_docs_are_served_and_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert loaded == ["/docs/files/swagger-ui.css", "data:,", "/docs/files/swagger-ui-bundle.js"]
    for path in (loaded[0], loaded[2]):
        assert "swagger-ui" in client.get(path).text
    assert "http" not in page.text


@pytest.mark.parametrize("asked", ["bytes=0-3", "bytes=999999999-", "x"])
def test_a_file_of_the_docs_is_answered_whole_whatever_part_is_asked_for(client: TestClient, asked: str) -> None:
    path = "/docs/files/swagger-ui.css"
    answer = client.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, client.get(path).content)
