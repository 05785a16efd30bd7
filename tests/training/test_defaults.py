"""The defaults that suit the data: images have one set and sequences another, and what was given stays.

Small data: which weights are taken, what is held out, and what is said of it.
"""

import json
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.training.ours import module_of
from spikeserve.models.bundle.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import AugmentConfig, DataConfig, TrainingConfig
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.diagnostics import at_end, at_start
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import fit, validate
from spikeserve.training.report.evaluate import Evaluation
from tests.training.command_line import training_here
from tests.training.conftest import changed

SEQUENCE, LONG = (3200, 20, 12), (3200, 256, 12)  # shapes of training samples
SPIKES, CURRENT = {"coding": "spikes"}, {"coding": "current"}
OVER_TIME = "64T9-BN-64T9d4-BN-64T9d16-BN"
SHIFTED = "augment.shift"
READ_BY_RATE = {
    "network.readout": "mean", "weight_decay": 0.01, "firing_rates": (0.01, 0.06), "optimisation.surrogate": "arctan",
    "optimisation.slope": 2, "optimisation.rate_penalty": 50,
}  # fmt: skip
READ_BY_MEMBRANE = {
    "network.readout": "mean_membrane", "weight_decay": 0.001, "firing_rates": (0.01, 0.15),
    "optimisation.rate_penalty": 2,
}  # fmt: skip


def updates(batch_size: int, epochs: int) -> dict[str, Any]:
    return {"optimisation.batch_size": batch_size, "optimisation.epochs": epochs}


def architecture(text: str) -> dict[str, Any]:
    return {"network.architecture": text}


@pytest.mark.parametrize(
    ("typed", "samples", "taken"),
    [
        # A network is of sequences by its values per step, or by a recurrent layer.
        ({}, (3200, 1, 8, 8), {"network.temporal": False, "network.readout": "spike_count"}),
        ({"network": {"coding": "rate"}}, (3200, 1, 8, 8), {"network.temporal": False}),
        ({"network": {"architecture": "8C3-16"}}, (3200, 1, 8, 8), {"network.temporal": False}),
        ({"network": {"architecture": "8C3-16R"}}, (3200, 1, 8, 8), {"network.temporal": True}),
        ({"network": CURRENT}, SEQUENCE, {"network.temporal": True}),
        ({"network": SPIKES}, SEQUENCE, {"network.temporal": True, "network.readout": "mean_membrane"}),
        ({"network": SPIKES}, SEQUENCE, {"optimisation.surrogate": "superspike"}),
        ({"network": SPIKES, "optimisation": {"surrogate": "arctan"}}, SEQUENCE, {"optimisation.surrogate": "arctan"}),
        # The samples choose the architecture.
        ({}, (3200, 1, 8, 8), architecture("32C3-AP2-64C3-AP2-64")),
        ({}, (3200, 1, 3, 8), architecture("256")),  # no two pools fit
        ({}, (3200, 8, 8), architecture("256")),
        ({}, (3200, 64), architecture("256")),
        ({"network": CURRENT}, (3200, 24, 1), architecture("128R")),  # short
        ({"network": SPIKES}, (3200, 100, 2, 34, 34), architecture("128R")),  # pictures
        ({"network": SPIKES}, (3200, 100, 64), architecture("64T9-BN-64T9d2-BN-64T9d4-BN")),  # of 57 steps in the end
        ({"network": SPIKES}, LONG, architecture(OVER_TIME)),  # of 169 steps
        ({"network": CURRENT}, (3200, 100_000, 1), architecture(OVER_TIME)),
        ({"network": SPIKES | {"architecture": "16"}}, LONG, architecture("16")),
        # A small set has a thousand updates.
        ({}, (5, 4), updates(2, 334)),  # 2, 2 and 1 sample: three batches
        ({}, (45, 4), updates(12, 250)),  # a quarter, rounded up: four batches
        ({}, (255, 4), updates(64, 250)),
        ({}, (256, 4), updates(64, 125)),  # half as many updates, of batches of 64
        ({}, (1000, 4), updates(64, 40)),
        ({}, (50_000, 4), updates(64, 40)),  # 782 batches: 40 epochs are enough
        ({"optimisation": {"epochs": 3}}, (45, 4), updates(12, 3)),
        ({"optimisation": {"batch_size": 64}}, (45, 4), updates(64, 1000)),  # an epoch is one update
        # Small sets of sequences have a lower learning rate.
        ({}, (255, 4), {"optimisation.learning_rate": 2e-3}),
        ({"network": CURRENT | {"architecture": "128R"}}, (255, 20, 2), {"optimisation.learning_rate": 5e-3}),
        ({"network": CURRENT | {"architecture": "128R"}}, (256, 20, 2), {"optimisation.learning_rate": 2e-2}),
        ({"network": CURRENT | {"architecture": "64T9-BN"}}, (256, 20, 2), {"optimisation.learning_rate": 5e-3}),
        # Large images are shifted in training.
        ({}, (3200, 1, 28, 28), {SHIFTED: 2}),
        ({"network": {"coding": "rate"}}, (3200, 3, 16, 16), {SHIFTED: 2}),
        ({}, (3200, 1, 8, 28), {SHIFTED: 0}),  # two pixels would be a quarter of its height
        ({}, (3200, 784), {SHIFTED: 0}),
        ({"network": SPIKES}, (3200, 10, 2, 34, 34), {SHIFTED: 0}),
        ({"augment": {"shift": 0}}, (3200, 1, 28, 28), {SHIFTED: 0}),
        # The firing rates of plain thresholds are read, and their surrogate is wide.
        *(
            ({"network": SPIKES | {"architecture": layer}}, LONG, READ_BY_RATE)
            for layer in ("64T9Th", "64T9d2Th-BN", "64T9Th-BN-DO0.2-8Th")
        ),
        *(
            ({"network": SPIKES | {"architecture": layer}}, LONG, READ_BY_MEMBRANE)
            for layer in ("64T9Th-8R", "64T9d2Th-BN-8R", "32S10Th")
        ),
        (
            {"network": SPIKES | {"architecture": "64T9Th"}, "optimisation": {"slope": 10}},
            LONG,
            {"optimisation.surrogate": "arctan", "optimisation.slope": 10},
        ),
        # Convolutions over the time of spikes are trained on varied samples.
        (
            {"network": SPIKES},
            LONG,
            {"augment.event_drop": 0.2, "augment.time_shift": 8, "optimisation.label_smoothing": 0.1},
        ),
        ({"network": SPIKES, "augment": {"time_shift": 1}}, LONG, {"augment.event_drop": 0.2, "augment.time_shift": 1}),
        ({"network": SPIKES}, SEQUENCE, {"augment": AugmentConfig(), "optimisation.label_smoothing": 0.0}),
        ({"network": CURRENT}, LONG, {"augment": AugmentConfig(), "optimisation.label_smoothing": 0.0}),
        # A file says by its decay how those of a sequence start.
        ({"network": SPIKES | {"decay": 0.9}}, SEQUENCE, {"network.decay": 0.9}),
        ({"network": SPIKES}, SEQUENCE, {"network.decay": None}),
    ],
)
def test_the_samples_choose_what_nobody_typed(
    typed: dict[str, Any], samples: tuple[int, ...], taken: dict[str, Any], tmp_path: Path
) -> None:
    chosen = TrainingConfig.read(None, typed).for_data(samples)
    assert {name: attrgetter(name)(chosen) for name in taken} == taken
    time = chosen.network.coding.per_step
    steps, declared = samples[1] if time else 8, Input(shape=samples[1 + time :])
    assert build_architecture(chosen.network, declared, ("a", "b"), steps).spec.classes == 2
    # What was chosen is written, and read again without a second choice.
    chosen.write(tmp_path / "config.toml")
    assert TrainingConfig.read(tmp_path / "config.toml", {}).for_data(samples) == chosen


