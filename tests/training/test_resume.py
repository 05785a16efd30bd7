"""Checkpoints of another run, or damaged ones: each ends `fit --resume` with a sentence.

The folder of a run: when it goes again, and what is written into it.

The sweep of the documentation, run as it stands, and how a callback ends a run.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.training.__main__ import app
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import run_job
from spikeserve.training.report.epochs import Epoch, Watcher
from spikeserve.training.report.evaluate import Evaluation
from tests.training.command_line import ROOT


def progress() -> tuple[nn.Module, torch.optim.Optimizer, Progress]:
    """Return a network of one layer, its optimiser after a step, and their progress."""
    module = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return module, optimiser, Progress(module.state_dict(), optimiser.state_dict(), {})


def test_a_run_killed_before_its_first_epoch_begins_again(config: TrainingConfig, tmp_path: Path) -> None:
    folder = RunFolder.fresh(tmp_path / "runs", "stripes")
    config.write(folder.path / "config.toml")  # which a run leaves that is killed by SIGKILL
    folder.save_target(str(tmp_path / "repository"), "mine")
    result = CliRunner().invoke(app, ["fit", "--resume", str(folder.path), "--patience", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "had ended: it begins again" in " ".join(result.output.split())
    assert folder.config().optimisation.patience == 2
    assert ModelRepository(tmp_path / "repository").read("mine").manifest.version == 1


def test_a_run_whose_checkpoint_was_deleted_does_not_begin_again(config: TrainingConfig, tmp_path: Path) -> None:
    config.write(tmp_path / "config.toml")
    (tmp_path / "spec.json").write_text("{}")
    result = CliRunner().invoke(app, ["fit", "--resume", str(tmp_path)])
    assert "holds no checkpoint.pt, so there is nothing to resume" in str(result.exception)
    assert (tmp_path / "spec.json").read_text() == "{}"


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "checkpoint.incoming").symlink_to(full)
    with pytest.raises(OSError, match="No space left on device"):
        progress()[2].save(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda saved: setattr(saved, "weights", None), "weights: Expected state_dict to be dict-like, got <class 'No"),
        (
            lambda saved: setattr(saved, "weights", {}),
            'weights: Error(s) in loading state_dict for Linear: Missing key(s) in state_dict: "weight", "bias"',
        ),
        (
            lambda saved: setattr(saved, "weights", {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}),
            "weights: Error(s) in loading state_dict for Linear: size mismatch for weight: copying a param with shape ",
        ),
        (
            lambda saved: saved.weights.update(more=torch.zeros(1)),
            'weights: Error(s) in loading state_dict for Linear: Unexpected key(s) in state_dict: "more"',
        ),
        (lambda saved: setattr(saved, "optimiser", {}), "optimiser: is not the state of the network's parameters"),
        (
            lambda saved: saved.optimiser["state"][0].update(exp_avg=torch.zeros(7, 7)),
            "optimiser: is not the state of the network's parameters",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_named(change: Callable[[Progress], Any], sentence: str) -> None:
    module, optimiser, saved = progress()
    saved.weights, saved.optimiser = dict(saved.weights), optimiser.state_dict()
    change(saved)
    with pytest.raises(InvalidConfig) as error:
        saved.restore(module, optimiser, Path("checkpoint.pt"))
    assert str(error.value).startswith(f"run: 'checkpoint.pt', {sentence}")


@pytest.mark.parametrize("kind", ["nothing", "pickle", "bomb", "list"])
def test_a_file_that_is_no_checkpoint_is_named_without_advice_to_trust_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoint.pt"
    match kind:
        case "nothing":
            path.write_bytes(b"")
        case "pickle":
            path.write_bytes(pickle.dumps({"weights": print}))
        case "bomb":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("archive/data.pkl", bytes(10**7))
            path.write_bytes(packed.getvalue())
        case _:
            torch.save([1], path)
    with pytest.raises(InvalidConfig) as error:
        Progress.load(path)
    assert str(error.value) == (
        f"run: '{path}' is not a checkpoint that can be read, expected the one that the run's fit wrote"
    )


def test_a_folder_is_removed_where_a_run_ends_before_its_first_checkpoint_and_only_there(tmp_path: Path) -> None:
    def fails(folder: RunFolder, *, late: bool) -> None:
        with folder.removed_unless_begun():
            (folder.path / "config.toml").touch()
            if late:
                folder.checkpoint.touch()
            raise KeyboardInterrupt

    early, late = RunFolder.fresh(tmp_path, "x"), RunFolder.fresh(tmp_path, "x")
    for folder in (early, late):
        with pytest.raises(KeyboardInterrupt):
            fails(folder, late=folder is late)
    assert not early.path.exists()
    assert (late.path / "config.toml").exists()


def test_metrics_have_each_epoch_and_each_warning_once_and_are_json_whatever_the_loss(tmp_path: Path) -> None:
    broken = Epoch(0, float("nan"), 0.5, 1.0, 0.5, {}, 1.0, float("inf"), (1.0, float("inf")), ("it explodes.",))
    sound = Epoch(1, 0.25, 0.5, 1.0, 0.5, {}, 1.0, 2.0, (1.0, 3.0), ("it explodes.", "it is silent."))
    labels = np.zeros(2, np.int64)
    evaluation = Evaluation(labels, labels, np.zeros((2, 1), np.float32), labels, labels, {})
    folder = RunFolder(tmp_path)
    folder.save_metrics(evaluation, sound, [broken, sound], exact=True, interrupted=False)
    text = (tmp_path / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert metrics["warnings"] == ["it explodes.", "it is silent."]
    first, second = metrics["epochs"]
    assert (first["training_loss"], first["gradient_norm"]) == (None, None)
    assert (second["training_loss"], second["gradient_norm"]) == (0.25, 2.0)
    assert "gradient_norms" not in second


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"exact": true, "validation_accuracy": "x", "seconds": 1}'],
)
def test_metrics_that_were_changed_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"run: '.*metrics\.json'"):
        _ = RunFolder(tmp_path).metrics


@pytest.mark.parametrize(
    "text", ["x=" + "[" * 5000, "x=" + "{a=" * 3000, "seed=" + "9" * 5000, ".".join("a" * 5000) + "=1"]
)
def test_a_configuration_beyond_what_the_parser_takes_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InvalidConfig, match=r"c\.toml'? ?(is nested too deep|holds a number out of range|: )"):
        TrainingConfig.read(tmp_path / "c.toml", {})


def test_files_of_a_run_that_are_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    folder = RunFolder.fresh(tmp_path, "x")
    for name, most, read in (
        (folder.path / "config.toml", 2**20, lambda: TrainingConfig.read(folder.path / "config.toml", {})),
        (folder.path / "metrics.json", 2**28, lambda: folder.metrics),
    ):
        with name.open("wb") as file:
            file.truncate(most + 1)  # which takes no room on the disk
        with pytest.raises(InvalidConfig, match=rf"it has {most + 1:,} bytes, expected at most {most:,}"):
            read()


@pytest.mark.parametrize(("said", "decay"), [("decay = 0.9", 0.9), ("", None)])
def test_a_file_says_by_its_decay_how_those_of_a_sequence_start(tmp_path: Path, said: str, decay: float | None) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[network]\narchitecture = "8R"\n{said}\n')
    read = TrainingConfig.read(path, {}).for_data((1000, 5, 2))
    assert read.network.decay == decay
    read.write(path)
    assert TrainingConfig.read(path, {}).for_data((1000, 5, 2)) == read


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
