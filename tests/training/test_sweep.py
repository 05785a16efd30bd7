"""The sweep of the documentation, run as it stands, and how a callback ends a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import run_job
from spikeserve.training.report.epochs import Epoch, Watcher
from tests.training.command_line import ROOT


def test_the_documented_sweep_trains_once_a_trial_and_reports_accuracy(config: TrainingConfig, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    network = config.network.model_copy(update={"architecture": "8"})
    optimisation = config.optimisation.model_copy(update={"epochs": 1})
    config.model_copy(update={"network": network, "optimisation": optimisation}).write(tmp_path / "run.toml")
    result = subprocess.run(
        [sys.executable, "-m", "docs.sweep", "run.toml", "2"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'sweep.db'}")
    runs = [RunFolder(tmp_path / "runs" / f"stripes-{number}") for number in (1, 2)]
    assert [trial.value for trial in study.trials] == [run.metrics["validation_accuracy"] for run in runs]
    for trial, run in zip(study.trials, runs, strict=True):
        found = run.config()
        assert trial.params == {
            "seed": found.seed, "learning_rate": found.optimisation.learning_rate, "slope": found.optimisation.slope
        }  # fmt: skip
    assert f"Best validation accuracy {study.best_value:.2%}" in result.stdout


def test_a_callback_that_raises_ends_a_run_saved(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    class Pruned(Exception):
        pass

    def prune(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise Pruned

    with pytest.raises(Pruned):
        run_job(config, data, RunFolder(tmp_path), Watcher(epoch=prune))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.toml"]
