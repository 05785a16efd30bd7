"""The page for people: one file that loads nothing from elsewhere, under a policy that would not let it."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient


def test_the_page_is_served_under_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_the_page_loads_nothing_and_writes_no_html(client: TestClient) -> None:
    page = client.get("/").text
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"(?m)^\s*//.*|\s// .*", "", page)) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bstyle=|\son\w+=", page)


def test_the_page_offers_and_asks_for_time_steps_only_where_the_model_takes_others(client: TestClient) -> None:
    page = client.get("/").text
    assert 'return coding !== "spikes" && any_time_steps;' in page
    assert 'closest("label").hidden = !stepsAreFree(model);' in page
    assert "if (stepsAreFree(asked)) body.time_steps" in page
    assert page.count("body.time_steps") == 1


def test_the_page_asks_for_a_key_once_one_is_needed_and_keeps_it_nowhere(client: TestClient) -> None:
    page = client.get("/").text
    assert '<label id="door" hidden>Key <input id="key" type="password" autocomplete="off"></label>' in page
    assert "if (response.status === 401) askForAKey();" in page
    assert "Authorization: `Bearer ${key}`" in page
    assert not re.search(r"localStorage|sessionStorage|cookie|indexedDB", page)


def test_an_id_of_one_request_does_not_stay_on_the_page(client: TestClient) -> None:
    ids = [client.get("/", headers={"X-Request-ID": name}).headers["X-Request-ID"] for name in ("one", "two")]
    assert ids == ["one", "two"]
