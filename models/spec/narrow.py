"""Weights of few bits: whole numbers, times a power of two for each output.

They need no meaning of their own. `value * 2**exponent` is a float32 like any other, and a sum is exact and rounded
once (`models.spec.sums`), so an engine may add up the whole numbers and multiply at the end: the same bits come out. A
bundle may store them in a quarter of the bytes, and whether a tensor is such is seen from its values alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.network import FloatArray

MOST_BITS = 8  # of a weight, its sign included
MANTISSA = 24  # bits of a float32's significand
BEYOND = 256  # the exponent of no float32, of either sign


@dataclass(frozen=True)
class Narrow:
    """`values` (outputs, …) and `exponents` (outputs,): the weights are values * 2**exponents of their outputs."""

    values: NDArray[np.int8]
    exponents: NDArray[np.int16]

    @property
    def bits(self) -> int:
        """How many bits the largest value needs, its sign included: 8 for 64 to 127, 4 for 4 to 7."""
        return 1 + int(np.abs(self.values.astype(np.int16)).max(initial=0)).bit_length()

    def weights(self) -> FloatArray:
        """Return the weights in float32, of the same shape as the values."""
        exponents = self.exponents.reshape(-1, *[1] * (self.values.ndim - 1))
        return np.ldexp(self.values.astype(np.float32), exponents)


def narrow_of(weight: FloatArray, bits: int = MOST_BITS) -> Narrow | None:
    """Return weights (outputs, …) as narrow ones of at most these bits that are exactly equal; None if there are none.

    An output's exponent is the largest that serves: its values have no factor of two in common. Where all weights of
    an output are zeros, it is 0.
    """
    rows = weight.reshape(len(weight), -1)
    fractions, highest = np.frexp(rows)
    whole = np.abs(np.ldexp(fractions, MANTISSA)).astype(np.int32)
    some = whole > 0
    lowest = highest - MANTISSA + np.frexp((whole & -whole).astype(np.float32))[1] - 1  # of the bits that are set
    exponents = lowest.min(axis=1, where=some, initial=BEYOND)
    exponents[~some.any(axis=1)] = 0
    if np.any(highest.max(axis=1, where=some, initial=-BEYOND) - exponents >= bits):
        return None
    values = np.ldexp(rows.astype(np.float64), -exponents[:, np.newaxis])
    return Narrow(values.astype(np.int8).reshape(weight.shape), exponents.astype(np.int16))
