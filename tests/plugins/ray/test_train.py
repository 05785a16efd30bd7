"""Ray Train runs `fit` in two processes, whose result is that of one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from deploy.ray.train import train
from spikeserve.training.fit.folder import RunFolder
from tests.serving import ROOT
from tests.training.test_devices import RUN, fit_here, losses


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images of stripes, across or down, with noise."""
    rng = np.random.default_rng(1)
    labels = np.arange(190) % 2
    stripe = np.tile([1.0, 0.0], 4)
    images = np.where(labels[:, None, None] == 1, stripe[:, None], stripe[None, :]) * np.ones((190, 8, 8))
    np.savez(tmp_path / "stripes.npz", x=(images + rng.random((190, 8, 8)))[:, None].astype(np.float32), y=labels)
    return tmp_path / "stripes.npz"


@pytest.mark.usefixtures("cluster")
def test_two_processes_of_ray_train_are_as_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train([*RUN, "--file", str(data), "--epochs", "2"], 2)
    (run,) = (RunFolder(each) for each in (tmp_path / "runs").iterdir() if each.name != ".ray")
    epochs: list[Any] = run.metrics["epochs"]
    assert len(epochs) == 2
    alone = fit_here(run, 2, tmp_path / "checkpoint.pt")
    np.testing.assert_allclose(losses(epochs), losses(alone.epochs), rtol=0, atol=1e-6)


def test_a_number_of_workers_that_is_none_is_refused_by_a_sentence() -> None:
    command = [sys.executable, "-m", "deploy.ray.train", "fit", "--dataset", "digits"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = "error: WORKERS is 'fit', expected 1 or more: python -m deploy.ray.train WORKERS fit …\n"
    assert (ended.returncode, ended.stderr) == (1, said)
