"""The kernels that list what is not 0, from bits or from floats.

The lists are as in the event engine: `index` (int32) has the units that are not 0, row after row, those of row r from
offset[r] to offset[r + 1], and `value` what stands there, or is empty where all are 1. `list_units` turns them around:
for each unit the rows in which it is not 0.

All count first, so that each thread knows where in the lists its rows begin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from spikeserve.models.engines.event.currents import Array
from spikeserve.models.engines.event.vectors import LANES, intrinsic, list_bits, nonzero_bits
from spikeserve.training.fit.operators.threads import Kernel


@intrinsic
def count_bits(_: Any, bits: Any) -> Any:
    """Return how many of the LANES lowest bits are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.ctpop(builder.and_(arguments[0], ir.IntType(64)(2**LANES - 1)))

    return types.int64(bits), generate


@Kernel
def find_bits(
    raster: Array, units: int, vectors: int, fired: Array, others: Array, first: int, end: int, part: int
) -> None:  # fmt: skip
    """Set the bits `fired` (rows, vectors of LANES bits) where `raster` (rows, units) is not 0.

    others[part] becomes whether anything is neither 0 nor 1.
    """
    other = np.uint64(0)
    for row in range(first, end):
        for vector in range(vectors):
            start = row * units + vector * LANES
            bits = np.uint64(0)
            if (vector + 1) * LANES <= units:
                bits = nonzero_bits(raster, start)
                other |= bits >> np.uint64(LANES)
            else:
                for lane in range(units - vector * LANES):
                    value = raster[start + lane]
                    bits |= np.uint64(value != 0.0) << np.uint64(lane)
                    other |= np.uint64(value != 0.0 and value != 1.0)
            fired[row * vectors + vector] = bits
    others[part] = other != 0


@Kernel
def count_rows(fired: Array, vectors: int, offset: Array, first: int, end: int, _: int) -> None:
    """Write to offset[row + 1] how many bits of a row are set."""
    for row in range(first, end):
        count = 0
        for word in fired[row * vectors : (row + 1) * vectors]:
            count += count_bits(np.uint64(word))
        offset[row + 1] = count


@Kernel
def list_rows(fired: Array, vectors: int, index: Array, offset: Array, first: int, end: int, _: int) -> None:
    """List the bits that are set in the rows `first` to `end`, from their offsets on."""
    last = np.empty((vectors + 1) * LANES, np.int32)
    for row in range(first, end):
        # Whole vectors are written, but not over the next thread's part of the list.
        apart = offset[row + 1] + LANES > offset[end]
        target, begin = (last, 0) if apart else (index, offset[row])
        count = begin
        for vector in range(vectors):
            bits = fired[row * vectors + vector]
            count = list_bits(target, count, vector * LANES, np.uint64(bits))
        if apart:
            index[offset[row] : offset[row + 1]] = last[:count]


@Kernel
def read_values(
    raster: Array, units: int, index: Array, value: Array, offset: Array, first: int, end: int, _: int
) -> None:  # fmt: skip
    """Write what stands in the raster (rows, units) where it is not 0."""
    for row in range(first, end):
        for k in range(offset[row], offset[row + 1]):
            value[k] = raster[row * units + index[k]]


@Kernel
def fill_rows(index: Array, value: Array, offset: Array, size: int, dense: Array, first: int, end: int, _: int) -> None:
    """Write the events of rows `first` to `end` into `dense` (rows, size)."""
    for row in range(first, end):
        dense[row * size : (row + 1) * size] = 0.0
        for k in range(offset[row], offset[row + 1]):
            dense[row * size + index[k]] = value[k] if value.size else 1.0


@Kernel
def count_units(index: Array, offset: Array, units: int, counts: Array, first: int, end: int, part: int) -> None:
    """Count in how many of the rows `first` to `end` each unit is not 0, into counts[part] (parts, units)."""
    mine = counts[part * units : (part + 1) * units]
    mine[:] = 0
    for k in range(offset[first], offset[end]):
        mine[index[k]] += 1


@Kernel
def place_units(counts: Array, units: int, offset: Array, _: int, __: int, ___: int) -> None:
    """Turn counts (parts, units) into where each part lists each unit, and write where units begin (units + 1)."""
    place = 0
    for unit in range(units):
        offset[unit] = place
        for at in range(unit, counts.size, units):
            count = counts[at]
            counts[at] = place
            place += count
    offset[units] = place


@Kernel
def list_units(
    index: Array, value: Array, offset: Array, units: int, place: Array, by_unit: Array, unit_value: Array, first: int,
    end: int, part: int,
) -> None:  # fmt: skip
    """List the rows `first` to `end` of each unit, ascending, from place[part] (parts, units) on."""
    mine = place[part * units : (part + 1) * units]
    for row in range(first, end):
        for k in range(offset[row], offset[row + 1]):
            unit = index[k]
            by_unit[mine[unit]] = row
            if value.size:
                unit_value[mine[unit]] = value[k]
            mine[unit] += 1
