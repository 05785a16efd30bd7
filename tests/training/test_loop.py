"""The loop: gradients reach every weight, the loss falls, nothing is carried over, and a run can stop and go on.

The average of the weights over the steps, which is what a run validates and exports.

A step of the optimiser: its rate at each batch, and what weights, learned parameters and delays each get of it.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.training.ours import module_of
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.config import NetworkConfig, OptimisationConfig, Schedule, TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.fit import loop
from spikeserve.training.fit.architecture import Architecture, build_architecture
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.devices import join
from spikeserve.training.fit.initialise import BAND, RECURRENT, initialise
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.layers import Connection, Neurons
from spikeserve.training.fit.loop import FitResult, averaged, fit, learning_rate_share, start, validate
from spikeserve.training.fit.losses import class_scores
from spikeserve.training.fit.network import TrainingNetwork, forward
from spikeserve.training.report.epochs import Epoch, Watcher
from tests.training.conftest import changed


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_fresh_weights_are_scaled_until_every_layer_fires(config: TrainingConfig, data: Dataset, scale: float) -> None:
    torch.manual_seed(0)
    module = TrainingNetwork(architecture_for(config, data))
    with torch.no_grad():
        for name, values in module.named_parameters():
            values.mul_(scale if name.endswith("weight") else 0.2)
    samples = data.training.samples[:32]
    assert not BAND[0] <= forward(module, samples, HardThreshold()).firing_rates["output"] <= BAND[1]
    initialise(module, samples, temporal=False)
    for layer, rate in forward(module, samples, HardThreshold()).firing_rates.items():
        assert BAND[0] <= rate <= BAND[1], layer


def test_the_loss_falls_and_the_task_is_learned(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    longer = changed(config, optimisation={"epochs": 10})
    fitted = fit(architecture_for(longer, data), data, longer, tmp_path / "checkpoint.pt")
    assert fitted.epochs[-1].training_loss < fitted.epochs[0].training_loss / 2
    norms = sorted(fitted.epochs[0].gradient_norms)
    assert (len(norms), fitted.epochs[0].gradient_norm) == (8, (norms[3] + norms[4]) / 2)  # their median
    assert validate(module_of(fitted.network), data.test)[1] > 0.9


@pytest.fixture(scope="module")
def uninterrupted(
    config: TrainingConfig, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingConfig, Architecture, FitResult, dict[str, Any]]:
    """A run with dropout, random spikes and an average of the weights: its settings, what it fitted and the average."""
    settings = changed(
        config, network={"architecture": "4C3-AP2-16-DO0.2", "coding": Coding.RATE}, optimisation={"average": 0.9}
    )
    spec, path = architecture_for(settings, data), tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    return settings, spec, fit(spec, data, settings, path), torch.load(path, weights_only=True)["average"]


@pytest.mark.parametrize(("place", "number"), [("epoch", 0), ("epoch", 1), ("epoch", 2), ("batch", 1), ("batch", 3)])
def test_a_run_that_is_cut_anywhere_and_resumed_is_that_without_interruption(
    place: str, number: int, uninterrupted: Any, data: Dataset, tmp_path: Path
) -> None:
    settings, spec, whole, average = uninterrupted

    def stop(at: Any, *_: float) -> None:
        if (at.number if isinstance(at, Epoch) else at) == number:
            raise KeyboardInterrupt

    watcher = Watcher(epoch=stop) if place == "epoch" else Watcher(batch=stop)
    first = fit(spec, data, settings, tmp_path / "parts.pt", watcher=watcher)
    torch.rand(1)  # PyTorch's own random numbers have no part in it
    second = fit(spec, data, settings, tmp_path / "parts.pt", resume=True)
    assert (first.interrupted, second.interrupted) == (True, False)
    assert [epoch.number for epoch in first.epochs] == [*range(number + (place == "epoch"))]
    assert first.best in first.epochs
    assert [replace(e, seconds=0.0) for e in second.epochs] == [replace(e, seconds=0.0) for e in whole.epochs]
    for name, tensor in whole.network.tensors.items():
        np.testing.assert_array_equal(second.network.tensors[name], tensor)
    other = torch.load(tmp_path / "parts.pt", weights_only=True)["average"]
    assert all(torch.equal(average[name], other[name]) for name in average)  # and how many updates it has had


def test_each_epoch_draws_anew(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # A learning rate this small leaves the weights as they are: epochs differ only by how their samples are shifted.
    settings = changed(config, optimisation={"epochs": 2, "learning_rate": 1e-30}, augment={"shift": 1})
    first, second = fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt").epochs
    assert first.validation_loss == second.validation_loss
    assert first.training_loss != second.training_loss


@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_ends_after_so_many_worse_epochs_and_returns_the_best_weights(
    patience: int, config: TrainingConfig, data: Dataset, tmp_path: Path
) -> None:
    data = replace(data, validation=data.training)  # which are enough to choose by
    settings = changed(config, optimisation={"epochs": 50, "patience": patience})
    path = tmp_path / "checkpoint.pt"
    weights: list[dict[str, torch.Tensor]] = []
    watcher = Watcher(epoch=lambda _: weights.append(Progress.load(path).weights))
    fitted = fit(architecture_for(settings, data), data, settings, path, watcher=watcher)
    assert fitted.best.number == len(fitted.epochs) - 1 - patience
    assert len(fitted.epochs) < 50
    module = TrainingNetwork(architecture_for(settings, data))
    for number, same in ((fitted.best.number, True), (-1, False)):
        module.load_state_dict(weights[number])
        equal = [np.array_equal(module.network().tensors[name], own) for name, own in fitted.network.tensors.items()]
        assert all(equal) is same


def test_batch_norm_is_of_samples_as_they_are_served(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    settings = changed(config, network={"architecture": "8-BN"}, augment={"event_drop": 0.9})
    architecture, path = architecture_for(settings, data), tmp_path / "checkpoint.pt"
    fitted = fit(architecture, data, settings, path)
    module = TrainingNetwork(architecture)
    module.load_state_dict(Progress.load(path).best_weights)
    _, first, *_ = module.layers
    assert isinstance(first, Connection)
    assert first.norm is not None
    samples = torch.from_numpy(data.training.samples).flatten(1) / 16
    written = torch.from_numpy(fitted.network.tensors[f"{first.node.name}.weight"].copy())
    served = samples @ written.T + torch.from_numpy(fitted.network.tensors[f"{first.node.name}.bias"].copy())
    # Each norm's outputs have its bias as their mean, and its weight as their deviation.
    torch.testing.assert_close(served.mean(0), first.norm.bias.detach(), rtol=0, atol=1e-3)
    torch.testing.assert_close(served.std(0), first.norm.weight.detach().abs(), rtol=1e-2, atol=0)


def test_a_gradient_longer_than_1_is_cut_to_it(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # One epoch of one batch. Adam's first moment is then a tenth of the gradient that it was given, beta1 being 0.9.
    settings = changed(config, optimisation={"epochs": 1, "batch_size": len(data.training), "rate_penalty": 1e6})
    fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt")
    moments = Progress.load(tmp_path / "checkpoint.pt").optimiser["state"].values()
    norm = 10 * math.sqrt(sum(float(state["exp_avg"].square().sum()) for state in moments))
    assert norm == pytest.approx(1, rel=1e-3)


def test_an_average_takes_the_first_weights_and_then_moves_towards_each_later_ones() -> None:
    module = TrainingNetwork(build_architecture(NetworkConfig(architecture="3"), Input(shape=(2,)), ("a", "b"), 4))
    average, expected = averaged(module, keep=0.25), 0.0
    # The second keeps 2/11, the third 3/12, and from there on each a quarter.
    for value, keep in ((1.0, 0.0), (12.0, 2 / 11), (0.0, 0.25), (8.0, 0.25)):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(value)
        average.update_parameters(module)
        expected = keep * expected + (1 - keep) * value
        for parameter in average.module.parameters():
            assert parameter.flatten().tolist() == pytest.approx([expected] * parameter.numel())


@pytest.mark.parametrize("keep", [0.0, 0.9])
def test_a_run_returns_the_validated(config: TrainingConfig, data: Dataset, keep: float, tmp_path: Path) -> None:
    settings = changed(config, optimisation={"average": keep, "epochs": 2})
    fitted = fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt")
    loss, accuracy, _ = validate(module_of(fitted.network), data.validation)
    assert accuracy == fitted.best.validation_accuracy
    assert loss == pytest.approx(fitted.best.validation_loss, rel=1e-5)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    same = [torch.equal(own, content["average"][f"module.{name}"]) for name, own in content["weights"].items()]
    assert all(same) == (keep == 0.0)


RATE = 1e-3


def learning(config: TrainingConfig, **optimisation: Any) -> TrainingConfig:
    """Return the configuration of one step over all samples, of a network whose decays and delays are learned."""
    once = {"epochs": 1, "batch_size": 1000, "learning_rate": RATE, "schedule": Schedule.CONSTANT} | optimisation
    return changed(config, network={"architecture": "D4-16", "learn": ("decay",), "decay": 0.5}, optimisation=once)


def stepped(config: TrainingConfig, data: Dataset, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors before and after a step, the weights by their names and the others likewise."""
    architecture = architecture_for(config, data)
    before = start(architecture, data, config, join(config))[0].state_dict()
    fit(architecture, data, config, folder / "checkpoint.pt")
    after = Progress.load(folder / "checkpoint.pt").weights
    changes = {name: (before[name], after[name]) for name in before if not torch.equal(before[name], after[name])}
    weights = {name: change for name, change in changes.items() if name.endswith(("weight", "bias"))}
    others = {name: change for name, change in changes.items() if name not in weights}
    assert {name.rpartition(".")[2] for name in others} == {"decay", "delay"}
    return weights, others


