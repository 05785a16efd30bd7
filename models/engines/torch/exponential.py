"""The exponential of `models.spec.exponential` in PyTorch, with its derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikeserve.models.spec.exponential import HIGHEST, LOWEST, parts

BIAS, MANTISSA_BITS = 1023, 52  # of a float64


class _Exponential(torch.autograd.Function):
    """e to the power of float values of any shape, which is its own derivative."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        c = torch.where(values > LOWEST, values, LOWEST)
        p, k = parts(torch.where(c < HIGHEST, c, HIGHEST).to(torch.float64), float, torch.floor)
        power = ((k.to(torch.int64) + BIAS) << MANTISSA_BITS).view(torch.float64)
        return torch.where(values.isnan(), values, (p * power).to(values.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return gradients[0] * output


def exponential(values: Tensor) -> Tensor:
    """Return e to the power of each value, rounded as the spec defines it, in the values' own type."""
    result: Tensor = _Exponential.apply(values)  # type: ignore[no-untyped-call]
    return result
