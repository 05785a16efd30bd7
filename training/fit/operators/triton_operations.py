"""The operations of expressions as Triton functions, which the kernels of `triton_code` call.

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
def divide(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Return the quotient, rounded once; Triton's `/` is less exact on a device."""
    return tl.div_rn(first, second)


@triton.jit  # type: ignore[untyped-decorator]
def reaches(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Give 1 where the first is at least the second, else 0."""
    return (first >= second).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def above(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Give 1 where the first is greater, else 0."""
    return (first > second).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def equals(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Give 1 where both are equal, else 0."""
    return (first == second).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def minimum(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Give the first where it is less, else the second."""
    return tl.where(first < second, first, second)


@triton.jit  # type: ignore[untyped-decorator]
def maximum(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Give the first where it is greater, else the second."""
    return tl.where(first > second, first, second)


@triton.jit  # type: ignore[untyped-decorator]
def sqrt(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the square roots, rounded once; Triton's `sqrt` is less exact on a device."""
    return tl.sqrt_rn(values)


@triton.jit  # type: ignore[untyped-decorator]
def floor(values) -> Any:  # type: ignore[no-untyped-def]
    """Give the greatest whole numbers that are not above the values."""
    return tl.floor(values)


@triton.jit  # type: ignore[untyped-decorator]
def trunc(values) -> Any:  # type: ignore[no-untyped-def]
    """Drop the fractions."""
    return tl.where(values < 0.0, tl.ceil(values), tl.floor(values))


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
def select(spikes, fired, silent) -> Any:  # type: ignore[no-untyped-def]
    """Return `fired` where there is a spike, else `silent`."""
    return tl.where(spikes > 0.0, fired, silent)


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


@triton.jit  # type: ignore[untyped-decorator]
def absolute(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the values without their signs."""
    return tl.abs(values)


@triton.jit  # type: ignore[untyped-decorator]
def sigmoid(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the logistic function."""
    return tl.div_rn(1.0, 1.0 + tl.exp(0.0 - values))
