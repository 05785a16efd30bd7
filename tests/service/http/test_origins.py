"""Which pages may ask: none of another origin posts anything, unless it is allowed; other clients see no change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from spikeserve.service.http import openapi
from spikeserve.service.http.access import ANSWER_HEADERS, REQUEST_HEADERS
from spikeserve.service.keys import KeyRing, new_key
from spikeserve.service.process.command_line import main, warn_if_open
from spikeserve.service.settings import Settings
from tests.bundles import published
from tests.inside import Inside
from tests.networks import toy
from tests.serving import serving

BODY = {"inputs": [[0, 1]]}
UNLOAD = "/v2/repository/models/toy/unload"
ELSEWHERE = {"Origin": "https://elsewhere.example"}
APP = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}  # as a browser sends it
STREAM = "/models/toy/stream"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that pages of two other origins may use, with small limits."""
    root = published(tmp_path_factory, toy=toy())
    origins = "https://app.example, http://localhost:5173"
    with serving(root, allowed_origins=origins, max_body_bytes=1000, max_sessions=1) as client:
        yield client


def cors(answer: object) -> dict[str, str]:
    """Return the headers of an answer that say what a page may do with it."""
    headers = answer.headers  # type: ignore[attr-defined]
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


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
    if "Origin" in headers:  # as each page's WebSocket has it
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(STREAM, headers=headers):
            pass
        assert denied.value.status_code == 403
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
    for path in ("/predict", UNLOAD, UNLOAD.replace("unload", "load")):
        assert client.post(path, json=BODY if path == "/predict" else {}, headers=headers).status_code == 200