def test_a_learned_parameter_moves_by_five_times_the_rate_of_a_weight_and_weights_alone_decay(
    config: TrainingConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OptimisationConfig, "weight_decay", 0.0)
    # The first step of Adam moves each value by the learning rate, whatever the length of its gradient.
    weights, others = stepped(learning(config), data, tmp_path)
    for changes, rate in ((weights, RATE), (others, 5 * RATE)):
        for name, (before, after) in changes.items():
            assert float((after - before).abs().max()) == pytest.approx(rate, rel=0.01), name
    monkeypatch.setattr(OptimisationConfig, "weight_decay", 100.0)
    decayed, same = stepped(learning(config), data, tmp_path)
    for name, (_, after) in same.items():
        assert torch.equal(after, others[name][1]), name
    for name, (before, after) in decayed.items():  # AdamW takes rate times decay of a weight away, a tenth
        torch.testing.assert_close(weights[name][1] - after, 0.1 * before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", [Schedule.COSINE, Schedule.ONE_CYCLE])
def test_the_rate_keeps_its_schedule(config: TrainingConfig, data: Dataset, tmp_path: Path, schedule: Schedule) -> None:
    # 115 samples in batches of 16 are 8 steps an epoch, each at the share of the run that is done before it.
    assert len(data.training) == 115
    settings = learning(config, epochs=2, batch_size=16, schedule=schedule)
    seen: list[float] = []
    watcher = Watcher(batch=lambda _, __, rate, ___: seen.append(rate))
    fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt", watcher=watcher)
    done = [epoch + start / 115 for epoch in range(2) for start in range(0, 115, 16)]
    assert seen == pytest.approx([RATE * learning_rate_share(schedule, epochs / 2) for epochs in done])
    (group, *_) = Progress.load(tmp_path / "checkpoint.pt").optimiser["param_groups"]
    assert group["lr"] == seen[-1]


def test_the_losses_of_an_epoch_are_means_over_its_samples_whatever_the_batches(
    config: TrainingConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 115 samples in batches of 50 are 50, 50 and 15. A rate this small leaves the weights as they are.
    settings = learning(config, batch_size=50, learning_rate=1e-30)
    losses: list[float] = []
    watcher = Watcher(batch=lambda _, __, ___, loss: losses.append(loss))
    whole = fit(architecture_for(settings, data), data, settings, tmp_path / "x.pt", watcher=watcher).epochs[0]
    assert whole.training_loss == pytest.approx((50 * losses[0] + 50 * losses[1] + 15 * losses[2]) / 115)
    assert len(data.validation) % 5
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 5)
    parts = fit(architecture_for(settings, data), data, settings, tmp_path / "x.pt").epochs[0]
    assert parts.validation_loss == pytest.approx(whole.validation_loss)
    assert parts.validation_accuracy == whole.validation_accuracy
    assert parts.firing_rates == pytest.approx(whole.firing_rates)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Schedule.COSINE, {0: 1, 0.5: 0.5, 1: 0}),
        # Half a cosine from 1/25 to 1, whose middle is their mean 0.52; then from 1 to 1/10000, whose mean is 0.50005.
        (Schedule.ONE_CYCLE, {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.50005, 1: 1e-4}),
        (Schedule.CONSTANT, {0: 1, 0.5: 1, 1: 1}),
    ],
)
def test_a_rate_is_a_share_of_the_highest_by_progress(schedule: Schedule, shares: dict[float, float]) -> None:
    assert {progress: learning_rate_share(schedule, progress) for progress in shares} == pytest.approx(shares)


