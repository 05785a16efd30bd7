"""Several devices: real processes on the loopback, whose result is that of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.command_line import ROOT, training
from training.config import ParallelConfig, TrainingConfig
from training.data.datasets import Dataset
from training.errors import InvalidConfig
from training.fit.checkpoint import Progress
from training.fit.devices import Devices, launch
from training.fit.folder import RunFolder
from training.fit.job import architecture_for
from training.fit.loop import fit

# Everything random at once: rate coding, dropout and the order. Of 115 training samples in batches of 19, the last
# batch has 1, which is fewer than there are processes, and the others are not even.
RUN = (
    "fit", "--dataset", "arrays", "--coding", "rate", "--architecture", "4C3-AP2-16-DO0.2", "--batch-size", "19",
    "--time-steps", "4", "--learning-rate", "0.01",
)  # fmt: skip
BY_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def metrics(home: Path) -> dict[str, Any]:
    """Return the metrics of the only run below `home`: a process that is not the first makes no folder."""
    (run,) = (home / "runs").iterdir()
    return RunFolder(run).metrics


def losses(content: dict[str, Any]) -> list[float]:
    return [epoch[name] for epoch in content["epochs"] for name in ("training_loss", "validation_loss")]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Path:
    """A folder with a run of three epochs in one process."""
    home = tmp_path_factory.mktemp("one")
    result = training(*RUN, "--file", stripes, "--epochs", "3", cwd=home)
    assert result.returncode == 0, result.stderr
    return home


def test_two_processes_give_the_loss_of_one_and_only_the_first_prints(one: Path, stripes: Path, tmp_path: Path) -> None:
    result = training(*RUN, "--file", stripes, "--epochs", "3", "--devices", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found, expected = metrics(tmp_path), metrics(one)
    np.testing.assert_allclose(losses(found), losses(expected), rtol=0, atol=1e-6)
    for epoch, same in zip(found["epochs"], expected["epochs"], strict=True):
        assert epoch["training_accuracy"] == pytest.approx(same["training_accuracy"])
        assert epoch["firing_rates"] == pytest.approx(same["firing_rates"], abs=1e-6)
    assert found["test_accuracy"] == expected["test_accuracy"]
    assert result.stdout.count("Test accuracy") == result.stdout.count("epoch   1") == 1
    assert result.stderr == ""
