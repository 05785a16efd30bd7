"""The page for people as it is sent: small files that load nothing from elsewhere, under a strict policy.

`test_browser.py` uses it.
"""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.service.http import page
from tests.networks import FIRING, INTEGRATING

FOLDER = Path(page.__file__).parent
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in page.TYPES)
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
BYTES = 150_000  # of all that a browser loads for the page


def scripts() -> str:
    """Return the text of all modules, without the comments."""
    texts = (file.read_text() for file in sorted(FOLDER.glob("*.js")))
    return "\n".join(re.sub(r"(?m)^\s*//.*|\s// .*", "", text) for text in texts)


def test_the_page_is_served_under_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert not re.search("unsafe|http|[*]", policy)
    assert re.findall(r"<script(?! type=\"module\" src=)|<style|\bstyle=|\son\w+=", answer.text) == []


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_the_page_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["Content-Type"] == TYPES[Path(name).suffix]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "none.js", "..%2F..%2Froutes.py", "..%2Fpage%2Fmain.js"])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_the_page_is_small(client: TestClient) -> None:
    sent = [client.get(path).content for path in ("/", *(f"/page/{name}" for name in FILES))]
    assert sum(map(len, sent)) <= BYTES
    assert max(map(len, sent)) <= BYTES / 8  # no file is more than one reads in a sitting


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_html(client: TestClient) -> None:
    written = scripts() + client.get("/").text + (FOLDER / "style.css").read_text()
    assert re.findall(r"(?:https?:)?//[a-z]|@import|url\(", written) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", written)


def test_the_page_names_no_kind_of_neuron() -> None:
    # A model's description says which nodes fire.
    kinds = "|".join(["LIF", *FIRING, *INTEGRATING])
    assert not re.search(rf"[\"'`]({kinds})[\"'`]", scripts())


def test_the_page_keeps_nothing() -> None:
    assert not re.search(r"localStorage|sessionStorage|cookie|indexedDB|caches\b", scripts())


def test_an_id_of_one_request_does_not_stay_on_the_page(client: TestClient) -> None:
    ids = [client.get("/", headers={"X-Request-ID": name}).headers["X-Request-ID"] for name in ("one", "two")]
    assert ids == ["one", "two"]