STEPS = 80


@pytest.fixture(scope="module")
def rasters() -> FloatArray:
    """Spikes of 12 units with rates from 2 to 40 %, (64, STEPS, 12)."""
    rng = np.random.default_rng(0)
    return (rng.random((64, STEPS, 12)) < np.linspace(0.02, 0.4, 12)).astype(np.float32)


def fresh(rasters: FloatArray, architecture: str = "32R", **fields: object) -> TrainingNetwork:
    """Return a network for `rasters`, initialised as sequences are."""
    usual = {"coding": "spikes", "readout": "mean_membrane", "learn": ("decay", "syn_decay"), "decay": None}
    config = NetworkConfig.model_validate(usual | {"architecture": architecture} | fields)
    torch.manual_seed(0)
    module = TrainingNetwork(build_architecture(config, Input(shape=(12,)), ("a", "b", "c"), STEPS))
    initialise(module, rasters, temporal=True)
    return module


def neurons(module: TrainingNetwork, name: str) -> Neurons:
    """Return a layer of neurons by its node's name."""
    return next(layer for layer in module.layers if isinstance(layer, Neurons) and layer.node.name == name)


@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_each_membrane_has_mean_0_and_the_threshold_as_its_deviation(neuron: str, rasters: FloatArray) -> None:
    module = fresh(rasters, f"32R:{neuron.lower()}(threshold=2)", neuron=neuron)
    layer = neurons(module, "neuron1")
    connection = next(layer for layer in module.layers if isinstance(layer, Connection))
    current = connection.connection(torch.from_numpy(rasters).transpose(0, 1))
    decay, gain, membrane = layer.parameter("decay"), layer.parameter("gain"), torch.zeros(64, 32)
    synapse = torch.zeros(64, 32)
    membranes = []
    for step in current:  # the equations of a LIF that does not fire, and of its synaptic current
        synapse = layer.parameter("syn_decay") * synapse + step if neuron == "CubaLIF" else step
        membrane = decay * membrane + gain * synapse
        membranes.append(membrane)
    charged = torch.stack(membranes)
    assert torch.allclose(charged.mean(dim=(0, 1)), torch.zeros(32), atol=1e-2)
    assert torch.allclose(charged.std(dim=(0, 1)), torch.full((32,), 2.0), rtol=1e-2)


