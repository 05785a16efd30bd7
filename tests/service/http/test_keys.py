"""Who may ask what: with keys set, a path is open, or takes a client's key, or takes an admin's."""

import hmac
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from spikeserve.__main__ import main as command
from spikeserve.service.app import create_app
from spikeserve.service.errors import Misconfigured
from spikeserve.service.http.access import is_control
from spikeserve.service.keys import KeyRing
from spikeserve.service.keys import main as new_key_command
from spikeserve.service.process.command_line import main, warn_if_open
from spikeserve.service.settings import Settings
from tests.bundles import publish, published
from tests.networks import toy
from tests.service.sessions.conftest import pairs
from tests.serving import ROOT, running, serving

BODY = {"inputs": [[0, 1]]}
ALICE, BOB, ADMIN, STRANGER = "alice's key", "bob's key", "the admin's key", "another key"


def digest(key: str) -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of the toy model on a server with two clients and an admin."""
    root = published(tmp_path_factory, toy=toy())
    with serving(root, api_keys=f"{digest(ALICE)}, {digest(BOB)}", admin_keys=digest(ADMIN)) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {}, bearing(STRANGER), bearing(""), bearing(digest(ALICE)), {"Authorization": ALICE},
        {"Authorization": "Basic x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/predict", "/models", "/models/toy", "/metrics", "/docs/x", "/page", "/x", "/v2", "/v2/models/toy"]
)
def test_without_one_nothing_is_told(locked: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = locked.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert list(answer.json()) == ["error"]
    assert "toy" not in answer.text


def test_a_probe_needs_no_key_and_metrics_only_where_that_is_set(repository: Path, locked: TestClient) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert locked.get(path).status_code == 200
    assert locked.get("/health/other").status_code == 401
    assert locked.get("/metrics", headers=bearing(ALICE)).status_code == 200
    with serving(repository, api_keys=digest(ALICE), public_metrics=True) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/metrics/other").status_code == 401


def test_what_a_browser_shows_needs_no_key_and_names_no_model(locked: TestClient) -> None:
    for path in ("/", "/page/main.js", "/page/style.css", "/docs", "/openapi.json"):
        answer = locked.get(path)
        assert answer.status_code == 200
        assert "toy" not in answer.text
    for path in re.findall(r'(?:src|href)="(/[^"]*)"', locked.get("/docs").text):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize(
    ("keys", "paths", "control"),
    [({"api_keys": ALICE}, True, True), ({"admin_keys": ADMIN}, False, True), ({}, False, False)],
)
def test_the_document_says_what_takes_a_key(repository: Path, keys: dict[str, str], paths: bool, control: bool) -> None:
    digests: dict[str, Any] = {name: digest(each) for name, each in keys.items()}
    with serving(repository, **digests) as client:
        document = client.get("/openapi.json").json()
    schemes = document["components"].get("securitySchemes", {})
    assert [(each["type"], each["scheme"]) for each in schemes.values()] == [("http", "bearer")] * bool(keys)
    for path, operations in document["paths"].items():
        takes_a_key = control if is_control(path) else paths and "/health/" not in path
        for operation in operations.values():
            assert operation.get("security", []) == ([{key: [] for key in schemes}] if takes_a_key else [])


CONTROL = "/v2/repository/models/toy/unload"


@pytest.mark.parametrize(
    ("keys", "key", "status"),
    [
        ({"api_keys": ALICE, "admin_keys": ADMIN}, None, 401),
        ({"api_keys": ALICE, "admin_keys": ADMIN}, STRANGER, 401),
        ({"api_keys": ALICE, "admin_keys": ADMIN}, ALICE, 403),
        ({"api_keys": ALICE, "admin_keys": ADMIN}, ADMIN, 200),
        ({"api_keys": ALICE}, ALICE, 403),
        ({"api_keys": ALICE}, None, 401),
        ({"admin_keys": ADMIN}, None, 401),
        ({"admin_keys": ADMIN}, ADMIN, 200),
        ({}, None, 200),
    ],
)
def test_control_paths_take_an_admins_key(repository: Path, keys: dict[str, str], key: str | None, status: int) -> None:
    digests: dict[str, Any] = {name: digest(each) for name, each in keys.items()}
    with serving(repository, **digests) as client:
        headers = bearing(key) if key else {}
        plain = client.post("/predict", json=BODY, headers=headers)
        assert plain.status_code == (200 if "api_keys" not in keys or key in {ALICE, ADMIN} else 401)
        index = client.post("/v2/repository/index", headers=headers)
        assert index.status_code == status
        assert client.post(CONTROL, headers=headers).status_code == status
        client_key = bearing(ALICE) if "api_keys" in keys else {}
        served = client.get("/models/toy", headers=client_key).status_code
        assert served == (404 if status == 200 else 200)


def test_every_route_that_changes_something_is_a_control_path(repository: Path) -> None:
    app: FastAPI = create_app(Settings(repository=repository))
    assert is_control("/v2/repository")
    assert not is_control("/v2/repositoryx")
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    changing = [route.path for route in routes if set(route.methods or ()) - {"GET", "HEAD", "OPTIONS"}]
    assert "/predict" in changing
    assert [
        path for path in changing if not is_control(path) and path.split("/")[-1] not in {"predict", "infer", "stream"}
    ] == []


def test_a_file_of_keys_has_one_a_line_and_may_begin_with_a_byte_order_mark(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    alice, admin = (f"sha256:{digest(key)[7:].upper()}" for key in (ALICE, ADMIN))  # capitals are as good
    file.write_text(f"# who may ask\n{alice}  # Alice\n\n{digest(BOB)}\n", "utf-8-sig")
    ring = KeyRing.of(Settings(repository=repository, api_keys=f"@{file}, {digest(STRANGER)}", admin_keys=admin))
    assert [ring.is_client(key.encode()) for key in (ALICE, BOB, STRANGER, "")] == [True, True, True, False]
    assert [ring.is_admin(key.encode()) for key in (ADMIN, ALICE)] == [True, False]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("api_keys", "my secret", "api_keys[0] is not a digest, expected sha256:<64 hexadecimal digits>"),
        ("admin_keys", f"{digest(ADMIN)},my secret", "admin_keys[1] is not a digest, expected sha256:"),
        ("api_keys", "@my secret\n", "api_keys: line 1 is not a digest, expected sha256:"),
        ("admin_keys", "@# nobody yet\n", "holds no key, expected a line sha256:<64 hexadecimal digits> for each"),
        ("admin_keys", "@", "cannot be read: No such file or directory"),
    ],
)
def test_keys_that_are_none_stop_the_start_and_are_not_repeated(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, sentence: str
) -> None:
    if value.startswith("@"):  # what a file holds, if there is one
        if content := value[1:]:
            (tmp_path / "keys").write_text(content)
        value = f"@{tmp_path / 'keys'}"
    assert main(["--repository", str(repository), f"--{name.replace('_', '-')}", value]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "my secret" not in error
    with pytest.raises(Misconfigured):
        KeyRing.of(Settings.model_validate({"repository": repository, name: value}))


def test_the_command_prints_a_key_and_the_line_that_lets_it_in_from_a_file(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["keys", "alice", "of the lab"]) == 0
    _, key, _, line = capsys.readouterr().out.splitlines()
    assert len(key) >= 43  # 256 bits, six a character
    assert line.endswith("  # alice of the lab")
    (tmp_path / "keys").write_text(f"{line}\n")
    ring = KeyRing.of(Settings(repository=repository, api_keys=f"@{tmp_path / 'keys'}"))
    assert ring.clients == (bytes.fromhex(digest(key).removeprefix("sha256:")),)


def test_a_keys_name_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("two\nlines", "x" * 65):
        assert new_key_command(["two", name]) == 2
        assert capsys.readouterr().err.startswith("spikeserve: NAME is 'two ")


@pytest.mark.parametrize(
    ("host", "keys", "events"),
    [
        ("127.9.9.9", {}, []),
        ("::1", {}, []),
        ("::", {}, ["no_api_keys", "no_admin_keys"]),
        ("0.0.0.0", {}, ["no_api_keys", "no_admin_keys"]),  # noqa: S104  (nothing is bound)
        ("192.0.2.1", {"api_keys": ALICE}, []),
        ("192.0.2.1", {"admin_keys": ADMIN}, ["no_api_keys"]),
    ],
)
def test_an_open_address_is_warned_of(repository: Path, host: str, keys: dict[str, Any], events: list[str]) -> None:
    digests = {name: digest(each) for name, each in keys.items()}
    ring = KeyRing.of(Settings.model_validate({"repository": repository} | digests))
    with structlog.testing.capture_logs() as entries:
        warn_if_open(host, ring)
    assert [entry["event"] for entry in entries] == events
    assert {entry["log_level"] for entry in entries} <= {"warning"}


def test_no_answer_holds_a_path_of_this_machine(repository: Path) -> None:
    weights = repository / "toy" / "1" / "weights.safetensors"
    weights.unlink()
    with serving(repository) as client:
        answers = [
            client.request(method, path)
            for method, path in [
                ("GET", "/models"),
                ("GET", "/models/toy"),
                ("GET", "/health/ready"),
                ("POST", "/predict"),
                ("POST", "/models/..%2F..%2Fetc/predict"),
                ("GET", "/metrics"),
                ("GET", "/openapi.json"),
            ]
        ]
    for answer in answers:
        assert str(repository) not in answer.text
        assert str(ROOT) not in answer.text
        assert "Traceback" not in answer.text
    assert "weights.safetensors" in answers[0].text


@pytest.mark.usefixtures("reference_engine")
def test_serving_writes_no_file_and_the_log_counts_keys_only(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that may make no file longer than 0 bytes stands for a root file system that is read-only.
    monkeypatch.setenv("HOME", "/nonexistent")
    program = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.argv = ['service', *sys.argv[1:]]\n"
        "runpy.run_module('spikeserve.service', run_name='__main__')\n"
    )
    keys = f"--api-keys={digest(ALICE)},{digest(BOB)}", f"--admin-keys={digest(ADMIN)}"
    with running(repository, *keys, program=("-B", "-c", program)) as service:
        assert service.stop() == 0
    assert [(entry["clients"], entry["admins"]) for entry in service.entries if entry["event"] == "keys"] == [(2, 1)]
    assert digest(ALICE)[7:] not in str(service.entries)


@pytest.mark.parametrize("key", [ALICE, BOB, STRANGER])
def test_a_key_is_compared_with_all_that_are_known_in_constant_time(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither which key it is, nor how much of it is right, changes what is done.
    compare, compared = hmac.compare_digest, list[bytes]()

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    ring = KeyRing.of(Settings(api_keys=f"{digest(ALICE)}, {digest(BOB)}"))
    assert ring.is_client(key.encode()) == (key != STRANGER)
    assert len(set(compared)) == 2


@pytest.mark.usefixtures("reference_engine")
def test_the_id_of_a_sequence_belongs_to_the_key_that_it_came_with(tmp_path: Path) -> None:
    publish(tmp_path, pairs(), "pairs")
    tensor = {"name": "inputs", "shape": [1, 1, 2], "datatype": "FP32", "data": [[[1, 0]]]}
    with serving(tmp_path, api_keys=f"{digest(ALICE)}, {digest(BOB)}") as client:

        def ask(key: str, **parameters: Any) -> Any:
            body = {"inputs": [tensor], "parameters": {"sequence_id": 7} | parameters}
            answer = client.post("/v2/models/pairs/infer", json=body, headers=bearing(key))
            found = [each["data"] for each in answer.json().get("outputs", ()) if each["name"] == "spike_counts"]
            return found[0] if found else answer.json()["error"]

        assert ask(ALICE, sequence_start=True) == [0, 0]
        assert "no such sequence of model 'pairs' is open" in ask(BOB)
        assert ask(BOB, sequence_start=True, sequence_end=True) == [0, 0]
        assert ask(ALICE) == [1, 0]  # which Bob's has neither moved on nor ended
