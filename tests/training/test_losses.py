"""Losses: right by hand on small numbers, and clear about what they do not take.

Surrogates: the hard threshold forward, a known bump backward, and neither of them when serving.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeserve.models.spec import Readout
from spikeserve.models.spec.expressions import FIRES
from spikeserve.training.config import Surrogate
from spikeserve.training.errors import BrokenGradientChain, InvalidData
from spikeserve.training.fit.losses import balancing_weights, membrane_loss, rate_penalty, spike_loss
from spikeserve.training.fit.modules import IF
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold


def test_spike_loss_is_the_cross_entropy_of_counts() -> None:
    # Counts 2 and 1 over three steps; the target is class 1: loss = -log(e / (e^2 + e)) = log(1 + e).
    spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    assert float(spike_loss(spikes, torch.tensor([1]))) == pytest.approx(math.log(1 + math.e))


@pytest.mark.parametrize(
    ("readout", "scores"), [("max", [3.0, 2.0]), ("mean", [1.0, 1.0]), ("last", [-1.0, 0.0]), ("sum", [3.0, 3.0])]
)
@pytest.mark.parametrize("of", ["", "_membrane"])
def test_membrane_loss_is_the_cross_entropy_of_its_readout(readout: str, of: str, scores: list[float]) -> None:
    membrane = torch.tensor([[[1.0, 1.0]], [[3.0, 2.0]], [[-1.0, 0.0]]])
    expected = math.log(1 + math.exp(scores[1] - scores[0]))
    assert float(membrane_loss(membrane, torch.tensor([0]), Readout(readout + of))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spikes", "targets", "sentence"),
    [
        (torch.zeros(2, 3), torch.zeros(2).long(), r"spikes: shape is \(2, 3\), expected \(time_steps, batch, classes"),
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


def test_a_dead_loss_is_a_number_that_may_be_a_term_and_explains_itself_when_one_goes_backward_from_it() -> None:
    targets, weight = torch.tensor([0]), torch.tensor(3.0, requires_grad=True)
    loss = spike_loss(torch.zeros(3, 1, 2), targets)
    assert float(loss) == pytest.approx(math.log(2))
    with pytest.raises(
        BrokenGradientChain,
        match=r"^the loss has no grad_fn.*: look for an output that was detached.*no_grad.*argmax.*frozen",
    ):
        loss.backward()  # type: ignore[no-untyped-call]
    (loss + weight**2).backward()  # type: ignore[no-untyped-call]
    assert weight.grad == 6.0
    with torch.no_grad():
        loss = spike_loss(IF(2)(torch.ones(3, 1, 2, requires_grad=True)), targets)
    with pytest.raises(BrokenGradientChain, match="gradients were off where it was made"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_balancing_weights_count_each_class_alike() -> None:
    # Three samples of class 0 and one of class 1, four in all: 4 / (2 * 3) and 4 / (2 * 1), which weigh 4 together.
    weights = balancing_weights(np.array([0, 0, 0, 1]), 2)
    assert weights.tolist() == pytest.approx([2 / 3, 2])


Z = math.log(math.e**2 + 1)
TWO_TO_NOTHING = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])  # counts 2 and 0: log-probabilities 2 - Z and -Z


@pytest.mark.parametrize(
    ("spikes", "targets", "how", "expected"),
    [
        # Both classes have the probability 1/2, so that each loss is log 2 times the weight of its class.
        (torch.zeros(3, 2, 2), [0, 1], {"class_weights": torch.tensor([0.5, 2.0])}, math.log(2) * (0.5 + 2.0) / 2),
        # Class 0 has 0.9 + 0.1 / 2 of the target.
        (TWO_TO_NOTHING, [0], {"label_smoothing": 0.1}, -(0.95 * (2 - Z) + 0.05 * -Z)),
        (TWO_TO_NOTHING, [[0.75, 0.25]], {}, -(0.75 * (2 - Z) + 0.25 * -Z)),
    ],
    ids=["class weights", "smoothed labels", "probabilities as targets"],
)
def test_what_targets_tell_a_loss(spikes: Tensor, targets: list[Any], how: dict[str, Any], expected: float) -> None:
    assert float(spike_loss(spikes, torch.tensor(targets), **how)) == pytest.approx(expected)


def closed_form(surrogate: Surrogate, x: float, k: float) -> float:
    match surrogate:
        case Surrogate.SIGMOID:
            s = 1 / (1 + math.exp(-k * x))
            return k * s * (1 - s)
        case Surrogate.FAST_SIGMOID:
            return k / 2 / (1 + k * abs(x)) ** 2
        case Surrogate.ARCTAN:
            return k / 2 / (1 + (math.pi * k * x / 2) ** 2)
        case Surrogate.SUPERSPIKE:
            return 1 / (1 + k * abs(x)) ** 2
        case _:
            return k * max(0.0, 1 - k * abs(x))


@pytest.mark.parametrize("surrogate", list(DERIVATIVES))
@pytest.mark.parametrize("operation", FIRES)
@pytest.mark.parametrize("slope", [1.0, 10.0])
def test_spikes_are_those_of_the_plain_threshold_and_their_gradients_the_closed_form_around_it(
    surrogate: Surrogate, operation: str, slope: float
) -> None:
    points, own = np.linspace(-2, 3, 101), 0.5 + np.arange(101) % 3  # each neuron has a threshold of its own
    charged, threshold = (torch.tensor(values, requires_grad=True) for values in (points, own))
    spikes = SurrogateThreshold(surrogate, slope).fire(operation, charged, threshold)
    several = np.floor(points / own).clip(min=0)
    assert (
        spikes.tolist()
        == {"fire": points >= own, "fire_above": points > own, "fire_multiple": several}[operation].tolist()
    )
    # Of several spikes there is a bump at each multiple, which a threshold moves as many times as far.
    nearest = np.round(points / own).clip(min=1) if operation == "fire_multiple" else np.ones(101)
    expected = [3 * closed_form(surrogate, float(x), slope) for x in points - nearest * own]
    to_charged, to_threshold = torch.autograd.grad(3 * spikes.sum(), [charged, threshold])
    np.testing.assert_allclose(to_charged, expected, rtol=1e-9)
    np.testing.assert_allclose(to_threshold, -nearest * expected, rtol=1e-9)