def test_decays_are_spread_from_two_steps_to_a_quarter_of_the_sequence(rasters: FloatArray) -> None:
    module = fresh(rasters, "200R")
    constants = -1 / neurons(module, "neuron1").parameter("decay").detach().log()
    assert float(constants.min()) * 1.001 >= 2.0
    assert float(constants.max()) <= STEPS / 4 * 1.001
    # Log-uniform: as many below the geometric mean of 2 and 20 as above it; 100 of 200, give or take 4 deviations.
    assert abs(int((constants < 40**0.5).sum()) - 100) < 4 * 50**0.5
    readout = -1 / neurons(module, "output").parameter("decay").detach().log()
    assert torch.allclose(readout, torch.full((3,), STEPS / 10), rtol=1e-3)


def test_a_decay_that_a_layer_states_is_where_each_of_its_neurons_starts(rasters: FloatArray) -> None:
    module = fresh(rasters, "16R:cubalif(decay=0.9)-16:cubalif(syn_decay=0.5)")
    first, second = neurons(module, "neuron1"), neurons(module, "neuron2")
    assert torch.allclose(first.parameter("decay"), torch.tensor(0.9))
    assert torch.allclose(second.parameter("syn_decay"), torch.tensor(0.5))
    assert float(second.parameter("decay").detach().std()) > 0.05


