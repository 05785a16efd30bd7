"""The loop: gradients reach every weight, the loss falls, nothing is carried over, and a run can stop and go on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.training.config import AugmentConfig, Surrogate, TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.errors import BrokenGradientChain
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.initialise import BAND, initialise
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.layers import Connection
from spikeserve.training.fit.loop import fit, validate
from spikeserve.training.fit.losses import spike_loss
from spikeserve.training.fit.network import TrainingNetwork, forward
from spikeserve.training.fit.surrogate import threshold_for
from spikeserve.training.report.epochs import Epoch, Watcher


# Each pair but the soft ones compiles kernels of its own.
@pytest.mark.parametrize(
    ("neuron", "surrogate"),
    [
        *(("LIF", surrogate) for surrogate in Surrogate),
        *((neuron, surrogate) for neuron in ("IF", "CubaLIF") for surrogate in (Surrogate.SIGMOID, Surrogate.SOFT)),
    ],
)
def test_every_weight_gets_a_gradient(surrogate: Surrogate, neuron: str, config: TrainingConfig, data: Dataset) -> None:
    network = config.network.model_copy(update={"neuron": neuron, "architecture": "4C3-AP2-16R"})
    spec = architecture_for(config.model_copy(update={"network": network}), data)
    torch.manual_seed(0)
    module = TrainingNetwork(spec)
    batch = data.training[:32]
    initialise(module, batch.samples, network.initialisation)
    activity = forward(module, batch.samples, threshold_for(surrogate, 1.0))
    spike_loss(activity.output, torch.from_numpy(batch.labels)).backward()  # type: ignore[no-untyped-call]
    for name, weight in module.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


def test_fresh_weights_are_scaled_until_every_layer_fires(config: TrainingConfig, data: Dataset) -> None:
    module = TrainingNetwork(architecture_for(config, data))
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(0.2)
    samples = data.training.samples[:32]
    assert forward(module, samples, HardThreshold()).firing_rates["output"] == 0
    initialise(module, samples)
    for layer, rate in forward(module, samples, HardThreshold()).firing_rates.items():
        assert BAND[0] <= rate <= BAND[1], layer


def test_the_loss_falls_and_the_task_is_learned(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    longer = config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"epochs": 10})})
    fitted = fit(architecture_for(longer, data), data, longer, tmp_path / "checkpoint.pt")
    assert fitted.epochs[-1].training_loss < fitted.epochs[0].training_loss / 2
    assert validate(TrainingNetwork.of(fitted.network), data.test).accuracy > 0.9


def test_a_forward_pass_starts_from_rest_whatever_ran_before(digits_like: Network) -> None:
    module = TrainingNetwork.of(digits_like)
    rng = np.random.default_rng(0)
    samples = rng.random((5, 64), np.float32)
    alone = forward(module, samples, HardThreshold()).output
    for batch in (1, 32, 3):
        forward(module, rng.random((batch, 64), np.float32), HardThreshold())
        assert torch.equal(forward(module, samples, HardThreshold()).output, alone)
    assert not any("membrane" in name for name, _ in module.named_buffers())


def test_a_resumed_run_is_that_without_interruption(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # With dropout, random spikes and an average of the weights.
    network = config.network.model_copy(update={"architecture": "4C3-AP2-16-DO0.2", "coding": Coding.RATE})
    averaged = config.optimisation.model_copy(update={"average": 0.9})
    config = config.model_copy(update={"network": network, "optimisation": averaged})
    spec = architecture_for(config, data)
    whole = fit(spec, data, config, tmp_path / "whole.pt")

    def stop(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    first = fit(spec, data, config, tmp_path / "parts.pt", watcher=Watcher(epoch=stop))
    torch.rand(1)  # PyTorch's own random numbers have no part in it
    second = fit(spec, data, config, tmp_path / "parts.pt", resume=True)
    assert first.interrupted
    assert [epoch.number for epoch in first.epochs] == [0, 1]
    assert not second.interrupted
    assert [(e.number, e.training_loss, e.validation_loss) for e in second.epochs] == [
        (e.number, e.training_loss, e.validation_loss) for e in whole.epochs
    ]
    for name, tensor in whole.network.tensors.items():
        np.testing.assert_array_equal(second.network.tensors[name], tensor)
    one, other = (torch.load(tmp_path / name, weights_only=True)["average"] for name in ("whole.pt", "parts.pt"))
    assert all(torch.equal(one[name], other[name]) for name in one)  # and how many updates it has had


def test_an_interrupt_in_an_epoch_keeps_the_best(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    def stop(number: int, _: float) -> None:
        if number == 2:
            raise KeyboardInterrupt

    fitted = fit(architecture_for(config, data), data, config, tmp_path / "checkpoint.pt", watcher=Watcher(batch=stop))
    assert fitted.interrupted
    assert len(fitted.epochs) == 2
    assert fitted.best in fitted.epochs


def test_each_epoch_draws_anew(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # A learning rate this small leaves the weights as they are: epochs differ only by how their samples are shifted.
    still = config.optimisation.model_copy(update={"epochs": 2, "learning_rate": 1e-30})
    settings = config.model_copy(update={"optimisation": still, "augment": AugmentConfig(shift=1)})
    first, second = fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt").epochs
    assert first.validation_loss == second.validation_loss
    assert first.training_loss != second.training_loss


def test_early_stopping_ends_after_so_many_worse_epochs(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # A learning rate this small changes no prediction and hardly the loss: whatever is best, the run ends 2 later.
    data = replace(data, validation=data.training)  # which are enough to choose by
    still = config.optimisation.model_copy(update={"epochs": 50, "patience": 2, "learning_rate": 1e-12})
    settings = config.model_copy(update={"optimisation": still})
    fitted = fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt")
    assert len(fitted.epochs) - 1 - fitted.best.number == 2
    assert len(fitted.epochs) < 50


def test_frozen_weights_are_refused_with_their_name(
    config: TrainingConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(TrainingNetwork):
        def __init__(self, architecture: Architecture) -> None:
            super().__init__(architecture)
            self.requires_grad_(False)

    monkeypatch.setattr("spikeserve.training.fit.loop.TrainingNetwork", Frozen)
    with pytest.raises(BrokenGradientChain, match="every parameter is frozen"):
        fit(architecture_for(config, data), data, config, tmp_path / "checkpoint.pt")


def test_the_best_weights_are_returned_not_the_last(config: TrainingConfig, data: Dataset, tmp_path: Path) -> None:
    # With a patience of one, a run ends with the first epoch that is not better: the last but one is the best.
    data = replace(data, validation=data.training)
    impatient = config.optimisation.model_copy(update={"epochs": 50, "patience": 1})
    settings = config.model_copy(update={"optimisation": impatient})
    path = tmp_path / "checkpoint.pt"
    weights: list[dict[str, torch.Tensor]] = []
    watcher = Watcher(epoch=lambda _: weights.append(Progress.load(path).weights))
    fitted = fit(architecture_for(settings, data), data, settings, path, watcher=watcher)
    assert fitted.best.number == len(weights) - 2
    module = TrainingNetwork(architecture_for(settings, data))
    for expected, same in ((weights[-2], True), (weights[-1], False)):
        module.load_state_dict(expected)
        found = [
            np.array_equal(module.network().tensors[name], value) for name, value in fitted.network.tensors.items()
        ]
        assert all(found) is same


def test_batch_norm_is_of_samples_as_served_not_as_varied(
    config: TrainingConfig, data: Dataset, tmp_path: Path
) -> None:
    network = config.network.model_copy(update={"architecture": "8-BN"})
    settings = config.model_copy(update={"network": network, "augment": AugmentConfig(event_drop=0.9)})
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
    once = config.optimisation.model_copy(update={"epochs": 1, "batch_size": len(data.training), "rate_penalty": 1e6})
    settings = config.model_copy(update={"optimisation": once})
    fit(architecture_for(settings, data), data, settings, tmp_path / "checkpoint.pt")
    moments = Progress.load(tmp_path / "checkpoint.pt").optimiser["state"].values()
    norm = 10 * math.sqrt(sum(float(state["exp_avg"].square().sum()) for state in moments))
    assert norm == pytest.approx(1, rel=1e-3)
