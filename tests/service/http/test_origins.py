"""Which pages may ask: none of another origin posts anything; other clients see no change."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

BODY = {"inputs": [[0, 1]]}
UNLOAD = "/v2/repository/models/toy/unload"
ELSEWHERE = {"Origin": "https://elsewhere.example"}


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        (ELSEWHERE, "the header Origin is 'https://elsewhere.example', expected that of 'testserver'"),
        ({"Origin": "null"}, "the header Origin is 'null', expected that of 'testserver'"),
        ({"Origin": "http://testserver:3000"}, "the header Origin is 'http://testserver:3000'"),
        ({"Origin": "testserver"}, "the header Origin is 'testserver'"),
        ({"Sec-Fetch-Site": "cross-site"}, "the header Sec-Fetch-Site is 'cross-site', expected same-origin"),
        (ELSEWHERE | {"Sec-Fetch-Site": "same-site"}, "the header Sec-Fetch-Site is 'same-site', expected same-origin"),
    ],
)
def test_no_page_of_another_origin_posts_anything(client: TestClient, headers: dict[str, str], fault: str) -> None:
    # As fetch(…, {method: "POST", mode: "no-cors"}) does, which the browser sends without asking first.
    for path in (UNLOAD, "/v2/repository/models/toy/load", "/predict", "/v2/models/toy/infer"):
        answer = client.post(path, json=BODY, headers=headers | {"Content-Type": "text/plain"})
        assert answer.status_code == 403
        assert answer.json().keys() == {"error"}
        assert answer.json()["error"].startswith(fault)
        assert answer.json()["error"].endswith(": pages of others may not post here")
    assert client.post("/predict", json=BODY).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "https://TestServer"},
        {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://models.example", "Host": "127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},  # by a proxy
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_this_servers_page_and_what_is_no_page_may_post(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/predict", json=BODY, headers=headers).status_code == 200
    assert client.post(UNLOAD, headers=headers).status_code == 200


def test_what_changes_nothing_is_answered_and_without_cors_no_page_reads_it(client: TestClient) -> None:
    for path in ("/models", "/health/ready", "/metrics", "/v2"):
        answer = client.get(path, headers=ELSEWHERE | {"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]
