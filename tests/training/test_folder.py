"""The folder of a run: when it goes again, and what is written into it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.report.epochs import Epoch
from spikeserve.training.report.evaluate import Evaluation


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
