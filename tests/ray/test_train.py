"""Ray Train runs `fit` in two processes, whose result is that of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from deploy.ray.train import train
from tests.training.test_devices import RUN, fit_here, losses
from training.fit.folder import RunFolder


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
def test_two_processes_of_ray_train_give_the_result_of_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train([*RUN, "--file", str(data), "--epochs", "2"], 2)
    (run,) = (RunFolder(each) for each in (tmp_path / "runs").iterdir() if each.name != ".ray")
    epochs: list[Any] = run.metrics["epochs"]
    assert len(epochs) == 2
    alone = fit_here(run, 2, tmp_path / "checkpoint.pt")
    np.testing.assert_allclose(losses(epochs), losses(alone.epochs), rtol=0, atol=1e-6)
