"""The kernels of a Linear's products that follow spikes, which are listed as `listing` has them, and packed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from spikeserve.models.engines.event.compiled import borrowing, inner
from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.currents import ONE, Array, aligned_floats
from spikeserve.models.engines.event.vectors import (
    FLOAT_ROWS,
    LANES,
    TILE_VECTORS,
    Code,
    add_block,
    gather_spikes,
    gather_values,
    intrinsic,
    multiply_floats_column,
    multiply_floats_tile,
)
from spikeserve.training.fit.operators.threads import Kernel

ROWS = 2048  # of errors that are added up at once: as a panel they fill half of an L2 cache


@borrowing
def gather(
    sums: Array, s: int, base: Array, b: int, weight: Array, w: int, width: int, unit: int, index: Array, value: Array,
    k0: int, k1: int,
) -> None:  # fmt: skip
    """Write base[b:] plus the weights of the events k0 to k1 into sums[s:], `width` of each.

    Those of an event lie at w + index * unit.
    """
    if value.size:
        gather_values(sums, s, base, b, weight, w, width, unit, index, value, k0, k1, ONE)
    else:
        gather_spikes(sums, s, base, b, weight, w, width, unit, index, value, k0, k1, ONE)


@Kernel
def pack(
    weight: Array, outputs: int, units: int, width: int, panel: int, panels: Array, first: int, end: int, _: int
) -> None:  # fmt: skip
    """Transpose a weight (outputs, units) into panels of `panel` outputs, a multiple of PANEL or the width.

    A panel has a row for each unit; outputs from `outputs` to `width` are 0. An item is PANEL outputs.
    """
    for item in range(first, end):
        column = item * PANEL
        beside = column % panel
        stride = min(panel, width - column + beside)
        start = units * (column - beside) + beside
        pack_columns(weight, outputs, units, column, min(PANEL, width - column), panels, start, stride)


@inner
def pack_columns(
    weight: Array, outputs: int, units: int, column: int, across: int, panels: Array, start: int, stride: int
) -> None:  # fmt: skip
    """Write the columns from `column` of a transposed weight (outputs, units) to panels[start:], `stride` a row."""
    present = min(across, outputs - column)
    transpose(panels, start, stride, weight, column * units, units, present, units, False, False)
    if present < across:
        for unit in range(units):
            panels[start + unit * stride + present : start + unit * stride + across] = 0.0


@Kernel
def pack_rows(
    weight: Array, outputs: int, units: int, rows: int, width: int, panels: Array, first: int, end: int, _: int
) -> None:  # fmt: skip
    """Copy a weight (outputs, units) into panels of PANEL units, those numbered `first` to `end`.

    A panel has a row for each output. Outputs from `outputs` to `rows` and units from `units` to `width` are 0.
    """
    for panel in range(first, end):
        column = panel * PANEL
        across = min(PANEL, width - column)
        start = rows * column
        present = min(across, units - column)
        panels[start + outputs * across : start + rows * across] = 0.0
        for output in range(outputs):
            for j in range(present):
                panels[start + output * across + j] = weight[output * units + column + j]
            for j in range(present, across):
                panels[start + output * across + j] = 0.0


@inner
def multiply_rows(
    sums: Array, rows: Array, start: int, stride: int, count: int, units: int, panels: Array, zeros: Array, column: int,
    end: int,
) -> None:  # fmt: skip
    """Write `count` rows of `units` floats, rows[start + r * stride:], times panels (units, …) to sums.

    These are the sums of the columns `column` to `end` only, row after row; `column` is that of a panel. Both arrays
    have room for FLOAT_ROWS more rows, to which anything may be written.
    """
    for j in range(column, end, PANEL):
        across = min(PANEL, end - j)
        for r in range(0, count, FLOAT_ROWS):
            s = r * (end - column) + j - column
            multiply_block(
                sums, s, end - column, rows, start + r * stride, stride, units, panels, units * j, across, zeros
            )


@inner
def multiply_block(
    sums: Array, s: int, stride: int, rows: Array, x: int, x_stride: int, units: int, panels: Array, w: int,
    across: int, zeros: Array,
) -> None:  # fmt: skip
    """Write FLOAT_ROWS rows of `units` floats from rows[x:] times the panel panels[w:] to sums[s:]."""
    j = 0
    while j < across:
        if j + TILE_VECTORS * LANES <= across:
            multiply_floats_tile(sums, s + j, stride, rows, x, x_stride, units, zeros, 0, panels, w + j, across, ONE)
            j += TILE_VECTORS * LANES
        else:
            multiply_floats_column(sums, s + j, stride, rows, x, x_stride, units, zeros, 0, panels, w + j, across, ONE)
            j += LANES


@Kernel
def run_linear(
    index: Array, value: Array, offset: Array, rows: int, panels: Array, units: int, width: int, bias: Array,
    currents: Array, ranges: int, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Write bias (width,) plus the weights of the events of each row into currents (rows, width).

    An item is a panel of outputs and one of `ranges` ranges of rows.
    """
    for item in range(first, end):
        column = item // ranges * PANEL
        across = min(PANEL, width - column)
        for row in range(item % ranges * rows // ranges, (item % ranges + 1) * rows // ranges):
            gather(
                currents, row * width + column, bias, column, panels, units * column, across, across, index, value,
                offset[row], offset[row + 1],
            )  # fmt: skip


@Kernel
def weight_gradient(
    errors: Array, rows: int, width: int, outputs: int, units: int, by_unit: Array, unit_value: Array,
    unit_offset: Array, gradient: Array, sums: Array, ranges: int, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Add up the rows of errors (rows, width) in which each unit spikes: the gradient (outputs, units) of a weight.

    An item is a panel of PANEL outputs and one of `ranges` ranges of units. The sums of all rows go to `sums` (width,).
    Rows are taken in blocks that, as a panel, stay in the cache. Events of later rows than there are count for nothing.
    """
    packed = aligned_floats(ROWS * PANEL if width > PANEL else LANES)
    most = -(-units // ranges)
    totals = aligned_floats((most + 1) * PANEL)
    place = np.empty(most + 1, np.int64)
    for item in range(first, end):
        column = item // ranges * PANEL
        across = min(PANEL, width - column)
        start, stop = item % ranges * units // ranges, (item % ranges + 1) * units // ranges
        totals[:] = 0.0
        place[: stop - start] = unit_offset[start:stop]
        total, some = np.zeros(PANEL, np.float32), np.zeros(PANEL, np.float32)
        for block in range(0, rows, ROWS):
            last = min(block + ROWS, rows)
            source, behind = errors, 0
            if width > PANEL:
                source, behind = packed, block * across
                for row in range(block, last):
                    # A sum of no events: vector by vector, which beats a call of memcpy for each row.
                    gather(
                        packed, (row - block) * across, errors, row * width + column, errors, 0, across, across,
                        by_unit, unit_value, 0, 0,
                    )  # fmt: skip
            if item % ranges == 0:
                here = block * across - behind
                add_block(some, 0, source, here, last - block, across // LANES, 0, across, ONE, False)
                for j in range(across):
                    total[j] += some[j]
                    some[j] = 0.0
            for unit in range(start, stop):
                k0, u = place[unit - start], (unit - start) * across
                k1 = k0 + np.searchsorted(by_unit[k0 : unit_offset[unit + 1]], last)
                if k0 < k1:
                    gather(totals, u, totals, u, source, -behind, across, across, by_unit, unit_value, k0, k1)
                    place[unit - start] = k1
        if item % ranges == 0:
            sums[column : column + across] = total[:across]
        present = min(across, outputs - column)
        transpose(gradient, column * units + start, units, totals, 0, across, stop - start, present, False, False)


_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def transpose_block(
    _: Any, there: Any, t: Any, t_stride: Any, here: Any, h: Any, h_stride: Any, rows: Any, columns: Any
) -> Any:  # fmt: skip
    """Write there[t + i * t_stride + j] = here[h + j * h_stride + i] for i and j below LANES.

    (there, t, t_stride, here, h, h_stride, rows, columns): only `rows` rows are read and `columns` written; what is
    written of rows that are not read means nothing. Rows exchange halves, then quarters, and so on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, t, t_stride, _, h, h_stride, present, columns = arguments
        there, here = code.pointer(0), code.pointer(3)
        rows = []
        for row in range(LANES):
            number = builder.select(builder.icmp_signed(">", present, _I64(row)), _I64(row), _I64(0))
            rows.append(code.load(here, builder.add(h, builder.mul(h_stride, number))))
        mask = ir.VectorType(_I32, LANES)
        distance = LANES // 2
        while distance:
            low = [lane if not lane & distance else LANES + lane - distance for lane in range(LANES)]
            high = [lane + distance if not lane & distance else LANES + lane for lane in range(LANES)]
            for row in range(LANES):
                if not row & distance:
                    pair = rows[row], rows[row + distance]
                    rows[row] = builder.shuffle_vector(*pair, ir.Constant(mask, low))
                    rows[row + distance] = builder.shuffle_vector(*pair, ir.Constant(mask, high))
            distance //= 2
        for row, vector in enumerate(rows):
            with builder.if_then(builder.icmp_signed(">", columns, _I64(row))):
                code.store(vector, there, builder.add(t, builder.mul(t_stride, _I64(row))))
        return context.get_dummy_value()

    return types.void(there, t, t_stride, here, h, h_stride, rows, columns), generate


@inner
def transpose(
    there: Array, t: int, t_stride: int, here: Array, h: int, h_stride: int, rows: int, columns: int, room_here: bool,
    room_there: bool,
) -> None:  # fmt: skip
    """Write there[t + i * t_stride + j] = here[h + j * h_stride + i] for i < columns and j < rows.

    Where there is `room_here`, the rows of `here` may be read behind their columns, by a vector; where there is
    `room_there`, those of `there` be filled up to their stride.
    """
    for j in range(0, rows, LANES):
        for i in range(0, columns, LANES):
            down, across = min(LANES, rows - j), min(LANES, columns - i)
            whole = down == LANES or (room_there and j + LANES <= t_stride)
            if whole and (across == LANES or room_here):
                transpose_block(
                    there, t + i * t_stride + j, t_stride, here, h + j * h_stride + i, h_stride, down, across
                )
            else:
                for row in range(j, j + down):
                    for column in range(i, i + across):
                        there[t + column * t_stride + row] = here[h + row * h_stride + column]
