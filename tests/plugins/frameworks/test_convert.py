"""`convert`: trained networks of ReLUs as spiking ones: what a neuron stands for, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import Record, available, create
from spikeserve.models.spec.network import Network
from spikeserve.plugins.frameworks.conversion.calibration import calibrated
from spikeserve.plugins.frameworks.conversion.onnx_file import read_onnx
from spikeserve.plugins.frameworks.conversion.source import read_source
from spikeserve.plugins.frameworks.conversion.spiking import Fit, spiking_network
from spikeserve.plugins.frameworks.options import FrameworkOptions
from tests.contracts.importers import calibration
from tests.training.command_line import training_here


def taken_in(network: nn.Module, *shape: int) -> Network:
    return read_source(network.eval(), FrameworkOptions(input_shape=shape, time_steps=1, low=-8.0, high=8.0))


def answers(network: Network, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return create("reference", network).run(encode(samples, network.spec))[0].readout


class Residual(nn.Module):
    """Batch norms, a residual sum, each pool, a clipped ReLU, and functions between modules."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        self.last = nn.Linear(16, 3)
        self(torch.randn(32, 1, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.one(x))
        x = self.pool(self.relu(x + self.norm(self.two(x))))
        return self.last(nn.functional.relu6(nn.functional.avg_pool2d(x, 2)).flatten(1))


def test_a_neuron_fires_the_rounded_share_of_its_threshold() -> None:
    # Threshold 2, ten steps: each spike stands for 0.2. Of 0.5 the nearest whole number is 2 or 3 (2.5 and a half: 3
    # spikes, 0.6); 1.31 is 7 (1.4); 3 is clipped to 10 spikes (2); of -1 there is none. The weight behind it is -1.
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    for place, weight in ((0, 1.0), (2, -1.0)):
        nn.init.constant_(network[place].get_parameter("weight"), weight)
    source = taken_in(network, 1)
    fit = Fit(np.full(1, 2, np.float32), np.zeros(1, np.float32))
    spiking = spiking_network(source, {"relu_1": fit}, 10)
    found = answers(spiking, np.array([[0.5], [1.31], [3.0], [-1.0]], np.float32))
    np.testing.assert_allclose(found[:, 0], [-0.6, -1.4, -2.0, 0.0], rtol=1e-6)


def test_a_pool_gives_the_maximum_of_means_and_no_spike_more() -> None:
    # The two neurons fire at other steps, 4 and 5 times in 10 steps; some spike in most steps, but the maximum is 5.
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Unflatten(1, (1, 2)), nn.MaxPool1d(2))
    nn.init.eye_(network[0].get_parameter("weight"))
    source = taken_in(nn.Sequential(*network, nn.Flatten(), nn.Linear(1, 1, bias=False)), 2)
    fit = Fit(np.ones(2, np.float32), np.zeros(2, np.float32))
    spiking = spiking_network(source, {"relu_1": fit}, 10)
    weight = spiking.tensors["linear_5.weight"].item()
    found = answers(spiking, np.array([[0.4, 0.5]], np.float32))
    assert found.item() == pytest.approx(0.5 * weight)


def test_a_pool_comes_before_its_neuron_unless_others_take_what_that_gives() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.one(x))
            pooled = nn.functional.max_pool1d(x, 2)
            return self.last((pooled + nn.functional.max_pool1d(torch.relu(self.two(x)), 2)).flatten(1))

    sources = taken_in(Pools(), 1, 2).spec.sources
    assert (sources["max_pool1d"], sources["max_pool1d_2"]) == (("relu",), ("two",))


def test_a_residual_network_converges_to_its_source_and_engines_agree_in_every_spike() -> None:
    network = Residual()
    samples = np.random.default_rng(0).uniform(-1, 1, (64, 1, 8, 8)).astype(np.float32)
    source = taken_in(network, 1, 8, 8)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(answers(source, samples), expected, atol=1e-5)
    errors = []
    for time_steps in (4, 64):
        spiking = calibrated(source, samples, time_steps)
        runs = {}
        for name in available():
            result, _ = create(name, spiking).run(encode(samples[:8], spiking.spec), record=Record.RASTER)
            runs[name] = result
        for result in runs.values():
            for node, raster in runs["reference"].rasters.items():
                np.testing.assert_array_equal(result.rasters[node], raster)
        errors.append(np.abs(answers(spiking, samples) - expected).mean())
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.02 * np.abs(expected).max()


