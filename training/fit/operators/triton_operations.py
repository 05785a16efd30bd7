"""The operations of expressions that take more than a line of Triton, which the kernels of `triton_code` call.

Importing this imports Triton. Each takes and returns blocks of float32; no two operations become one, if kernels are
launched as `triton_code` says.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from spikeserve.models.spec import exponential as of_spec

LOWEST, HIGHEST = tl.constexpr(of_spec.LOWEST), tl.constexpr(of_spec.HIGHEST)
LOG2_E, HALF = tl.constexpr(of_spec.LOG2_E), tl.constexpr(0.5)
LN2_HIGH, LN2_LOW = tl.constexpr(of_spec.LN2_HIGH), tl.constexpr(of_spec.LN2_LOW)
COEFFICIENTS, TERMS = tl.constexpr(of_spec.COEFFICIENTS), tl.constexpr(len(of_spec.COEFFICIENTS))


@triton.jit  # type: ignore[untyped-decorator]
def fire_multiple(charged, threshold) -> Any:  # type: ignore[no-untyped-def]
    """Count the whole thresholds that are charged, 0 where that is not positive."""
    quotient = tl.div_rn(charged, threshold)
    return tl.where((charged > 0.0) & (quotient > 0.0), tl.floor(quotient), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def nearest(charged, threshold) -> Any:  # type: ignore[no-untyped-def]
    """Return how many whole thresholds are nearest to what is charged, at least 1; of two as near, the even number."""
    quotient = tl.div_rn(charged, threshold)
    below = tl.floor(quotient)
    beyond = quotient - below
    even = 2.0 * tl.floor((below + 1.0) * 0.5)
    rounded = tl.where(beyond < 0.5, below, tl.where(beyond > 0.5, below + 1.0, even))
    return tl.where(rounded < 1.0, 1.0, rounded)


@triton.jit  # type: ignore[untyped-decorator]
def exp(values) -> Any:  # type: ignore[no-untyped-def]
    """Return e to the power of the values by the operations of `models.spec.exponential`, in float64."""
    c = tl.where(values > LOWEST, values, LOWEST)
    c = tl.where(c < HIGHEST, c, HIGHEST).to(tl.float64)
    k = tl.floor(c * LOG2_E + HALF)
    r = (c - k * LN2_HIGH) - k * LN2_LOW
    p = r * COEFFICIENTS[0] + COEFFICIENTS[1]
    for n in tl.static_range(2, TERMS):
        p = p * r + COEFFICIENTS[n]
    power = ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    return tl.where(values != values, values, (p * power).to(tl.float32))
