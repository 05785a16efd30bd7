"""The commands, as a user types them: fit, evaluate, export, and what they say when something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import EngineName, create
from spikeserve.training.__main__ import app
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.report.evaluate import ACCURACY_VARIES
from tests.training.command_line import training_here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Path:
    """A folder with a run, runs/stripes-1, that was published to repository/stripes/1."""
    home = tmp_path_factory.mktemp("home")
    result = training_here(
        "fit", "--dataset", "arrays", "--file", stripes, "--architecture", "4C3-AP2-16", "--epochs", "3",
        "--time-steps", "4", "--batch-size", "16", "--repository", "repository", cwd=home,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Published stripes version 1" in result.stdout
    return home


def test_fit_leaves_all_that_a_person_would_look_for(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    plots = ("curves", "confusion", "raster")
    for name in plots:
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(metrics["epochs"]) == 3
    assert 0 <= metrics["test_accuracy"] <= 1
    assert set(metrics["firing_rates"]) == {"neuron1", "neuron3", "output"}
    assert all(epoch["gradient_norm"] > 0 for epoch in metrics["epochs"])
    assert len(metrics["warnings"]) == 2  # of few updates and of few validation samples
    assert list((run / "tensorboard").glob("events.*"))
    assert TrainingConfig.read(run / "config.toml", {}).network.architecture == "4C3-AP2-16"


def test_the_published_bundle_gives_the_counts_of_the_evaluation(finished: Path) -> None:
    bundle = ModelRepository(finished / "repository").read("stripes")
    saved = np.load(finished / "runs" / "stripes-1" / "evaluation.npz")
    for name in EngineName:
        engine = create(name, bundle.network)
        bundle.verify(engine)
        result, _ = engine.run(encode(saved["x"], bundle.network.spec))
        np.testing.assert_array_equal(result.spike_counts, saved["spike_counts"])
    assert bundle.manifest.metrics["test_accuracy"] == (saved["class_index"] == saved["y"]).mean()
    assert "Firing rates" in bundle.card
    assert ACCURACY_VARIES in " ".join(bundle.card.split())
    assert bundle.manifest.firing_rates == RunFolder(finished / "runs" / "stripes-1").metrics["firing_rates"]


def test_export_publishes_the_next_version_and_evaluate_runs_any_engine(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    exported = training_here("export", run, "--repository", finished / "other", "--name", "stripes")
    again = training_here("export", run, "--repository", finished / "other", "--name", "stripes")
    assert "Published stripes version 1" in exported.stdout
    assert "Published stripes version 2" in again.stdout
    results = {training_here("evaluate", run, "--engine", engine).stdout for engine in ("torch", "onnx")}
    assert len(results) == 1
    printed = " ".join(results.pop().split())  # a line is as wide as the terminal
    assert "Test accuracy" in printed
    assert ACCURACY_VARIES in printed


def in_process(*arguments: str | Path) -> Result:
    """Run a command in this process, which imports nothing again; a user's mistake is the result's exception."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_resume_can_make_a_run_longer_and_not_shorter(finished: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished / "runs" / "stripes-1", tmp_path / "stripes-1")))
    before = run.metrics
    again = in_process("fit", "--resume", run.path)  # all its epochs are done, so it ends where it was
    assert again.exit_code == 0, again.output
    assert {name: run.metrics[name] for name in ("epochs", "test_accuracy")} == {
        name: before[name] for name in ("epochs", "test_accuracy")
    }
    assert in_process("fit", "--resume", run.path, "--epochs", "4", "--patience", "9").exit_code == 0
    assert run.metrics["epochs"][:3] == before["epochs"]
    assert len(run.metrics["epochs"]) == 4
    assert (run.config().optimisation.epochs, run.config().optimisation.patience) == (4, 9)
    shorter = in_process("fit", "--resume", run.path, "--epochs", "2")
    assert isinstance(shorter.exception, InvalidConfig)
    assert str(shorter.exception) == (
        "--epochs is 2, expected at least 4 as in the run, which --resume can make longer but not shorter"
    )


def test_resume_refuses_each_flag_that_it_would_ignore(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    result = in_process("fit", "--resume", run, "--decay", "0.9", "--config", "x.toml", "--runs", "y", "--epochs", "9")
    assert isinstance(result.exception, InvalidConfig)
    assert str(result.exception) == (
        "--resume goes on under the run's own configuration and would ignore --config, --runs, --decay; of the "
        "configuration, only --device, --epochs, --patience and --precision may change"
    )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
