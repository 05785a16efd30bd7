"""The operations of expressions as Triton functions, which the kernels of `triton_code` call.

Importing this imports Triton. Each takes and returns blocks of float32; no two operations become one, if kernels are
launched as `triton_code` says.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def divide(first, second) -> Any:  # type: ignore[no-untyped-def]
    """Return the quotient, rounded once; Triton's `/` is less exact on a device."""
    return tl.div_rn(first, second)


@triton.jit  # type: ignore[untyped-decorator]
def fire_at_threshold(charged, threshold) -> Any:  # type: ignore[no-untyped-def]
    """Return 1 where what is charged reaches the threshold, else 0."""
    return (charged >= threshold).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def fire_above_threshold(charged, threshold) -> Any:  # type: ignore[no-untyped-def]
    """Return 1 where what is charged exceeds the threshold, else 0."""
    return (charged > threshold).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def fire_multiple(charged, threshold) -> Any:  # type: ignore[no-untyped-def]
    """Return how many whole thresholds are charged, 0 where that is not positive."""
    return tl.where(charged > 0.0, tl.floor(tl.div_rn(charged, threshold)), 0.0)


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
def positive(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the values, with 0 in place of negative ones."""
    return tl.where(values < 0.0, 0.0, values)


@triton.jit  # type: ignore[untyped-decorator]
def absolute(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the values without their signs."""
    return tl.abs(values)


@triton.jit  # type: ignore[untyped-decorator]
def sigmoid(values) -> Any:  # type: ignore[no-untyped-def]
    """Return the logistic function."""
    return tl.div_rn(1.0, 1.0 + tl.exp(0.0 - values))
