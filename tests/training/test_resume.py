"""What ends `fit --resume` with a sentence, when a run begins again, what its folder holds, and callbacks."""

import io
import json
import pickle
import runpy
import sys
import zipfile
from contextlib import chdir
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
from tests.training.command_line import ROOT, training_here
from tests.training.conftest import changed


def progress() -> tuple[nn.Module, torch.optim.Optimizer, Progress]:
    """Return a network of one layer, its optimiser after a step, and their progress."""
    module = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return module, optimiser, Progress(module.state_dict(), optimiser.state_dict(), {})


def test_a_run_killed_before_its_first_epoch_begins_again(config: TrainingConfig, tmp_path: Path) -> None:
    folder = RunFolder.fresh(tmp_path / "runs", "stripes")
    short = changed(config, network={"architecture": "8"}, optimisation={"epochs": 2})
    short.write(folder.path / "config.toml")  # which a run leaves that is killed by SIGKILL
    with chdir(tmp_path):
        folder.save_target("repository", "mine")  # here, wherever it is resumed
    result = training_here("fit", "--resume", folder.path, "--patience", "2", plots=False, cwd=tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    assert "had ended: it begins again" in " ".join(result.stdout.split())
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
    (tmp_path / ".checkpoint.pt.incoming").symlink_to(full)
    with pytest.raises(OSError, match="No space left on device"):
        progress()[2].save(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "checkpoint.pt").exists()


OF_LINEAR = "weights: Error(s) in loading state_dict for Linear: "


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("weights", None, "weights: Expected state_dict to be dict-like, got <class 'No"),
        ("weights", {}, OF_LINEAR + 'Missing key(s) in state_dict: "weight", "bias"'),
        (
            "weights",
            {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)},
            OF_LINEAR + "size mismatch for weight: copying a param with shape ",
        ),
        ("optimiser", {}, "optimiser: is not the state of the network's parameters"),
        ("moment", torch.zeros(7, 7), "optimiser: is not the state of the network's parameters"),
    ],
)
def test_a_checkpoint_of_another_network_is_named(field: str, value: Any, sentence: str) -> None:
    module, optimiser, saved = progress()
    if field == "moment":
        saved.optimiser["state"][0].update(exp_avg=value)
    else:
        setattr(saved, field, value)
    with pytest.raises(InvalidConfig) as error:
        saved.restore(module, optimiser, Path("checkpoint.pt"))
    assert str(error.value).startswith(f"run: 'checkpoint.pt', {sentence}")


def bomb() -> bytes:
    """Return a checkpoint of PyTorch's form whose pickle unpacks to 10 MB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    return packed.getvalue()


def no_dictionary() -> bytes:
    torch.save([1], packed := io.BytesIO())
    return packed.getvalue()


@pytest.mark.parametrize("content", [b"", pickle.dumps({"weights": print}), bomb(), no_dictionary()])
def test_a_file_that_is_no_checkpoint_is_named_without_advice_to_trust_it(
    config: TrainingConfig, content: bytes, tmp_path: Path
) -> None:
    config.write(tmp_path / "config.toml")
    (path := tmp_path / "checkpoint.pt").write_bytes(content)
    result = training_here("fit", "--resume", tmp_path)
    assert (result.returncode, result.stderr) == (
        1, f"error: run: '{path}' is not a checkpoint that can be read, expected the one that the run's fit wrote\n",
    )  # fmt: skip


def test_a_run_that_cannot_begin_leaves_no_folder(stripes: Path, tmp_path: Path) -> None:
    result = training_here("fit", "--file", stripes, "--precision", "bf16-mixed", cwd=tmp_path)
    assert "'bf16-mixed' needs CUDA, but device is 'cpu'" in result.stderr
    assert [*tmp_path.rglob("config.toml")] == []


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
    ("name", "content", "sentence"),
    [
        *(
            ("metrics.json", content, r"run: '.*metrics\.json'")
            for content in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"exact": true, "validation_accuracy": "x"}')
        ),
        ("config.toml", b"x=" + b"[" * 5000, r"config\.toml' is nested too deep, expected sections with fields"),
        ("config.toml", b"x=" + b"{a=" * 3000, r"config\.toml' is nested too deep, expected sections with fields"),
        ("config.toml", b"seed=" + b"9" * 5000, r"config\.toml' holds a number out of range"),
        ("config.toml", b".".join([b"a"] * 5000) + b"=1", r"config\.toml"),
    ],
)
def test_a_file_of_a_run_that_was_changed_is_named(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidConfig, match=sentence):
        _ = RunFolder(tmp_path).metrics if name == "metrics.json" else RunFolder(tmp_path).config()


@pytest.mark.parametrize(("name", "most"), [("config.toml", 2**20), ("metrics.json", 2**28)])
def test_files_of_a_run_that_are_too_large_are_refused_before_they_are_read(
    name: str, most: int, tmp_path: Path
) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(most + 1)  # which takes no room on the disk
    with pytest.raises(InvalidConfig, match=rf"it has {most + 1:,} bytes, expected at most {most:,}"):
        _ = RunFolder(tmp_path).metrics if name == "metrics.json" else RunFolder(tmp_path).config()


def test_the_documented_sweep_trains_once_a_trial_and_reports_accuracy(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna")
    changed(config, network={"architecture": "8"}, optimisation={"epochs": 1}).write(tmp_path / "run.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["docs.sweep", "run.toml", "2"])
    runpy.run_path(str(ROOT / "docs/sweep.py"), run_name="__main__")
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'sweep.db'}")
    runs = [RunFolder(tmp_path / "runs" / f"stripes-{number}") for number in (1, 2)]
    for trial, run in zip(study.trials, runs, strict=True):
        optimisation = run.config().optimisation
        chosen = {"learning_rate": optimisation.learning_rate, "slope": optimisation.slope}
        assert trial.params == {"seed": run.config().seed} | chosen
        assert trial.value == run.metrics["validation_accuracy"]
    assert f"Best validation accuracy {study.best_value:.2%}" in capsys.readouterr().out


def test_a_callback_that_raises_ends_a_run_saved(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    def prune(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(config, data, RunFolder(tmp_path), Watcher(epoch=prune))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.toml"]
