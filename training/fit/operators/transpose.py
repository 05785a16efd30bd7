"""The transposition of blocks of floats in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from spikeserve.models.engines.event.compiled import inner
from spikeserve.models.engines.event.currents import Array
from spikeserve.models.engines.event.vectors import LANES, Code, intrinsic

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