def test_an_adlif_starts_where_its_authors_draw_and_stays_there(rasters: FloatArray) -> None:
    learn = ("decay", "adapt_decay", "adapt_coupling", "adapt_spike")
    layer = neurons(fresh(rasters, "200R:adlif", learn=learn), "neuron1")
    for name, low, high in (("adapt_coupling", 0, 120), ("adapt_spike", 0, 240)):
        drawn = layer.parameter(name).detach()
        assert low <= float(drawn.min()) < 0.05 * high
        assert 0.95 * high < float(drawn.max()) <= high
    constants = -1 / layer.parameter("adapt_decay").detach().log()
    assert 59.9 < float(constants.min()) < 70
    assert 200 < float(constants.max()) < 300.1
    for pushed in (-1e3, 1e3):
        torch.nn.init.constant_(layer.learned["adapt_coupling"], pushed)
        assert set(layer.parameter("adapt_coupling").tolist()) == {0.0 if pushed < 0 else 120.0}
    stated = neurons(fresh(rasters, "8R:adlif(adapt_coupling=200)", learn=learn), "neuron1")
    assert torch.allclose(stated.parameter("adapt_coupling"), torch.tensor(200.0))


def test_recurrent_weights_start_as_a_rotation(rasters: FloatArray) -> None:
    recurrent = neurons(fresh(rasters), "neuron1").recurrent
    assert recurrent is not None
    product = recurrent.weight @ recurrent.weight.T
    assert torch.allclose(product, RECURRENT**2 * torch.eye(32), atol=1e-6)


@pytest.mark.parametrize("readout", [Readout.MEAN_MEMBRANE, Readout.MEAN, Readout.LAST])
def test_the_scores_of_a_fresh_network_vary_by_1(readout: Readout, rasters: FloatArray) -> None:
    module = fresh(rasters, readout=readout)
    scores = class_scores(forward(module, rasters, HardThreshold()).output, readout)
    assert float((scores - scores.mean(dim=0)).detach().std()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("architecture", ["32R-BN", "16-BN-16R", "D8-16R"])
def test_batch_norm_and_delays_start_so_that_every_layer_fires(architecture: str, rasters: FloatArray) -> None:
    module = fresh(rasters, architecture)
    for layer, rate in forward(module, rasters, HardThreshold()).firing_rates.items():
        assert 0.005 < rate < 0.4, layer
