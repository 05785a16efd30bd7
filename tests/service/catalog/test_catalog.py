"""Which versions are served, and what is answered while one is loading or after it failed.

Folders that cannot be read, while models are served: what serves goes on.

Which engine serves a bundle: the one that is set, or the default with a fallback that says why.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import ENGINES
from spikeserve.models.engines.event.cores import shared
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.errors import EngineUnavailable, InvalidBundle
from spikeserve.models.spec.network import Network
from spikeserve.plugins.onnx.engine import OnnxEngine
from spikeserve.service.app import create_app
from spikeserve.service.catalog.engine_choice import engine_for
from spikeserve.service.catalog.loaded import LoadedModel, Verification, verify
from spikeserve.service.catalog.loader import Listing, scan
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import EngineSetting, Settings
from tests.bundles import contents, publish
from tests.networks import toy
from tests.serving import serving

BODY = {"inputs": [[0, 1]]}


def test_a_model_is_described(digits_repository: Path) -> None:
    with serving(digits_repository) as client:
        described = client.get("/models/digits").json()
    assert described.pop("created").endswith("+00:00")
    assert described == {
        "name": "digits",
        "version": 1,
        "versions": [{"version": 1, "state": "ready", "engine": "event"}],
        "engine": "event",
        "input": {
            "shape": [64],
            "low": 0.0,
            "high": 1.0,
            "out_of_range": "refuse",
            "events": None,
            "feature_names": None,
        },
        "calibration": None,
        "coding": "direct",
        "time_steps": 12,
        "readout": "spike_count",
        "labels": [str(digit) for digit in range(10)],
        "scores": "softmax",
        "units": None,
        "nodes": [
            {"name": name, "type": kind, "shape": [size], "fires": fires, "threshold": threshold, "weight_bits": None}
            for name, kind, size, fires, threshold in (
                ("fc1", "Linear", 32, False, None),
                ("lif1", "LIF", 32, True, 1.0),
                ("fc2", "Linear", 10, False, None),
                ("lif2", "LIF", 10, True, 1.0),
            )
        ],
        # 64 × 32 weights meet the constant input, counted once; 32 × 10 meet spikes, at each step.
        "dense_operations": {"once": 2048, "per_step": 320},
        "expected_ms": described["expected_ms"],  # which is measured
        "metrics": {"test_accuracy": 0.5},
        "card": "# digits\n\nA network for tests.\n",
    }


@pytest.mark.usefixtures("reference_engine")
def test_a_description_names_the_bits_of_weights(repository: Path) -> None:
    publish(repository, Network(toy().spec.with_weight_bits({"fc.weight": 4}), toy().tensors))
    with serving(repository) as client:
        nodes = client.get("/models/toy").json()["nodes"]
    assert [node["weight_bits"] for node in nodes] == [4, None]


@pytest.mark.parametrize(
    ("content", "default"), [("two\n", "two"), ("three", None), ("../two", None), ("", None), ("two " * 2000, None)]
)
def test_the_repository_may_name_the_default_of_several(content: str, default: str | None, tmp_path: Path) -> None:
    for name in ("one", "two"):
        publish(tmp_path, toy(), name)
    (tmp_path / "default").write_text(content)
    assert Listing.of(Settings(repository=tmp_path)).default == default
    assert Listing.of(Settings(repository=tmp_path, default_model="one")).default == "one"


def test_a_bundle_that_does_not_reproduce_its_golden_samples_is_not_served(repository: Path) -> None:
    # It was exported with one spike more in each sample than the network gives.
    honest = contents(toy(), "lying")
    counts = honest.golden.spike_counts + 1
    ModelRepository(repository).publish(replace(honest, golden=replace(honest.golden, spike_counts=counts)))
    with serving(repository) as client:
        answer = client.post("/models/lying/predict", json=BODY)
    assert answer.status_code == 503
    assert "golden.safetensors: sample 0 gives spike counts" in answer.json()["error"]


def test_an_unforeseen_fault_is_not_told_and_stops_no_other(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(repository, toy(), "cursed")
    load = LoadedModel.load

    def cursed(name: str, version: int, settings: Settings, verified: Verification) -> LoadedModel:
        if name == "cursed":
            raise RuntimeError("the secret path")
        return load(name, version, settings, verified)

    monkeypatch.setattr(LoadedModel, "load", cursed)
    with serving(repository) as client:
        answer = client.post("/models/cursed/predict", json=BODY)
        assert client.post("/models/toy/predict", json=BODY).status_code == 200
    assert answer.status_code == 503
    assert "secret" not in answer.text


def test_while_a_model_loads_it_is_live_and_not_ready(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, go_on = LoadedModel.load, threading.Event()

    def slow(name: str, version: int, settings: Settings, verified: Verification) -> LoadedModel:
        go_on.wait()
        return load(name, version, settings, verified)

    monkeypatch.setattr(LoadedModel, "load", slow)
    with serving(repository, wait=False) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        (listed,) = client.get("/models").json()["models"]
        (version,) = listed["versions"]
        assert version.pop("loading_seconds") >= 0
        assert version == {"version": 1, "state": "loading"}
        for answer in (client.get("/health/ready"), client.post("/predict", json=BODY), client.get("/models/toy")):
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert re.fullmatch(r"model 'toy' version 1 is still loading, for \d+ s", answer.json()["error"])
        go_on.set()
        while client.get("/health/ready").status_code == 503:
            pass
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert client.post("/predict", json=BODY).status_code == 200


def test_without_lifespan_events_nothing_loads_and_answers_say_so(repository: Path) -> None:
    client = TestClient(create_app(Settings(repository=repository)))  # which sends them in a `with` alone
    for answer in client.get("/health/ready"), client.post("/predict", json=BODY):
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("no model loads: the ASGI server has to send lifespan events")
    (listed,) = client.get("/models").json()["models"]
    assert listed["versions"][0]["loading_seconds"] >= 0


def test_a_model_that_runs_longer_than_the_limit_is_not_served(repository: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"^time_steps: the model runs for 3, but max_time_steps is 2$"):
        verify("toy", 1, Settings(repository=repository, max_time_steps=2))
    assert verify("toy", 1, Settings(repository=repository, max_time_steps=3)).digest


def test_an_app_can_be_started_again(repository: Path) -> None:
    app = create_app(Settings(repository=repository))
    for _ in range(2):
        with TestClient(app) as client:
            while client.get("/health/ready").status_code == 503:
                pass
            assert client.post("/predict", json=BODY).status_code == 200


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"holds no model, expected <name>/<version>/ with a bundle\.json"):
        create_app(Settings(repository=tmp_path))


NOBODY = 65534  # a user who is not root, where the tests run as root


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield an empty folder to somebody whom a mode keeps out of a folder, as it does not keep out root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not pytest's own, whose parents only this user may enter
        if user == 0:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "listed"])
def test_a_version_whose_folder_cannot_be_read_stops_no_other(mode: int) -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy())
        (root / "toy" / "2").chmod(mode)
        found = scan(ModelRepository(root))
        assert {name: list(versions) for name, versions in found.items()} == {"toy": [1, 2]}
        with pytest.raises(InvalidBundle, match=r"^bundle\.json: cannot be read: Permission denied$"):
            ModelRepository(root).read("toy", 2)
        (root / "toy" / "2").chmod(0o755)
        assert scan(ModelRepository(root))["toy"][2] != found["toy"][2]  # and so a poll tries it again


def test_a_model_whose_folder_cannot_be_read_is_logged_and_stops_no_other() -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy(), "closed")
        (root / "closed").chmod(0o000)
        with structlog.testing.capture_logs() as entries:
            assert list(scan(ModelRepository(root))) == ["toy"]
        (entry,) = entries
        assert (entry["event"], entry["model"], entry["error"]) == ("model_unreadable", "closed", "Permission denied")
        with pytest.raises(InvalidBundle, match=r"^the folder of model 'closed' cannot be read: Permission denied$"):
            ModelRepository(root).read("closed", 1)
        (root / "closed").chmod(0o755)


def test_the_settings_name_every_engine() -> None:
    assert EngineSetting.__args__ == ("auto", *ENGINES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_engine_that_is_set_is_the_one_that_runs(repository: Path, engine: str) -> None:
    settings = Settings(repository=repository, engine=engine)
    assert engine_for(ModelRepository(repository).read("toy"), settings).name == engine


def test_runs_of_the_event_engine_share_the_threads_of_the_server(repository: Path) -> None:
    settings = Settings(repository=repository, threads=3)
    engine = LoadedModel.load("toy", 1, settings, verify("toy", 1, settings)).engine
    assert isinstance(engine, EventEngine)
    assert engine.cores is shared(3)


def test_an_engine_that_counts_no_cores_runs_each_call_on_one_thread(repository: Path) -> None:
    settings = Settings(repository=repository, threads=3, engine="onnx")
    engine = engine_for(ModelRepository(repository).read("toy"), settings, settings.threads)
    assert isinstance(engine, OnnxEngine)
    assert engine.session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize(
    ("missing", "fallbacks"),
    [
        (["numba"], ["onnx"]),
        (["numba", "onnxruntime"], ["onnx", "reference"]),
        (["numba", "onnx"], ["onnx", "reference"]),
    ],
)
def test_auto_falls_back_to_what_is_there_and_logs_why(
    repository: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str], fallbacks: list[str]
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    with structlog.testing.capture_logs() as entries:
        engine = engine_for(ModelRepository(repository).read("toy"), Settings(repository=repository))
    assert engine.name == fallbacks[-1]
    assert [(entry["event"], entry["model"], entry["engine"]) for entry in entries] == [
        ("engine_fallback", "toy", fallback) for fallback in fallbacks
    ]
    for package, entry in zip(missing, entries, strict=True):
        assert package in entry["reason"]


def test_a_set_engine_never_falls_back(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    settings = Settings(repository=repository, engine="onnx")
    with pytest.raises(EngineUnavailable, match="the package onnxruntime is not installed here"):
        engine_for(ModelRepository(repository).read("toy"), settings)
