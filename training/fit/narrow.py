"""Weights rounded to few bits: each to a whole number, times a power of two for each output (`models.spec.narrow`)."""

from __future__ import annotations

import torch
from torch import Tensor

POWERS = 3  # of each output that are tried: the one that holds its largest weight, and those below, which cut it off
LOWEST, HIGHEST = -126, 120  # exponents of powers that are tried: normal float32, whose product with 127 is finite


@torch.no_grad()
def round_to_bits(weight: Tensor, bits: int) -> Tensor:
    """Return weights (outputs, …) rounded to `bits` bits, by the power of two that loses least of each output.

    Least is the sum of the squares of what rounding changes.
    """
    rows, most = weight.flatten(1), 2 ** (bits - 1) - 1
    exponents = torch.frexp(rows.abs().amax(1, keepdim=True) / most)[1]
    best, least = torch.zeros_like(rows), torch.full_like(rows[:, :1], torch.inf)
    for lower in range(POWERS):
        power = _power((exponents - lower).clamp(LOWEST, HIGHEST))
        tried = (rows / power).round().clamp(-most, most) * power
        lost = (tried - rows).square().sum(1, keepdim=True)
        best, least = torch.where(lost < least, tried, best), torch.minimum(lost, least)
    return best.view_as(weight)


def _power(exponents: Tensor) -> Tensor:
    """Return 2**exponents as float32, to the bit on any device: an exponent is a field of a float32."""
    return ((exponents.int() + 127) << 23).view(torch.float32)
