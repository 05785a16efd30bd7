"""Losses: right by hand on small numbers, and clear about what they do not take."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.spec import Readout
from training.errors import BrokenGradientChain, InvalidData
from training.fit.losses import membrane_loss, rate_penalty, require_gradient, spike_loss


def test_spike_loss_is_the_cross_entropy_of_counts() -> None:
    # Counts 2 and 1 over three steps; the target is class 1: loss = -log(e / (e^2 + e)) = log(1 + e).
    spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert float(spike_loss(spikes, torch.tensor([1]))) == pytest.approx(math.log(1 + math.e))


@pytest.mark.parametrize(
    ("readout", "scores"),
    [
        (Readout.MAX_MEMBRANE, [3.0, 2.0]),
        (Readout.MEAN_MEMBRANE, [1.0, 1.0]),
        (Readout.LAST_MEMBRANE, [-1.0, 0.0]),
    ],
)
def test_membrane_loss_is_the_cross_entropy_of_its_readout(readout: Readout, scores: list[float]) -> None:
    membrane = torch.tensor([[[1.0, 1.0]], [[3.0, 2.0]], [[-1.0, 0.0]]])
    expected = math.log(1 + math.exp(scores[1] - scores[0]))
    assert float(membrane_loss(membrane, torch.tensor([0]), readout)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spikes", "targets", "sentence"),
    [
        (
            torch.zeros(2, 3),
            torch.zeros(2).long(),
            r"spikes: shape is \(2, 3\), expected \(time_steps, batch, classes\)",
        ),
        (torch.zeros(4, 2, 3), torch.zeros(2), r"targets: type is torch.float32, expected torch.int64"),
        (torch.zeros(4, 2, 3), torch.zeros(3).long(), r"targets: shape is \(3,\), expected \(2,\)"),
        (torch.zeros(4, 2, 3), torch.tensor([0, 3]), r"targets: go from 0 to 3, expected classes 0 to 2"),
        (torch.zeros(4, 2, 3), torch.tensor([-1, 2]), r"targets: go from -1 to 2, expected classes 0 to 2"),
    ],
)
def test_a_wrong_shape_or_type_is_refused_by_name(spikes: Tensor, targets: Tensor, sentence: str) -> None:
    with pytest.raises(InvalidData, match=sentence):
        spike_loss(spikes, targets)


def test_the_rate_penalty_is_the_squared_distance_from_the_band() -> None:
    # Rates 0.5, 0.1 and 0; band 0.05 to 0.2: ((0.3)^2 + 0 + (0.05)^2) / 3
    rates = [torch.tensor(rate) for rate in (0.5, 0.1, 0.0)]
    assert float(rate_penalty(rates, 0.05, 0.2)) == pytest.approx((0.09 + 0.0025) / 3)


def test_a_penalty_on_nothing_is_refused() -> None:
    with pytest.raises(InvalidData, match="rates: none given"):
        rate_penalty([], 0.1, 0.2)


def test_a_loss_without_grad_fn_names_the_usual_causes() -> None:
    weight = torch.ones(1, requires_grad=True)
    detached = (weight * 2).detach().sum()
    with pytest.raises(BrokenGradientChain, match=r"grad_fn.*detached.*no_grad.*argmax.*frozen"):
        require_gradient(detached, [weight])


def test_a_loss_without_grad_fn_names_the_cause_that_is_seen() -> None:
    frozen = torch.ones(1)
    with pytest.raises(BrokenGradientChain, match="every parameter is frozen"):
        require_gradient(frozen.sum(), [frozen])
    with torch.no_grad(), pytest.raises(BrokenGradientChain, match="gradients are off here"):
        require_gradient(torch.ones(1, requires_grad=True).sum(), [torch.ones(1, requires_grad=True)])


def test_a_loss_with_a_chain_passes() -> None:
    weight = torch.ones(1, requires_grad=True)
    require_gradient((weight * 2).sum(), [weight])
