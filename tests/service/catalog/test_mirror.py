"""A server of a repository elsewhere serves verified copies, takes new versions, and goes on without the storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
import structlog.testing

from models.bundle.remote import cache_of, repository_at
from service.catalog.mirror import refresh, tell
from service.settings import Settings
from tests.bundles import contents
from tests.networks import toy
from tests.serving import ROOT, running, serving
from tests.storage import s3


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with s3(tmp_path / "cache") as url:
        repository_at(url).publish(contents(toy()))
        yield url


def ask(server: str) -> dict[str, Any]:
    answer = httpx.post(f"{server}/models/toy/predict", json={"inputs": [[1.0, 0.0]]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_new_version_is_served_and_the_server_outlives_the_storage(url: str, tmp_path: Path) -> None:
    folder = cache_of(url)
    assert folder.parent == tmp_path / "cache"
    with running(url, "--poll-seconds", "0.5", "--workers", "2") as service:
        assert [entry["bundle"] for entry in service.entries if entry["event"] == "bundle_copied"] == ["toy/1"]
        service.wait_for("model_ready")  # in the other worker
        first = ask(service.url)
        repository_at(url).publish(contents(toy(time_steps=2)))
        for _ in range(2):
            service.wait_for("model_retired")
        second = ask(service.url)
        assert (first["version"], second["version"]) == (1, 2)
        assert service.stop() == 0
    # The storage is gone: the copies are served, and the log says why there may be newer ones.
    fsspec.filesystem("s3").rm(url, recursive=True)
    with running(url) as service:
        (said,) = [entry for entry in service.entries if entry["event"] == "repository_unreachable"]
        assert said["error"] == f"repository: {url} holds no model, expected <name>/<version>/ with a bundle.json"
        assert ask(service.url)["version"] == 2
        assert service.stop() == 0


def test_a_version_that_is_withdrawn_is_served_no_more(url: str) -> None:
    repository_at(url).publish(contents(toy()))
    refresh(Settings(repository=url))
    fsspec.filesystem("s3").rm(f"{url}/toy/2", recursive=True)
    with serving(url) as client:
        assert client.get("/models/toy").json()["version"] == 1


def test_a_damaged_version_is_refused_and_the_one_before_is_served(url: str) -> None:
    repository_at(url).publish(contents(toy()))
    fsspec.filesystem("s3").pipe_file(f"{url}/toy/2/weights.safetensors", b"")
    with structlog.testing.capture_logs() as log:
        tell(refresh(Settings(repository=url, versions="all")))
    (said,) = [entry for entry in log if entry["event"] == "bundle_refused"]
    assert said["bundle"] == "toy/2"
    assert said["error"].startswith("weights.safetensors: its sha256 is e3b0c44298fc…, but bundle.json says ")
    with serving(url, versions="all") as client:
        assert client.get("/models/toy").json()["version"] == 1


def test_only_the_versions_that_are_served_are_copied(url: str) -> None:
    for _ in range(2):
        repository_at(url).publish(contents(toy()))
    refresh(Settings(repository=url, versions="latest"))
    assert [path.name for path in (cache_of(url) / "toy").iterdir()] == ["3"]


def test_a_client_may_have_the_newest_version_loaded_at_once(url: str) -> None:
    with serving(url) as client:
        repository_at(url).publish(contents(toy()))
        loaded = client.post("/v2/repository/models/toy/load", json={})
        assert loaded.status_code == 200, loaded.text
        assert client.get("/models/toy").json()["version"] == 2


@pytest.mark.parametrize(
    ("repository", "settings", "sentence"),
    [
        ("s3://nothing/here", {}, "repository: s3://nothing/here is not there, expected a bucket or folder"),
        ("nowhere://bucket", {}, "repository: 'nowhere://bucket' is no URL that fsspec opens"),
        ("{url}", {"repository_seconds": 0.01}, "repository: {url} took longer than repository_seconds, 0.01"),
        ("{url}", {"repository_cache": "/proc/nothing"}, "repository_cache: /proc/nothing"),
    ],
)
def test_a_repository_that_cannot_be_copied_is_a_sentence(
    url: str, repository: str, settings: dict[str, Any], sentence: str
) -> None:
    failed = refresh(Settings(repository=repository.format(url=url), **settings)).failed
    assert failed is not None
    assert failed.startswith(sentence.format(url=url))


def test_a_server_without_any_copy_does_not_start(url: str) -> None:
    command = [sys.executable, "-m", "service", "--port", "0", "--repository", f"{url}/nothing"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    said = f"spikeserve: repository: {url}/nothing holds no model, expected <name>/<version>/ with a bundle.json\n"
    assert (ended.returncode, ended.stderr) == (2, said)
