"""A step of the optimiser: its rate at each batch, and what weights, learned parameters and delays each get of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spikeserve.training.config import OptimisationConfig, Schedule, TrainingConfig
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.fit import loop
from spikeserve.training.fit.checkpoint import Progress
from spikeserve.training.fit.devices import join
from spikeserve.training.fit.job import architecture_for
from spikeserve.training.fit.loop import fit, learning_rate_share, start
from spikeserve.training.report.epochs import Watcher

RATE = 1e-3


def learning(config: TrainingConfig, **optimisation: Any) -> TrainingConfig:
    """Return the configuration of one step over all samples, of a network whose decays and delays are learned."""
    network = config.network.model_copy(update={"architecture": "D4-16", "learn": ("decay",), "decay": 0.5})
    once = {"epochs": 1, "batch_size": 1000, "learning_rate": RATE, "schedule": Schedule.CONSTANT}
    return config.model_copy(
        update={"network": network, "optimisation": config.optimisation.model_copy(update=once | optimisation)}
    )


def stepped(config: TrainingConfig, data: Dataset, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors before and after a step, the weights by their names and the others likewise."""
    architecture = architecture_for(config, data)
    before = start(architecture, data, config, join(config)).module.state_dict()
    fit(architecture, data, config, folder / "checkpoint.pt")
    after = Progress.load(folder / "checkpoint.pt").weights
    changes = {name: (before[name], after[name]) for name in before if not torch.equal(before[name], after[name])}
    weights = {name: change for name, change in changes.items() if name.endswith(("weight", "bias"))}
    others = {name: change for name, change in changes.items() if name not in weights}
    assert {name.rpartition(".")[2] for name in others} == {"decay", "delay"}
    return weights, others


def longest(changes: dict[str, Any]) -> dict[str, float]:
    return {name: float((after - before).abs().max()) for name, (before, after) in changes.items()}


def test_a_learned_parameter_moves_by_five_times_the_rate_of_a_weight(
    config: TrainingConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OptimisationConfig, "weight_decay", 0.0)
    # The first step of Adam moves each value by the learning rate, whatever the length of its gradient.
    weights, others = stepped(learning(config), data, tmp_path)
    assert longest(weights) == pytest.approx(dict.fromkeys(weights, RATE), rel=0.01)
    assert longest(others) == pytest.approx(dict.fromkeys(others, 5 * RATE), rel=0.01)


def test_weights_alone_decay(
    config: TrainingConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OptimisationConfig, "weight_decay", 0.0)
    weights, others = stepped(learning(config), data, tmp_path)
    monkeypatch.setattr(OptimisationConfig, "weight_decay", 100.0)
    decayed, same = stepped(learning(config), data, tmp_path)
    for name, (_, after) in same.items():
        assert torch.equal(after, others[name][1]), name
    for name, (before, after) in decayed.items():  # AdamW takes rate times decay of a weight away, a tenth
        torch.testing.assert_close(weights[name][1] - after, 0.1 * before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", [Schedule.COSINE, Schedule.ONE_CYCLE])
def test_the_rate_follows_its_schedule(
    config: TrainingConfig, data: Dataset, tmp_path: Path, schedule: Schedule
) -> None:
    # 115 samples in batches of 16 are 8 steps an epoch, each at the share of the run that is done before it.
    assert len(data.training) == 115
    settings = learning(config, epochs=2, batch_size=16, schedule=schedule)
    seen: list[float] = []
    watcher = Watcher(step=lambda rate, _: seen.append(rate))
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
    watcher = Watcher(step=lambda _, loss: losses.append(loss))
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
