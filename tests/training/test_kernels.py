"""Random kernels with a readout that is solved: what is drawn, the ridge, what `fit` does with it, and parity."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.spec import Readout
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.training.config import TrainingConfig
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import architecture_for, prepare
from spikeserve.training.fit.kernels import solve_kernels, solve_ridge
from spikeserve.training.report.parity import against_reference
from tests.training.command_line import training_here

STEPS = 30


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An .npz of 48 noisy series of two channels, with a short wave (class 0) or a long one (class 1) at any time."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 0.1, (48, STEPS, 2)), np.arange(48) % 2
    for sample, period in zip(x, np.where(y == 0, 4, 10), strict=True):
        first = rng.integers(0, STEPS - 10)
        sample[first : first + 10] += np.sin(2 * np.pi * np.arange(10) / period)[:, np.newaxis]
    path = tmp_path / "series.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.mark.parametrize("features", [3, 40])
def test_the_scores_of_a_sample_left_out_are_those_of_a_ridge_of_the_others(features: int) -> None:
    rng = np.random.default_rng(features)
    rates, labels = rng.random((12, features)), np.arange(12) % 3
    weight, bias, left_out = solve_ridge(rates, labels, 3)
    targets = np.where(labels[:, np.newaxis] == np.arange(3), 1.0, -1.0)

    def ridge(penalty: float, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred = rates[rows] - rates[rows].mean(axis=0)
        normal = centred.T @ centred + penalty * np.eye(features)
        found = np.linalg.solve(normal, centred.T @ targets[rows]).T
        return found, targets[rows].mean(axis=0) - found @ rates[rows].mean(axis=0)

    everyone = np.arange(12)
    (penalty,) = [each for each in 10.0 ** np.arange(-4, 5) if np.allclose(ridge(each, everyone)[0], weight, atol=1e-7)]
    np.testing.assert_allclose(ridge(penalty, everyone)[1], bias, atol=1e-7)
    for sample in everyone:
        others, level = ridge(penalty, everyone != sample)
        np.testing.assert_allclose(left_out[sample], others @ rates[sample] + level, atol=1e-6)


def test_few_series_have_random_kernels_by_default_and_every_engine_and_c_agree(series: Path) -> None:
    here = series.parent
    words = ("fit", "--file", series, "--coding", "current", "--repository", "repository")
    fitted = training_here(*words, cwd=here, plots=False)
    assert fitted.returncode == 0, fitted.stderr
    # A fifth of 48 is tested, and none of the 38 others is held out.
    assert "Architecture 1000K, which suits 38 samples of 30×2" in fitted.stdout
    assert "38 training samples: the readout of random kernels is solved" in fitted.stdout
    metrics = json.loads((here / "runs/series-1/metrics.json").read_text())
    assert metrics["exact"]
    assert min(metrics["test_accuracy"], metrics["validation_accuracy"]) > 0.8
    assert 0.1 < metrics["firing_rates"]["neuron"] < 0.2
    bundle = Bundle.read(here / "repository/series/1")
    assert [node.type for node in bundle.network.spec.nodes] == ["Delay", "Linear", "Threshold", "Linear"]
    # Each kernel has three taps of 2 and six of -1, the same on each channel that it sees.
    weight = bundle.network.tensors[f"{bundle.network.spec.nodes[1].name}.weight"].reshape(1000, -1, 2)
    for channels in weight:
        seen = channels[:, channels.any(axis=0)]
        taps = np.sort(seen, axis=0).T.tolist()
        assert taps == [[-1] * 6 + [0] * (len(seen) - 9) + [2] * 3] * len(taps)
    assert bundle.calibration is None  # the scores of the samples that were solved are too sure
    card = (here / "repository/series/1/card.md").read_text()
    assert "Threshold neurons" in card
    assert "random kernels, and a ridge regression of their firing rates, seed 0" in card
    again = training_here("fit", "--config", "runs/series-1/config.toml", cwd=here, plots=False)
    assert again.returncode == 0, again.stderr
    assert json.loads((here / "runs/series-2/metrics.json").read_text())["test_accuracy"] == metrics["test_accuracy"]
    if shutil.which("cc"):
        _, data = prepare(RunFolder(here / "runs/series-1").config())
        inputs = encode(data.test.samples, bundle.network.spec)
        assert against_reference(bundle.network, CompiledC(bundle.network).run, inputs)[:2] == (0, 0)


def test_what_stands_in_padding_changes_nothing(series: Path) -> None:
    with np.load(series) as file:
        x, y = file["x"], file["y"]
    networks = []
    for padding in (0.0, 0.9):
        lengths = np.arange(len(x)) % 5 + STEPS - 4
        x[np.arange(STEPS) >= lengths[:, np.newaxis]] = padding
        np.savez(series, x=x, y=y, lengths=lengths)
        wanted = {
            "data": {"file": series, "low": -2, "high": 2, "normalise": "range"},
            "network": {"coding": "current"},
        }
        config, data = prepare(TrainingConfig.read(None, wanted))
        networks.append(solve_kernels(architecture_for(config, data), data, 0, torch.device("cpu"))[0])
    for name, values in networks[0].tensors.items():
        np.testing.assert_array_equal(values, networks[1].tensors[name])


def test_whoever_asks_for_gradients_has_them(series: Path) -> None:
    def chosen(**sections: object) -> TrainingConfig:
        network = {"coding": "current"} | dict(sections.pop("network", {}))  # type: ignore[call-overload]
        return prepare(TrainingConfig.read(None, {"data": {"file": series}, "network": network} | sections))[0]

    assert chosen().network.readout is Readout.MEAN
    assert chosen().data.validation_share == 0
    for asked in ({"optimisation": {"epochs": 3}}, {"augment": {"time_shift": 1}}, {"network": {"neuron": "IF"}}):
        assert chosen(**asked).network.architecture == "128R"
    assert chosen(network={"architecture": "20K"}).network.kernels == 20
    refused = training_here(
        "fit", "--file", series, "--coding", "current", "--architecture", "20K", "--epochs", "3", cwd=series.parent
    )
    assert "--epochs would be ignored: random kernels have a readout that is solved, not trained" in refused.stderr
