"""The core alone: a copy without plugins/, the door shut, trains, publishes, verifies and serves as real processes."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.bundles import publish
from tests.networks import toy
from tests.serving import running
from tests.sources import ROOT

# Several commands in one process, which imports PyTorch once; of PYTHONPATH alone, whatever folder it is run in.
COMMANDS = (
    "import sys\nfrom spikeserve.__main__ import main\n"
    "for words in sys.argv[1:]:\n  try: main(words.split())\n  except SystemExit: pass"
)


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


def test_the_core_fits_publishes_and_verifies_without_any_plugin(core: Path) -> None:
    y = np.arange(200) % 2
    x = np.eye(2)[y].repeat(16, axis=1)  # by one half of 32 or the other
    np.savez(core / "pairs.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    fit = "fit --file pairs.npz --architecture 32 --epochs 1 --repository r"
    command = [sys.executable, "-P", "-c", COMMANDS, fit, "check r --engine reference", "serve --engine onnx"]
    ran = subprocess.run(command, cwd=core, capture_output=True, text=True, check=True)
    assert "Engine torch against reference: 0 other predictions" in ran.stdout
    assert "Published pairs version 1" in ran.stdout
    assert not (core / "r/pairs/1/model.onnx").exists()  # which is a plugin's
    assert "pairs 1: ok, on the engine reference" in ran.stdout
    assert "'onnx', expected 'auto', 'event', 'torch' or 'reference'\n" in ran.stderr


def test_the_core_serves_and_streams_without_any_plugin(core: Path) -> None:
    publish(core / "repository", toy())
    with running(core / "repository", program=("-P", "-m", "spikeserve", "serve")) as server:
        model = f"{server.url}/models/toy"
        (prediction,) = httpx.post(f"{model}/predict", json={"inputs": [[1, 0.5]]}).json()["predictions"]
        message = json.dumps({"type": "values", "values": [[1, 0.5]]})
        lines = httpx.post(f"{model}/stream", content=message, headers={"content-type": "application/x-ndjson"}).text
    window, end = map(json.loads, lines.splitlines())
    # Of a decay of 0.5 and a threshold of 1: 1 spikes at each of three steps; 0.5 charges 0.5, 0.75 and 0.875.
    assert prediction["spike_counts"] == window["spike_counts"] == [3, 0]
    assert end["type"] == "end"
