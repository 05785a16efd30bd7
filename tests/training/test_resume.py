"""Checkpoints of another run, or damaged ones: each ends `fit --resume` with a sentence."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.training.__main__ import app
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.folder import RunFolder


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
        (
            lambda saved: setattr(saved, "weights", None),
            "weights: Expected state_dict to be dict-like, got <class 'NoneType'>",
        ),
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
