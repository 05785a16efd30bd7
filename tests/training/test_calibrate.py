"""Calibration: what ends a sample early is chosen on validation samples, and loses no more than is allowed."""

import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spikeserve.models.bundle import File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import create
from spikeserve.models.engines.anytime import Calibration, StopRule, run_anytime
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.errors import InvalidInput
from spikeserve.training.__main__ import app
from spikeserve.training.data.datasets import Split
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.report.card import EARLY, calibration_text, upper_bound, with_section
from tests.bundles import publish
from tests.networks import regression, votes

STEPS = 8
NETWORK = votes("abc", STEPS, "spikes")


def raster(*firing: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a sample in which one input fires at each step, by its number."""
    return np.eye(3, dtype=np.float32)[list(firing)]


EASY = Split(np.stack([raster(*[index] * STEPS) for index in (0, 1, 2)]), np.array([0, 1, 2]))
# Class a leads by 3 after 3 steps, and b by 2 at the end. The second is wrong in a whole run too.
LATE = Split(np.stack([raster(0, 0, 0, 1, 1, 1, 1, 1), raster(*[0] * STEPS)]), np.array([1, 2]))
NONE = EASY[:0]


def together(*splits: Split) -> Split:
    return Split(
        np.concatenate([split.samples for split in splits]), np.concatenate([split.labels for split in splits])
    )


def ended(calibration: Calibration, split: Split) -> tuple[list[bool], float]:
    """Return which samples are right when they end early, and their mean steps."""
    inputs = encode(split.samples, NETWORK.spec)
    result = run_anytime(EventEngine(NETWORK), inputs, StopRule.CONFIDENT, calibration)
    return (result.class_index == split.labels).tolist(), float(np.asarray(result.steps_used).mean())


def test_a_calibration_loses_no_more_than_it_may_and_says_what_it_saves() -> None:
    split = together(EASY, LATE)
    calibration = calibrate(EventEngine(NETWORK), split, NONE, target=0.0)
    right, mean_steps = ended(calibration, split)
    assert right == [True, True, True, True, False]  # as in a whole run
    assert (calibration.samples, calibration.training_samples, calibration.time_steps) == (5, 0, STEPS)
    assert (calibration.accuracy, calibration.lost, calibration.changed) == (0.8, 0.0, 0.0)
    assert calibration.mean_steps == mean_steps
    # A lead of 3 after 3 steps must not do, so that those that are always ahead end after 4 steps, and the late one
    # does not before its class is right: after 7, where b has 4 and a has 3.
    assert 4 <= mean_steps <= (4 * 4 + 8) / 5


def test_what_may_be_lost_is_a_share_of_all_samples() -> None:
    # One of five is lost where all end after a step, which one may allow and a tenth may not.
    split = together(EASY, LATE)
    assert calibrate(EventEngine(NETWORK), split, NONE, target=0.2).mean_steps == 1
    lavish = calibrate(EventEngine(NETWORK), split, NONE, target=0.2)
    assert (lavish.lost, lavish.changed) == (0.2, 0.2)
    assert calibrate(EventEngine(NETWORK), split, NONE, target=0.1).lost == 0


def test_training_samples_are_not_lost_either() -> None:
    alone = calibrate(EventEngine(NETWORK), EASY, NONE, target=0.0)
    assert alone.mean_steps == 1
    assert ended(alone, LATE)[0] == [False, False]
    both = calibrate(EventEngine(NETWORK), EASY, LATE, target=0.0)
    assert (both.samples, both.training_samples) == (3, 2)
    assert ended(both, LATE)[0] == [True, False]
    assert both.mean_steps == 4


def test_a_network_that_leads_nowhere_runs_to_its_end() -> None:
    silent = Split(np.zeros((2, STEPS, 3), np.float32), np.array([0, 1]))
    calibration = calibrate(EventEngine(NETWORK), silent, NONE)
    assert (calibration.checks, calibration.mean_steps) == ((STEPS,), STEPS)


def test_a_regression_is_not_calibrated() -> None:
    network = regression()
    split = Split(np.zeros((1, 2), np.float32), np.array([0]))
    with pytest.raises(InvalidInput, match="the model gives values and no classes"):
        calibrate(create("reference", network), split, NONE)


def test_the_bound_of_a_share_is_clopper_and_pearsons() -> None:
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    # One of ten: (1 - p)**10 + 10 p (1 - p)**9 = 0.05 at p = 0.3942.
    assert upper_bound(1, 10) == pytest.approx(0.39416, abs=1e-5)
    assert upper_bound(10, 10) == 1
    assert math.isfinite(upper_bound(300, 100_000))


def test_a_section_takes_the_place_of_one_of_its_heading() -> None:
    card = "# toy\n\nFirst.\n\n## Rates\n\nold\n\n## Limits\n\nSome.\n"
    assert with_section(card, "Rates", "new") == "# toy\n\nFirst.\n\n## Rates\n\nnew\n\n## Limits\n\nSome.\n"
    assert with_section(card, "More", "new") == card + "\n## More\n\nnew\n"
    assert with_section("", "More", "new").strip() == "## More\n\nnew"


def write_data(path: Path) -> Path:
    """Write thirty samples of each class, whose input is 1 where the class says and 0.5 at one other place."""
    labels = np.arange(90) % 3
    samples = np.eye(3)[labels] + 0.5 * np.eye(3)[(labels + 1 + np.arange(90) // 45) % 3]
    np.savez(path, x=samples.astype(np.float32), y=labels)
    return path


def test_the_command_publishes_the_same_network_with_a_calibration(tmp_path: Path) -> None:
    publish(tmp_path / "repository", votes("abc", STEPS), "votes")
    data = write_data(tmp_path / "data.npz")
    arguments = ["calibrate", "votes", "--repository", str(tmp_path / "repository")]
    result = CliRunner().invoke(app, [*arguments, "--data", str(data)])
    assert result.exit_code == 0, result.output
    repository = ModelRepository(tmp_path / "repository")
    before, after = repository.read("votes", 1), repository.read("votes", 2)
    assert before.calibration is None
    assert after.calibration is not None
    assert after.network.spec == before.network.spec
    np.testing.assert_array_equal(after.network.tensors["fc.weight"], before.network.tensors["fc.weight"])
    # 18 of 90 are for the test, and of the 72 others 8 are held out.
    assert (after.calibration.samples, after.calibration.training_samples) == (8, 64)
    assert after.card == with_section(before.card, EARLY, calibration_text(after.calibration))
    assert "0 of 8 rules out, at 95 % confidence, only more than 31.2 points." in after.card  # 1 - 0.05 ** (1 / 8)
    assert File.ONNX_MODEL in after.manifest.files


def test_data_of_another_shape_is_a_sentence(tmp_path: Path) -> None:
    publish(tmp_path / "repository", regression("softmax"), "other")
    data = write_data(tmp_path / "data.npz")
    arguments = ["calibrate", "other", "--repository", str(tmp_path / "repository")]
    result = CliRunner().invoke(app, [*arguments, "--data", str(data)])
    assert result.exit_code == 1
    assert "has 3 classes and samples of shape 3, but model 'other' has 2 and 2" in str(result.exception)
