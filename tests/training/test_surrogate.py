"""Surrogates: the hard threshold forward, a known bump backward, and neither of them when serving."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeserve.models.spec.expressions import FIRES
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.surrogate import DERIVATIVES, SoftThreshold, SurrogateThreshold, threshold_for

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
    spikes = threshold_for(surrogate, 10.0).fire(operation, charged, threshold)
    assert spikes.tolist() == ([0, 0, 1] if operation == "fire_above" else [0, 1, 1])


def test_the_soft_threshold_is_half_a_spike_at_the_threshold_and_passes_gradcheck() -> None:
    threshold = torch.tensor([0.5, 1.0], dtype=torch.float64)
    soft = SoftThreshold(10.0)
    assert soft.fire("fire", threshold, threshold).tolist() == [0.5, 0.5]

    def fire(charged: Tensor) -> Tensor:
        return soft.fire("fire", charged, threshold)

    charged = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(fire, (charged,))