def test_few_validation_samples_choose_no_epoch(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # The best accuracy would be that of the first epoch that has it; 13 samples leave that to the last.
    assert len(data.validation) == 13
    short = changed(config, network={"architecture": "8"})
    fitted = fit(architecture_for(short, data), data, short, tmp_path / "checkpoint.pt")
    assert (fitted.best, fitted.best.chooses) == (fitted.epochs[-1], False)
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


LAGS = np.array([0, 3, 6, 9])


def test_what_only_delays_can_tell_apart_is_learned_by_default_flags_and_served(tmp_path: Path) -> None:
    # Each of two inputs spikes once, the second later by the class's lag. A threshold without a memory sees both spikes
    # at once only where its synapses make up for the lag, and otherwise no class differs from another.
    rng = np.random.default_rng(0)
    y, first = rng.integers(0, len(LAGS), 400), rng.integers(0, 14, 400)
    x = np.zeros((400, 24, 2), np.uint8)
    x[range(400), first, 0] = x[range(400), first + LAGS[y], 1] = 1
    np.savez(tmp_path / "lags.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    result = training_here(
        "fit", "--file", "lags.npz", "--coding", "spikes", "--architecture", "32S10Th", "--repository", "repository",
        cwd=tmp_path, plots=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    accuracy = json.loads((tmp_path / "runs" / "lags-1" / "metrics.json").read_text())["test_accuracy"]
    assert accuracy >= 0.95
    bundle = Bundle.read(tmp_path / "repository" / "lags" / "1")
    network = bundle.network
    taps = network.tensors["dense1.weight"].reshape(32, 10, 2)
    assert np.count_nonzero(taps, axis=1).tolist() == [[1, 1]] * 32  # each synapse has one delay
    inputs = encode(x[300:].astype(np.float32), network.spec)
    defined, _ = ReferenceEngine(network).run(inputs)
    served, _ = bundle.engine("event").run(inputs)
    np.testing.assert_array_equal(served.spikes_per_node["neuron1"], defined.spikes_per_node["neuron1"])
    assert (served.readout.argmax(1) == y[300:]).mean() == accuracy
