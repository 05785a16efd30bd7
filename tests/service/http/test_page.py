"""The page for people as it is sent: one file that loads nothing, under a policy that would not let it.

`test_browser.py` uses it.
"""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from tests.networks import FIRING


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


def test_the_page_draws_the_spikes_of_every_neuron_that_fires(client: TestClient) -> None:
    listed = re.search(r"const FIRING = \[(.*)\];", client.get("/").text)
    assert listed
    assert {name.strip(' "') for name in listed[1].split(",")} == set(FIRING)


def test_the_page_keeps_nothing(client: TestClient) -> None:
    assert not re.search(r"localStorage|sessionStorage|cookie|indexedDB", client.get("/").text)


def test_an_id_of_one_request_does_not_stay_on_the_page(client: TestClient) -> None:
    ids = [client.get("/", headers={"X-Request-ID": name}).headers["X-Request-ID"] for name in ("one", "two")]
    assert ids == ["one", "two"]
