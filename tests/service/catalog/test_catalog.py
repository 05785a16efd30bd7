"""Which versions are served, and what is answered while one is loading or after it failed."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.bundle import File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.spec.network import Network
from spikeserve.service.app import create_app
from spikeserve.service.catalog.loaded import LoadedModel, Verified, verify
from spikeserve.service.catalog.loader import Listing, Loader
from spikeserve.service.errors import LoadFailed, Misconfigured
from spikeserve.service.settings import Settings
from tests.bundles import contents, publish
from tests.networks import toy
from tests.serving import serving

BODY = {"inputs": [[0, 1]]}


def test_only_the_newest_version_is_served_unless_all_are_asked_for(repository: Path) -> None:
    publish(repository, toy())
    newest = {"version": 2, "state": "ready", "engine": "event"}
    with serving(repository) as client:
        assert client.get("/models").json() == {
            "default": "toy",
            "models": [{"name": "toy", "versions": [newest]}],
        }
        gone = client.post("/models/toy/versions/1/predict", json=BODY)
    assert gone.json() == {"error": "model 'toy' has no version '1' here; it has: 2"}
    with serving(repository, versions="all") as client:
        (listed,) = client.get("/models").json()["models"]
    assert listed == {"name": "toy", "versions": [newest | {"version": 1}, newest]}


@pytest.mark.usefixtures("reference_engine")
def test_exactly_the_versions_that_are_set_are_there_and_one_that_fails_changes_nothing(
    repository: Path,
) -> None:
    publish(repository, toy())
    with serving(repository) as client:
        loader: Loader = client.app.state.services.loader  # type: ignore[attr-defined]
        assert client.portal is not None

        def ready() -> list[int]:
            versions = client.get("/models").json()["models"]
            return [each["version"] for model in versions for each in model["versions"] if each["state"] == "ready"]

        assert ready() == [2]
        for versions in ([1, 2], [1]):
            client.portal.call(loader.set_versions, "toy", versions)
            assert ready() == versions
        with pytest.raises(LoadFailed, match="model 'toy' version 9 could not be loaded: model 'toy' has no version 9"):
            client.portal.call(loader.set_versions, "toy", [9])
        assert ready() == [1]
        client.portal.call(loader.set_versions, "toy", [])
        assert ready() == []


def test_a_model_is_described(digits_repository: Path) -> None:
    with serving(digits_repository) as client:
        described = client.get("/models/digits").json()
    assert described.pop("created").endswith("+00:00")
    assert described == {
        "name": "digits",
        "version": 1,
        "versions": [{"version": 1, "state": "ready", "engine": "event"}],
        "engine": "event",
        "input": {"shape": [64], "low": 0.0, "high": 1.0, "out_of_range": "refuse", "events": None},
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
        "metrics": {"test_accuracy": 0.5},
        "card": "# digits\n\nA network for tests.\n",
    }


@pytest.mark.usefixtures("reference_engine")
def test_a_description_names_the_bits_of_weights(repository: Path) -> None:
    publish(repository, Network(toy().spec.with_weight_bits({"fc.weight": 4}), toy().tensors))
    with serving(repository) as client:
        nodes = client.get("/models/toy").json()["nodes"]
    assert [node["weight_bits"] for node in nodes] == [4, None]


def test_a_damaged_bundle_is_reported_and_stops_no_other(repository: Path) -> None:
    publish(repository, toy(), "damaged")
    weights = repository / "damaged" / "1" / File.WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"?")
    with serving(repository, default_model="toy") as client:
        assert client.post("/predict", json=BODY).status_code == 200
        (status,) = client.get("/models").json()["models"][0]["versions"]
        ready = client.get("/health/ready")
        answers = [client.post("/models/damaged/predict", json=BODY), client.get("/models/damaged"), ready]
    assert status["state"] == "failed"
    assert status["error"].startswith("weights.safetensors: its sha256 is ")
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json() == {"error": f"model 'damaged' version 1 could not be loaded: {status['error']}"}


@pytest.mark.parametrize(
    ("content", "default"),
    [("two\n", "two"), ("three", None), ("../two", None), ("", None), ("two " * 2000, None)],
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

    def cursed(name: str, version: int, settings: Settings, verified: Verified) -> LoadedModel:
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

    def slow(name: str, version: int, settings: Settings, verified: Verified) -> LoadedModel:
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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"default_model": "nobody"}, "default_model: 'nobody' is not in the repository; it holds: toy"),
        ({"repository": Path(__file__).parent}, "holds no model, expected <name>/<version>/ with a bundle.json"),
    ],
)
def test_settings_that_serve_nothing_are_refused(repository: Path, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        create_app(Settings.model_validate({"repository": repository} | settings))