def test_what_changes_nothing_is_answered_and_without_cors_no_page_reads_it(client: TestClient) -> None:
    for path in ("/models", "/health/ready", "/metrics", "/v2"):
        answer = client.get(path, headers=ELSEWHERE | {"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_of_any_other_origin_is_refused_as_before(opened: TestClient) -> None:
    near = ("https://app.example.evil.example", "http://app.example", "https://app.example:8443", "null")
    for origin in near:
        answer = opened.post("/predict", json=BODY, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            opened.websocket_connect(STREAM, headers={"Origin": origin}),
        ):
            pass
        assert denied.value.status_code == 403


def test_every_error_can_be_read_by_an_allowed_page(opened: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.websocket_connect(STREAM):  # the only session that there may be
        found = {
            answer.status_code: answer
            for answer in (
                opened.post("/predict", content=b"{", headers=APP),
                opened.get("/models/none", headers=APP),
                opened.get("/predict", headers=APP),
                opened.post("/predict", content=b" " * 1001, headers=APP),
                opened.post("/predict", content=b"", headers=APP | {"Content-Type": "text/x"}),
                opened.post("/predict", json={"inputs": [[0]]}, headers=APP),
                opened.post(STREAM, headers=APP),
                opened.post(UNLOAD, headers=APP),
            )
        }
    monkeypatch.setattr(Inside(opened.app).services.batcher, "scheduler", None)  # a fault of ours, not foreseen
    found[500] = opened.post("/predict", json=BODY, headers=APP)
    assert sorted(found) == [400, 403, 404, 405, 413, 415, 422, 500, 503]
    many = "&".join(f"p{index}=" for index in range(17))
    for answer in (*found.values(), opened.post(f"/predict?{many}", json=BODY, headers=APP)):
        assert list(answer.json()) == ["error"]
        assert cors(answer)["access-control-allow-origin"] == APP["Origin"]
    assert "Retry-After" in found[503].headers
    assert "Retry-After" in cors(found[503])["access-control-expose-headers"]


def test_a_preflight_needs_no_key_and_what_follows_does(repository: Path) -> None:
    key, digest = new_key()
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with serving(repository, allowed_origins="https://app.example", api_keys=digest) as client:
        preflight = client.options("/predict", headers=APP | asks)
        assert preflight.status_code == 200
        assert cors(preflight)["access-control-allow-origin"] == APP["Origin"]
        assert "Authorization" in cors(preflight)["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in cors(preflight)
        assert client.options("/predict", headers=APP).status_code == 401  # it is no preflight
        refused = client.post("/predict", json=BODY, headers=APP)
        assert refused.status_code == 401
        assert cors(refused)["access-control-allow-origin"] == APP["Origin"]
        assert client.post("/predict", json=BODY, headers=APP | {"Authorization": f"Bearer {key}"}).status_code == 200
        offered = ["spikeserve", f"spikeserve.key.{key}"]
        with client.websocket_connect(STREAM, offered, headers=dict(APP)) as socket:
            assert socket.accepted_subprotocol == "spikeserve"
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(STREAM, headers=dict(APP)):
            pass
        assert denied.value.status_code == 401


@pytest.mark.parametrize(
    ("origin", "method", "header", "refused"),
    [
        ("https://elsewhere.example", "POST", "content-type", "origin"),
        ("https://app.example", "DELETE", "content-type", "method"),
        ("https://app.example", "POST", "x-other", "headers"),
    ],
)
def test_a_preflight_for_more_is_400(opened: TestClient, origin: str, method: str, header: str, refused: str) -> None:
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    answer = opened.options("/predict", headers={"Origin": origin} | asks)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"the preflight asks for another {refused} than")
    assert cors(answer) == {}


def test_a_page_may_send_and_read_every_header_that_the_api_has(opened: TestClient) -> None:
    document = opened.get("/openapi.json").json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    sent = {each["name"] for operation in operations for each in operation["parameters"] if each["in"] == "header"}
    given = {name for operation in operations for each in operation["responses"].values() for name in each["headers"]}
    forbidden = {"Accept-Encoding", "Content-Encoding"}  # the browser's own
    assert sent - {"Accept-Encoding"} <= set(REQUEST_HEADERS)
    assert given - forbidden <= set(ANSWER_HEADERS)
    assert openapi.TIMING_WANTED["name"] in sent


def test_with_a_star_every_page_may_ask_and_still_none_unloads_a_model(repository: Path) -> None:
    with serving(repository, allowed_origins="*") as client:
        for origin in (ELSEWHERE, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}):
            answer = client.post("/predict", json=BODY, headers=origin)
            assert answer.status_code == 200
            assert cors(answer)["access-control-allow-origin"] == "*"
            for path in (UNLOAD, "/v2/repository/models/toy/load", "/v2/repository/index"):
                assert client.post(path, headers=origin).status_code == 403
        assert client.post(UNLOAD, headers={"Origin": "http://testserver"}).status_code == 200


@pytest.mark.parametrize(
    "origins",
    ["app.example", "https://app.example/", "https://app.example/app", "https://app.example:443", "http://localhost:80",
     "https://*.example", "https://app.example,", "*,https://app.example", "null", "https://app example"],
)  # fmt: skip
def test_what_no_browser_sends_is_no_origin(repository: Path, origins: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repository", str(repository), "--allowed-origins", origins]) == 2
    error = capsys.readouterr().err
    assert error.startswith("spikeserve: allowed_origins is '")
    assert error.endswith("expected * or origins such as https://app.example, with a port but no path\n")


@pytest.mark.parametrize(
    ("origins", "keys", "events"),
    [(["*"], KeyRing(), ["any_origin"]), (["*"], KeyRing((b"",)), []), (["https://app.example"], KeyRing(), [])],
)
def test_a_star_without_keys_is_warned_about_anywhere(origins: list[str], keys: KeyRing, events: list[str]) -> None:
    with structlog.testing.capture_logs() as entries:
        warn_if_open("127.0.0.1", keys, origins)
    assert [entry["event"] for entry in entries] == events


def test_origins_are_compared_as_browsers_write_them(repository: Path) -> None:
    settings = Settings(
        repository=repository, allowed_origins="HTTPS://App.Example ,capacitor://localhost,http://[::1]:1"
    )
    assert settings.origins == ("https://app.example", "capacitor://localhost", "http://[::1]:1")
    assert Settings(repository=repository, allowed_origins="").origins == ()
