"""Small data: which weights are taken, what is held out, and what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig, TrainingConfig
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.diagnostics import at_end, at_start
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import fit, validate
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.report.evaluate import Evaluation
from tests.training.command_line import training_here


def test_few_validation_samples_choose_no_epoch(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # The best accuracy would be that of the first epoch that has it; 13 samples leave that to the last.
    assert len(data.validation) == 13
    fitted = fit(architecture_for(config, data), data, config, tmp_path / "checkpoint.pt")
    assert fitted.best == fitted.epochs[-1]
    assert not fitted.best.chooses
    assert validate(TrainingNetwork.of(fitted.network), data.validation).accuracy == fitted.best.validation_accuracy


def evaluation(labels: list[int], answers: list[int], rate: float = 0.1) -> Evaluation:
    scores = np.zeros((len(labels), 2))
    return Evaluation(
        np.array(labels), scores.astype(np.int64), scores.astype(np.float32), np.array(answers), np.zeros(1, np.int64),
        {"neuron1": rate},
    )  # fmt: skip


def test_a_sentence_names_the_cause(config: TrainingConfig, data: Dataset) -> None:
    # 115 samples in batches of 16 are 8 batches, and four epochs of them 32 updates.
    few, held_out = at_start(config, data)
    assert "115 training samples in batches of 16 are 32 updates of the weights" in few
    assert held_out.startswith("13 validation samples are too few to choose an epoch by, expected 50")
    settings = TrainingConfig.read(None, {"optimisation": {"rate_penalty": 0}})
    assert list(at_end(settings, data, evaluation([0, 0, 1, 1], [0, 0, 1, 0]))) == []
    at_chance, never = at_end(settings, data, evaluation([0, 0, 0, 1], [0, 0, 0, 0]))
    assert at_chance == "the test accuracy is 75.0%, and always naming the most frequent class has 75.0%"
    assert never.startswith("no test sample is taken for '1'")
    (much,) = at_end(settings, data, evaluation([0, 1], [0, 1], rate=0.22))
    assert much.startswith("neuron1 fires 22% of the time")


def test_ten_classes_of_five_samples_are_trained_without_validation(tmp_path: Path) -> None:
    # Two steps of ten units, of which that of the class is bright. A fifth of 50 are one test sample of each class; a
    # tenth of the 40 others are 4, which cannot hold one of each of ten.
    labels = np.arange(50) % 10
    np.savez(tmp_path / "ten.npz", x=np.eye(10)[labels][:, np.newaxis].repeat(2, axis=1), y=labels)
    data = load(DataConfig(file=tmp_path / "ten.npz"), Coding.CURRENT)
    assert (len(data.training), len(data.validation), len(data.test)) == (40, 0, 10)
    repository = tmp_path / "repository"
    result = training_here(
        "fit", "--file", "ten.npz", "--coding", "current", "--architecture", "32", "--epochs", "12",
        "--repository", repository, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "40 training samples in batches of 10, 12 epochs: at most 48 updates of the weights" in said
    assert "nothing is held out for validation, since a class or the groups have too few samples" in said
    metrics = json.loads((tmp_path / "runs" / "ten-1" / "metrics.json").read_text())
    assert metrics["validation_accuracy"] is None
    assert metrics["best_epoch"] == 11
    card = (repository / "ten" / "1" / "card.md").read_text()
    assert re.search("The 40 training samples, which chose", card)


def test_a_network_at_chance_is_published_only_when_told_to(tmp_path: Path) -> None:
    # All test samples are alike, so that all get the same class, which half of them are of.
    x, y = np.ones((40, 4)), np.arange(40) % 2
    x[0] = 0
    np.savez(tmp_path / "alike.npz", x_train=x, y_train=y, x_test=x[1:11], y_test=y[1:11])
    words = ["--file", "alike.npz", "--architecture", "8", "--epochs", "1"]
    refused = training_here("fit", *words, "--repository", "repository", cwd=tmp_path, plots=False)
    assert refused.returncode == 1
    assert "the test accuracy is 50.0%, and always naming the most frequent class has 50.0%" in refused.stderr
    assert "`export runs/alike-1 --at-chance` publishes it nevertheless" in refused.stderr
    assert not (tmp_path / "repository" / "alike").exists()
    told = training_here("export", "runs/alike-1", "--at-chance", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "repository" / "alike" / "1").is_dir()
