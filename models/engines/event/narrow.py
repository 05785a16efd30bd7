"""Narrow weights, of few bits times a power of two for each output, as the tables of sums that are added up as bytes.

`narrow_code` says how, and makes the functions. They are the weights of a Linear, or of a recurrent layer, as panels of
registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.connections import AT_ONCE, GATHER, NARROW, NOTHING, as_integers
from spikeserve.models.engines.event.layouts import Layout, aligned, padded
from spikeserve.models.engines.event.narrow_code import gathering
from spikeserve.models.engines.event.native import Native
from spikeserve.models.engines.event.table import Feed, Ints
from spikeserve.models.engines.event.vectors import BYTE_PANEL, BYTES, LANES
from spikeserve.models.spec.narrow import Narrow, narrow_of
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.sums import Sum, Summation, lowest_bit

MOST_COUNTED = 4.0  # the largest input of such a sum: so many rows of bytes take as long as one of floats
GROUPS = (16, 8, 4, 2, 1)  # rows that may be added as bytes
MOST_SHIFT = 30  # of weights that are all 0, whose exponent means nothing
FASTER = 4  # four bytes are added in the time of a float


class ByteSum(NamedTuple):
    """A sum whose `weight`, registers of bytes, the function `code` adds to `base` (rows + 1, size).

    Rows of the base are biases, as multiples of `grid`; the last one has by how many bits each output's weights are
    shifted.
    """

    weight: FloatArray
    base: FloatArray
    grid: float
    code: Native

    def feed(self, inputs: int, outputs: int) -> Feed:
        """Return the feed of a connection from so many inputs to so many places."""
        return NOTHING._replace(
            kind=GATHER,
            weight=self.weight,
            summed=NARROW,
            grid=self.grid,
            most=MOST_COUNTED,
            adder=self.code.address,
            fan_in=inputs,
            fan_out=outputs / FASTER,
        )


def byte_sum(
    rule: Sum, weight: FloatArray, biases: FloatArray, senders: Ints, units: int, layout: Layout
) -> ByteSum | None:
    """Return the sum of `weight` (outputs, inputs) and `biases` (rows, size) if it can be added up as bytes.

    Its inputs are spikes, or a few at once, at the places `senders` of a row of `units`; its outputs have a layout.
    """
    narrow = _narrow(rule, weight)
    if narrow is None:
        return None
    group = _group(narrow)
    rows = np.zeros((units, padded(layout.size, BYTES)), np.int8)
    rows[np.ix_(senders, layout.places)] = narrow.values.T
    shifts = np.zeros(rows.shape[1], np.int64)
    grid = _grid(rule, weight, biases)
    shifts[layout.places] = _shifts(narrow, grid)
    return ByteSum(_registers(rows, group), _base(biases, shifts, grid), grid, gathering(group))


def _narrow(rule: Sum, weight: FloatArray) -> Narrow | None:
    """Return the weights of a sum as narrow ones, worked out piece by piece, if its inputs are spikes or a few."""
    if rule.by is Summation.FLOAT64 or rule.arriving.step < 1.0 or rule.arriving.bound > MOST_COUNTED:
        return None
    at_once = max(1, AT_ONCE // max(1, weight[0].size))
    pieces = list[Narrow]()
    for first in range(0, len(weight), at_once):
        piece = narrow_of(weight[first : first + at_once])
        if piece is None:
            return None
        pieces.append(piece)
    values, exponents = ([getattr(piece, name) for piece in pieces] for name in ("values", "exponents"))
    return Narrow(np.concatenate(values), np.concatenate(exponents))


def _group(narrow: Narrow) -> int:
    """Return how many rows may be added as bytes."""
    largest = max(int(narrow.values.max(initial=1)), -int(narrow.values.min(initial=-1)))
    return next(group for group in GROUPS if group * largest <= 127)


def _grid(rule: Sum, weight: FloatArray, bias: FloatArray) -> float:
    """Return the power of two that a sum's weights and biases are multiples of."""
    grid = rule.grid or min(lowest_bit(weight), lowest_bit(bias))
    return grid if np.isfinite(grid) else 1.0


def _shifts(narrow: Narrow, grid: float) -> NDArray[Any]:
    """Return by how many bits each output's weights are shifted."""
    return np.clip(narrow.exponents - (np.frexp(grid)[1] - 1), 0, MOST_SHIFT)


def _base(biases: FloatArray, shifts: NDArray[Any], grid: float) -> FloatArray:
    base = aligned((biases.size + shifts.size,))
    base[: biases.size] = biases.reshape(-1)
    as_integers(base[: biases.size], grid)
    base.view(np.int32)[biases.size :] = shifts
    return base


def _registers(rows: NDArray[np.int8], group: int) -> FloatArray:
    """Return weights (units, whole registers) as panels of registers of bytes, in the bits of an array."""
    units, size = rows.shape
    panels = aligned((rows.size // 4,))
    for j in range(0, size, BYTE_PANEL):
        registers = rows[:, j : j + BYTE_PANEL].reshape(units, -1, 4, LANES).swapaxes(2, 3).copy()
        registers.view(np.uint8)[..., ::2] += np.uint8(128 // group)
        panels.view(np.int8)[units * j :][: registers.size] = registers.ravel()
    return panels
