"""The core alone: a copy without plugins/, the door shut, trains, publishes, verifies and serves as real processes."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving import running
from tests.sources import ROOT

COMMAND = ("-P", "-m", "spikeserve")  # of PYTHONPATH alone, whatever folder it is run in


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the core alone, from which the processes of a test import; the door is shut for them."""
    package = tmp_path / "core/spikeserve"
    package.mkdir(parents=True)
    for entry in (ROOT / "spikeserve").iterdir():
        if entry.name != "plugins":
            (package / entry.name).symlink_to(entry)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "core"))
    monkeypatch.setenv("SPIKESERVE_PLUGINS", "")
    return tmp_path


def test_the_core_fits_publishes_verifies_serves_and_streams_without_any_plugin(core: Path) -> None:
    def run(words: str) -> str:
        command = [sys.executable, *COMMAND, *words.split()]
        ran = subprocess.run(command, cwd=core, capture_output=True, text=True, check=False)
        return ran.stdout if ran.returncode == 0 else ran.stderr

    fitted = run("fit --architecture 32 --epochs 2 --repository repository")
    assert "Engine torch against reference: 0 other predictions" in fitted
    assert "Published digits version 1" in fitted
    assert not (core / "repository/digits/1/model.onnx").exists()  # which is a plugin's
    assert "digits 1: ok, on the engine reference" in run("check repository --engine reference")
    assert run("serve --engine onnx").endswith("'onnx', expected 'auto', 'event', 'torch' or 'reference'\n")

    tested = np.load(core / "runs/digits-1/evaluation.npz")
    sample, counts = tested["x"][0].tolist(), tested["spike_counts"][0].tolist()
    with running(core / "repository", program=(*COMMAND, "serve")) as server:
        model = f"{server.url}/models/digits"
        (prediction,) = httpx.post(f"{model}/predict", json={"inputs": [sample]}).json()["predictions"]
        message = json.dumps({"type": "values", "values": [sample]})
        lines = httpx.post(f"{model}/stream", content=message, headers={"content-type": "application/x-ndjson"}).text
    window, end = map(json.loads, lines.splitlines())
    assert prediction["spike_counts"] == window["spike_counts"] == counts
    assert end["type"] == "end"
