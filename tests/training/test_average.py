"""The average of the weights over the steps, which is what a run validates and exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikeserve.models.spec import Input
from spikeserve.training.config import NetworkConfig, TrainingConfig
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import averaged, fit, validate
from spikeserve.training.fit.network import TrainingNetwork


def filled(module: TrainingNetwork, value: float) -> TrainingNetwork:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def value_of(module: torch.nn.Module) -> float:
    values = torch.cat([parameter.detach().ravel() for parameter in module.parameters()])
    assert (values == values[0]).all()
    return float(values[0])


def test_an_average_takes_the_first_weights_and_then_moves_towards_each_later_ones() -> None:
    module = filled(
        TrainingNetwork(build_architecture(NetworkConfig(architecture="3"), Input(shape=(2,)), ("a", "b"), 4)), 9.0
    )
    average = averaged(module, keep=0.25)
    average.update_parameters(filled(module, 1.0))
    assert value_of(average.module) == 1.0
    average.update_parameters(filled(module, 12.0))  # keeps 2/11 of 1
    assert value_of(average.module) == pytest.approx(2 / 11 + 12 * 9 / 11)
    average.update_parameters(filled(module, 0.0))  # keeps 3/12
    assert value_of(average.module) == pytest.approx(0.25 * (2 / 11 + 12 * 9 / 11))
    average.update_parameters(filled(module, 8.0))  # and from here on a quarter
    assert value_of(average.module) == pytest.approx(0.25**2 * (2 / 11 + 12 * 9 / 11) + 6)


@pytest.fixture(scope="module")
def few_digits() -> tuple[TrainingConfig, Dataset]:
    config = TrainingConfig.read(None, {"network": {"architecture": "32"}, "optimisation": {"epochs": 2}})
    data = load(config.data, config.network.coding)
    return config, replace(data, training=data.training[:320])


@pytest.mark.parametrize("keep", [0.0, 0.9])
def test_a_run_returns_what_it_validated(
    few_digits: tuple[TrainingConfig, Dataset], keep: float, tmp_path: Path
) -> None:
    config, data = few_digits
    config = config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"average": keep})})
    fitted = fit(architecture_for(config, data), data, config, tmp_path / "checkpoint.pt")
    again = validate(TrainingNetwork.of(fitted.network), data.validation)
    assert again.accuracy == fitted.best.validation_accuracy
    assert again.loss == pytest.approx(fitted.best.validation_loss, rel=1e-5)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    same = all(
        torch.equal(content["weights"][name], content["average"][f"module.{name}"]) for name in content["weights"]
    )
    assert same == (keep == 0.0)
