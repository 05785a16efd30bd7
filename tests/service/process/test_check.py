"""`spikeserve check`: what it says of a repository, a model or a bundle is what a server would say of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.service.process import check
from tests.bundles import publish
from tests.networks import toy
from tests.serving import serving

REFERENCE = ("--engine", "reference")  # whose kernels need not be compiled


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; of the second, version 1 is damaged."""
    for name in ("good", "other", "other"):
        publish(tmp_path, toy(), name)
    weights = tmp_path / "other/1/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], str]:
    status = check.main([*map(str, arguments), *REFERENCE])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err


def test_every_version_is_checked_with_the_servers_words(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, (good, damaged, other, total), _ = run(capsys, repository)
    assert (status, total) == (1, "2 of 3 can be served")
    assert (good, other) == ("good 1: ok, on the engine reference", "other 2: ok, on the engine reference")
    with serving(repository, versions="all", engine="reference") as client:
        (version, _) = client.get("/models").json()["models"][1]["versions"]
    assert damaged == f"other 1: {version['error']}"
    assert "weights.safetensors" in damaged


def test_only_the_versions_that_are_chosen_are_checked(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, repository, "--versions", "latest") == (
        0,
        ["good 1: ok, on the engine reference", "other 2: ok, on the engine reference", "2 of 2 can be served"],
        "",
    )
    status, lines, error = run(capsys, repository, "--versions", "9")
    assert (status, lines, error) == (2, [], "spikeserve: versions: no model there has one of 9\n")


@pytest.mark.parametrize(("path", "listed"), [("other", [1, 2]), ("other/2", [2])])
def test_a_model_or_a_bundle_is_checked_alone(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str, listed: list[int]
) -> None:
    found = run(capsys, repository / path)
    assert [line.partition(":")[0] for line in found[1][:-1]] == [f"other {version}" for version in listed]
    monkeypatch.chdir(repository / path)
    assert run(capsys, ".") == found


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing", r"bundle: '.*/nothing' is no bundle's folder and no model of ./repository, or of these: .*"),
        ("empty", r"path: '.*/empty' holds no model, expected <name>/<version>/ with a bundle.json"),
        ("loose", r"path: '.*/loose' holds a bundle, expected it in <repository>/<name>/<version>/"),
    ],
)
def test_nothing_to_serve_is_a_sentence(
    repository: Path, capsys: pytest.CaptureFixture[str], path: str, sentence: str
) -> None:
    (repository / "empty").mkdir()
    (repository / "good/1").rename(repository / "loose")
    status, lines, error = run(capsys, repository / path)
    assert (status, lines) == (2, [])
    assert re.fullmatch(f"spikeserve: {sentence}\n", error)


def test_a_limit_that_a_model_is_over_refuses_it_and_a_flag_that_there_is_not_is_a_sentence(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (refused, _), _ = run(capsys, repository / "good", "--max-model-bytes", "1")
    assert status == 1
    assert refused.endswith("expected at most 1 in all (max_model_bytes)")
    status, _, error = run(capsys, repository, "--max-model-byte", "1")
    assert status == 2
    assert error.startswith("spikeserve: ")
    assert error.count("\n") == 1


def test_what_a_bundle_says_cannot_control_the_terminal(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = ModelRepository(repository).root / "good/1/bundle.json"
    manifest.write_text(manifest.read_text().replace('"spec"', '"\\u001b[2J": 1, "spec"', 1))
    _, (line, _), _ = run(capsys, repository / "good")
    assert line.isprintable()
    assert "[2J" in line
