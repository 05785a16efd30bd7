"""The defaults that suit the data: images have one set and sequences another, and what was given stays.

Small data: which weights are taken, what is held out, and what is said of it.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training.ours import module_of
from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.training.config import (
    AUTO,
    AugmentConfig,
    DataConfig,
    NetworkConfig,
    OptimisationConfig,
    Surrogate,
    TrainingConfig,
)
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.diagnostics import at_end, at_start
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import fit, validate
from spikeserve.training.report.evaluate import Evaluation
from tests.training.command_line import training_here

IMAGE, SEQUENCE = (3200, 1, 8, 8), (3200, 20, 12)  # shapes of training samples


@pytest.mark.parametrize(
    ("network", "temporal"),
    [
        (NetworkConfig(), False),
        (NetworkConfig(coding=Coding.RATE), False),
        (NetworkConfig(coding=Coding.SPIKES), True),
        (NetworkConfig(coding=Coding.CURRENT), True),
        (NetworkConfig(architecture="8C3-16R"), True),
        (NetworkConfig(architecture="8C3-16"), False),
    ],
)
def test_values_per_step_and_recurrent_layers_make_a_network_temporal(network: NetworkConfig, temporal: bool) -> None:
    assert network.temporal is temporal


def test_a_sequence_takes_the_defaults_of_sequences_but_for_what_was_given() -> None:
    given = TrainingConfig(
        network=NetworkConfig(coding=Coding.SPIKES), optimisation=OptimisationConfig(surrogate=Surrogate.ARCTAN)
    )
    taken = given.for_data(SEQUENCE)
    assert taken.network.architecture == "128R"
    assert taken.network.readout is Readout.MEAN_MEMBRANE
    assert taken.optimisation.surrogate is Surrogate.ARCTAN


def test_an_image_keeps_the_plain_defaults() -> None:
    taken, plain = TrainingConfig().for_data(IMAGE), TrainingConfig()
    assert taken.network.architecture == "32C3-AP2-64C3-AP2-64"
    assert taken.optimisation == plain.optimisation
    assert taken.network.model_copy(update={"architecture": AUTO}) == plain.network


def test_what_was_taken_is_written_and_read_again_without_a_second_choice(tmp_path: Path) -> None:
    taken = TrainingConfig(network=NetworkConfig(coding=Coding.SPIKES, architecture="16")).for_data(SEQUENCE)
    path = tmp_path / "config.toml"
    taken.write(path)
    assert TrainingConfig.read(path, {}).for_data(SEQUENCE) == taken


@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs", "updates"),
    [
        (5, 2, 334, 1002),  # 2, 2 and 1 sample: three batches
        (45, 12, 250, 1000),  # a quarter, rounded up: four batches
        (255, 64, 250, 1000),
        (256, 64, 125, 500),  # half as many updates, of batches of 64
        (1000, 64, 40, 640),
        (50_000, 64, 40, 31_280),  # 782 batches: 40 epochs are enough
    ],
)
def test_a_small_set_has_a_thousand_updates(samples: int, batch_size: int, epochs: int, updates: int) -> None:
    taken = TrainingConfig().for_data((samples, 4)).optimisation
    assert (taken.batch_size, taken.epochs, taken.updates(samples)) == (batch_size, epochs, updates)


def test_epochs_and_a_batch_size_that_were_given_stay() -> None:
    given = TrainingConfig(optimisation=OptimisationConfig(epochs=3)).for_data((45, 4)).optimisation
    assert (given.epochs, given.batch_size) == (3, 12)
    # Batches of 64 have all 45 samples: an epoch is one update.
    given = TrainingConfig(optimisation=OptimisationConfig(batch_size=64)).for_data((45, 4)).optimisation
    assert (given.epochs, given.batch_size) == (1000, 64)


@pytest.mark.parametrize(
    ("architecture", "samples", "rate"), [("128R", 255, 5e-3), ("128R", 256, 2e-2), ("64T9-BN", 256, 5e-3)]
)
def test_small_sets_of_sequences_have_a_lower_learning_rate(architecture: str, samples: int, rate: float) -> None:
    sequences = TrainingConfig(network=NetworkConfig(coding=Coding.CURRENT, architecture=architecture))
    assert sequences.for_data((samples, 20, 2)).optimisation.learning_rate == rate
    assert TrainingConfig().for_data((samples, 4)).optimisation.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("coding", "shape", "architecture"),
    [
        (Coding.DIRECT, (1, 8, 8), "32C3-AP2-64C3-AP2-64"),
        (Coding.DIRECT, (1, 3, 8), "256"),  # no two pools fit
        (Coding.DIRECT, (8, 8), "256"),
        (Coding.DIRECT, (64,), "256"),
        (Coding.CURRENT, (24, 1), "128R"),  # short
        (Coding.SPIKES, (100, 2, 34, 34), "128R"),  # pictures
        (Coding.SPIKES, (100, 64), "64T9-BN-64T9d2-BN-64T9d4-BN"),  # the last layer sees 57 steps
        (Coding.SPIKES, (256, 12), "64T9-BN-64T9d4-BN-64T9d16-BN"),  # 169 steps
        (Coding.CURRENT, (100_000, 1), "64T9-BN-64T9d4-BN-64T9d16-BN"),  # the same
    ],
)
def test_the_samples_choose_the_architecture(coding: Coding, shape: tuple[int, ...], architecture: str) -> None:
    taken = TrainingConfig(network=NetworkConfig(coding=coding)).for_data((3200, *shape)).network
    assert taken.architecture == architecture
    declared = Input(shape=shape[coding.per_step :])
    assert build_architecture(taken, declared, ("a", "b"), shape[0] if coding.per_step else 8).spec.classes == 2
    given = TrainingConfig(network=NetworkConfig(coding=coding, architecture="16"))
    assert given.for_data((3200, *shape)).network.architecture == "16"


@pytest.mark.parametrize(
    ("coding", "shape", "shift"),
    [
        (Coding.DIRECT, (1, 28, 28), 2),
        (Coding.RATE, (3, 16, 16), 2),
        (Coding.DIRECT, (1, 8, 28), 0),  # two pixels would be a quarter of its height
        (Coding.DIRECT, (784,), 0),
        (Coding.SPIKES, (10, 2, 34, 34), 0),
    ],
)
def test_large_images_are_shifted_in_training_by_default(coding: Coding, shape: tuple[int, ...], shift: int) -> None:
    network = NetworkConfig(coding=coding)
    assert TrainingConfig(network=network).for_data((3200, *shape)).augment.shift == shift
    assert TrainingConfig(network=network, augment=AugmentConfig(shift=0)).for_data((3200, *shape)).augment.shift == 0


@pytest.mark.parametrize("layer", ["64T9Th", "64T9d2Th-BN", "64T9Th-BN-DO0.2-8Th"])
def test_the_firing_rates_of_plain_thresholds_are_read_and_their_surrogate_is_wide(layer: str) -> None:
    network = NetworkConfig(coding=Coding.SPIKES, architecture=layer)
    taken = TrainingConfig(network=network).for_data((3200, 256, 12))
    assert (taken.network.readout, taken.weight_decay, taken.firing_rates) == (Readout.MEAN, 0.01, (0.01, 0.06))
    fitting = taken.optimisation
    assert (fitting.surrogate, fitting.slope, fitting.rate_penalty) == (Surrogate.ARCTAN, 2, 50)
    own = TrainingConfig(network=network, optimisation=OptimisationConfig(slope=10)).for_data((3200, 256, 12))
    assert (own.optimisation.surrogate, own.optimisation.slope) == (Surrogate.ARCTAN, 10)
    for other in (f"{layer}-8R", "32S10Th"):
        mixed = NetworkConfig(coding=Coding.SPIKES, architecture=other)
        usual = TrainingConfig(network=mixed).for_data((3200, 256, 12))
        assert (usual.network.readout, usual.weight_decay) == (Readout.MEAN_MEMBRANE, 0.001)
        assert (usual.optimisation.rate_penalty, usual.firing_rates) == (2, (0.01, 0.15))


def test_convolutions_over_the_time_of_spikes_are_trained_on_varied_samples() -> None:
    spikes = NetworkConfig(coding=Coding.SPIKES)
    whole = TrainingConfig(network=spikes).for_data((3200, 256, 12))
    taken = whole.augment
    assert (taken.event_drop, taken.time_shift, whole.optimisation.label_smoothing) == (0.2, 8, 0.1)
    given = TrainingConfig(network=spikes, augment=AugmentConfig(time_shift=1)).for_data((3200, 256, 12)).augment
    assert (given.event_drop, given.time_shift) == (0.2, 1)
    for network, shape in [(spikes, SEQUENCE), (NetworkConfig(coding=Coding.CURRENT), (3200, 256, 12))]:
        other = TrainingConfig(network=network).for_data(shape)
        assert (other.augment, other.optimisation.label_smoothing) == (AugmentConfig(), 0.0)


def test_few_validation_samples_choose_no_epoch(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # The best accuracy would be that of the first epoch that has it; 13 samples leave that to the last.
    assert len(data.validation) == 13
    fitted = fit(architecture_for(config, data), data, config, tmp_path / "checkpoint.pt")
    assert fitted.best == fitted.epochs[-1]
    assert not fitted.best.chooses
    assert validate(module_of(fitted.network), data.validation)[1] == fitted.best.validation_accuracy


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
