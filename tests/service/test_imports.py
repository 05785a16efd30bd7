"""Serving needs neither torch nor `training`, nor ONNX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT

PROGRAM = """
import sys, warnings
for name in ("torch", "torchvision", "sklearn", "spikeserve.training", "onnx", "onnxruntime"):
    sys.modules[name] = None  # importing it is an ImportError
warnings.simplefilter("ignore")
import spikeserve.service.app, spikeserve.service.process.command_line, structlog
assert not structlog.is_configured()  # nothing happens at import
from fastapi.testclient import TestClient
from pathlib import Path
from spikeserve.service.settings import Settings

with TestClient(spikeserve.service.app.create_app(Settings(repository=Path(sys.argv[1])))) as client:
    while client.get("/health/ready").status_code == 503:
        pass
    answer = client.post("/predict", json={"inputs": [[0, 1]]}).json()
    assert answer["engine"] == "event", answer
    assert answer["predictions"][0]["spike_counts"] == [0, 3], answer
assert not any(module and name.startswith(("torch", "spikeserve.training")) for name, module in sys.modules.items())
"""


def test_a_request_is_answered_where_torch_training_and_onnx_are_not(repository: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(repository)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
