"""Surrogate gradients, which replace the threshold's derivative during training.

The hard threshold's derivative is 0 everywhere and undefined at the threshold, so no gradient would pass a neuron. A
surrogate keeps the hard threshold in the forward pass and replaces its derivative in the backward pass by a smooth bump
around the threshold, d(x) with x = charged - threshold:

    sigmoid       k * s(kx) * (1 - s(kx)), s the logistic function
    fast_sigmoid  k / 2 / (1 + k|x|)**2
    arctan        k / 2 / (1 + (pi * k * x / 2)**2)     (Fang et al., 2021)
    triangular    k * max(0, 1 - k|x|)                  (after Bellec et al., 2018)
    superspike    1 / (1 + k|x|)**2                     (Zenke & Ganguli, SuperSpike, 2018)

The first four have area 1, so their peak grows with the slope k. Through a recurrent layer the peak is multiplied at
each step, and with a steep slope gradients explode. The last has a peak of 1 whatever its slope, and suits recurrent
layers and long sequences.

For a neuron that may fire several times a step, there is such a bump around each multiple of its threshold, of which
the nearest is used (after sinabs' periodic surrogates).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeserve.models.engines.torch.operations import FIRES, HardThreshold
from spikeserve.training.config import Surrogate

Derivative = Callable[[Any, Any], Any]  # (charged - threshold, slope) -> the surrogate derivative, of that shape


def _sigmoid(x: Any, k: Any) -> Any:
    s = (k * x).sigmoid()
    return k * s * (1 - s)


# Of tensors and of expressions alike.
DERIVATIVES: dict[Surrogate, Derivative] = {
    Surrogate.SIGMOID: _sigmoid,
    Surrogate.FAST_SIGMOID: lambda x, k: k / 2 / (1 + k * x.abs()) ** 2,
    Surrogate.ARCTAN: lambda x, k: k / 2 / (1 + (math.pi / 2 * k * x) ** 2),
    Surrogate.TRIANGULAR: lambda x, k: k * (1 - k * x.abs()).clamp(min=0),
    Surrogate.SUPERSPIKE: lambda x, k: 1 / (1 + k * x.abs()) ** 2,
}


class SurrogateSpike(torch.autograd.Function):
    """The hard threshold in the forward pass, a surrogate derivative in the backward pass.

    `charged` is (batch, *shape), `threshold` a scalar or (*shape); the derivative is centred on it.
    """

    @staticmethod
    def forward(
        ctx: Any, operation: str, charged: Tensor, threshold: Tensor, derivative: Derivative, slope: float
    ) -> Tensor:
        """Return the spikes of the plain threshold, (batch, *shape), and save what the backward pass needs."""
        ctx.operation, ctx.derivative, ctx.slope = operation, derivative, slope
        ctx.save_for_backward(charged, threshold)
        return FIRES[operation](charged, threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of `charged`, and of `threshold` if it is trained."""
        charged, threshold = ctx.saved_tensors
        nearest = torch.ones_like(charged)
        if ctx.operation == "fire_multiple":
            nearest = torch.round(charged / threshold).clamp(min=1)
        to_charged = gradients[0] * ctx.derivative(charged - nearest * threshold, ctx.slope)
        to_threshold = (-to_charged * nearest).sum_to_size(threshold.shape) if ctx.needs_input_grad[2] else None
        return None, to_charged, to_threshold, None, None


class SurrogateThreshold(HardThreshold):
    """Fires exactly as in serving, with a surrogate gradient; a detached reset passes no gradient of its spike."""

    def __init__(
        self, surrogate: Surrogate = Surrogate.SIGMOID, slope: float = 10.0, *, detach_reset: bool = True
    ) -> None:
        self.surrogate = surrogate
        self.slope = float(slope)  # the kernels take no whole number
        self.detach_reset = detach_reset

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:
        """Return the hard spikes, with the surrogate as their derivative."""
        derivative = DERIVATIVES[self.surrogate]
        spikes: Tensor = SurrogateSpike.apply(operation, charged, threshold, derivative, self.slope)  # type: ignore[no-untyped-call]
        return spikes

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        """Choose `yes` where the condition is above 0, else `no`; of conditions, spikes alone pass a gradient."""
        chosen = super().select(condition, yes, no)
        if condition.grad_fn is None or condition.grad_fn.name() != f"{SurrogateSpike.__name__}Backward":
            return chosen
        return chosen + (condition - condition.detach()) * (yes - no).detach()
