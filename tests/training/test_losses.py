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
from spikeserve.training.errors import BrokenGradientChain, InvalidConfig, InvalidData
from spikeserve.training.fit.losses import balancing_weights, membrane_loss, rate_penalty, spike_loss
from spikeserve.training.fit.modules import IF
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold


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
        (Readout.SUM_MEMBRANE, [3.0, 3.0]),
        (Readout.MAX, [3.0, 2.0]),
        (Readout.MEAN, [1.0, 1.0]),
        (Readout.LAST, [-1.0, 0.0]),
        (Readout.SUM, [3.0, 3.0]),
    ],
)
def test_membrane_loss_is_the_cross_entropy_of_its_readout(readout: Readout, scores: list[float]) -> None:
    membrane = torch.tensor([[[1.0, 1.0]], [[3.0, 2.0]], [[-1.0, 0.0]]])
    expected = math.log(1 + math.exp(scores[1] - scores[0]))
    assert float(membrane_loss(membrane, torch.tensor([0]), readout)) == pytest.approx(expected)


def test_first_spikes_have_no_gradient_to_train_by() -> None:
    with pytest.raises(InvalidConfig, match=r"^readout: is 'first_spike', which has no gradient .*: spike_count, sum,"):
        membrane_loss(torch.zeros(2, 1, 3), torch.tensor([0]), Readout.FIRST_SPIKE)


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


def test_a_dead_loss_explains_itself_when_one_goes_backward_from_it() -> None:
    layer, targets = IF(2), torch.tensor([0])
    current = torch.ones(3, 1, 2)
    with pytest.raises(
        BrokenGradientChain,
        match=r"^the loss has no grad_fn.*: look for an output that was detached.*no_grad.*argmax.*frozen",
    ):
        spike_loss(layer(current), targets).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        loss = spike_loss(layer(current.requires_grad_()), targets)
    with pytest.raises(BrokenGradientChain, match="gradients were off where it was made"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_a_dead_loss_is_a_number_as_any_other_and_may_be_a_term() -> None:
    loss = spike_loss(torch.zeros(3, 1, 2), torch.tensor([0]))
    assert float(loss) == pytest.approx(math.log(2))
    weight = torch.tensor(3.0, requires_grad=True)
    (loss + weight**2).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert float(weight.grad) == 6.0


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


POINTS = torch.linspace(-2, 3, 101)


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
@pytest.mark.parametrize("slope", [1.0, 10.0])
def test_the_gradient_is_the_closed_form_around_the_threshold(surrogate: Surrogate, slope: float) -> None:
    threshold = 0.5
    charged = POINTS.double().requires_grad_()
    spikes = SurrogateThreshold(surrogate, slope).fire("fire", charged, torch.tensor(threshold))
    spikes.backward(torch.full_like(charged, 3.0))  # type: ignore[no-untyped-call]
    expected = [3 * closed_form(surrogate, float(point) - threshold, slope) for point in POINTS.double()]
    assert charged.grad is not None
    np.testing.assert_allclose(charged.grad, expected, rtol=1e-9)


@pytest.mark.parametrize("surrogate", [each for each in DERIVATIVES if each is not Surrogate.SUPERSPIKE])
def test_every_bump_has_area_1(surrogate: Surrogate) -> None:
    x = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    area = torch.trapezoid(DERIVATIVES[surrogate](x, 10.0), x)
    assert area == pytest.approx(1, abs=1e-4)


def test_the_sigmoid_is_centred_on_each_neurons_own_threshold() -> None:
    # At its threshold the bump is slope / 4 = 2.5 high. A literal 1 in its place would give that to the second neuron
    # only.
    thresholds = torch.tensor([0.25, 1.0, 7.0])
    charged = thresholds.clone().requires_grad_()
    SurrogateThreshold(Surrogate.SIGMOID, 10.0).fire("fire", charged, thresholds).sum().backward()  # type: ignore[no-untyped-call]
    assert charged.grad is not None
    assert charged.grad.tolist() == [2.5, 2.5, 2.5]


def test_a_trained_threshold_gets_the_opposite_gradient() -> None:
    charged = torch.tensor([[0.5, 1.0], [1.5, 2.0]], requires_grad=True)
    threshold = torch.tensor(1.0, requires_grad=True)
    SurrogateThreshold().fire("fire", charged, threshold).sum().backward()  # type: ignore[no-untyped-call]
    assert charged.grad is not None
    assert threshold.grad is not None
    assert float(threshold.grad) == pytest.approx(-float(charged.grad.sum()))


@pytest.mark.parametrize("surrogate", list(DERIVATIVES))
@pytest.mark.parametrize("operation", FIRES)
def test_the_way_forward_is_the_plain_threshold(surrogate: Surrogate, operation: str) -> None:
    charged, threshold = torch.tensor([0.5, 1.0, 1.5]), torch.tensor(1.0)
    spikes = SurrogateThreshold(surrogate, 10.0).fire(operation, charged, threshold)
    assert spikes.tolist() == ([0, 0, 1] if operation == "fire_above" else [0, 1, 1])