def test_currents_and_answers_have_the_means_of_their_source() -> None:
    # What arrived at a neuron is its membrane at the end, less that at the start, and its spikes' thresholds.
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6, 7), nn.ReLU(), nn.Linear(7, 2))
    network, samples = nn.Sequential(*layers).requires_grad_(False), torch.rand(64, 3, 6, 7)
    spiking = calibrated(taken_in(network, 3, 6, 7), samples.numpy(), 8)
    run, _ = create("reference", spiking).run(
        encode(samples.numpy(), spiking.spec), record=Record.RASTER | Record.MEMBRANE
    )
    arriving = [network[:1](samples), network[:4](samples)]
    for name, theirs in zip(("relu_1", "relu_4"), arriving, strict=True):
        start, threshold = (spiking.tensors[f"{name}.{field}"] for field in ("start", "threshold"))
        fired = run.rasters[name].sum(axis=0).reshape(len(samples), *threshold.shape)
        mean = (run.membranes[name][-1].reshape(fired.shape) - start + threshold * fired) / 8
        channels = mean.swapaxes(0, 1).reshape(len(threshold), -1).mean(axis=1)
        np.testing.assert_allclose(channels, theirs.transpose(0, 1).flatten(1).mean(1), atol=1e-5)
    np.testing.assert_allclose(run.readout.mean(axis=0), network(samples).mean(0), atol=1e-5)


def test_a_clipped_relu_is_clipped() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6(), nn.Linear(1, 1, bias=False))
    for place in (0, 2):
        nn.init.ones_(network[place].get_parameter("weight"))
    samples = np.linspace(-8, 8, 100, dtype=np.float32)[:, None]
    found = answers(calibrated(taken_in(network, 1), samples, 64), samples)
    np.testing.assert_allclose(found, samples.clip(0, 6), atol=6 / 64)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_what_makes_probabilities_of_an_answer_is_left_to_the_answer(last: nn.Module) -> None:
    layers, samples = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)], np.ones((1, 2), np.float32)
    bare, whole = taken_in(nn.Sequential(*layers), 2), taken_in(nn.Sequential(*layers, last), 2)
    assert answers(whole, samples).tolist() == answers(bare, samples).tolist()


def test_steps_are_the_fewest_that_lose_no_more_and_the_card_says_what_each_loses(tmp_path: Path) -> None:
    samples, source = str(calibration(tmp_path)), "tests.contracts.importers:without_spikes"
    command = ("convert", source, "--calibration", samples, "--input-shape", "12", "--low", "0", "--high", "1")
    for loss, few in (("100", True), ("0", False)):
        done = training_here(*command, "--loss", loss, "--name", "m", "--repository", tmp_path / "r")
        assert done.returncode == 0, done.stderr
        bundle = ModelRepository(tmp_path / "r").read("m")
        assert (bundle.network.spec.time_steps == 4) is few
        rows = [line.split("|") for line in bundle.card.splitlines() if line.startswith("|") and "%" in line]
        assert [row[1].strip() for row in rows[:3]] == ["source", "4", "8"]
        accuracy = [float(row[3].strip(" %")) for row in rows]
        for (_, steps, _, _, lost, *_), right in zip(rows[1:], accuracy[1:], strict=True):
            assert float(lost) == pytest.approx(accuracy[0] - right, abs=0.011), steps
        assert bundle.calibration is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("newer", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_an_onnx_file_of_either_exporter_is_the_same_network(tmp_path: Path, *, newer: bool) -> None:
    network, file = Residual().eval(), tmp_path / "net.onnx"
    samples = torch.rand(4, 1, 8, 8)
    ways: dict[str, Any] = {"dynamo": True, "external_data": False} if newer else {"dynamo": False}
    torch.onnx.export(network, (samples[:1],), file, **ways)
    source = read_source(read_onnx(file), FrameworkOptions(input_shape=(1, 8, 8), time_steps=1))
    np.testing.assert_allclose(answers(source, samples.numpy()), network(samples).detach().numpy(), atol=1e-5)
