"""Sums of narrow weights: rows of bytes are added as bytes, and widened late.

Weights of few bits (`models.spec.narrow`) are stored as bytes: a quarter of what a sum reads, and four times as many to
a register. A register holds the weights of one input to BYTES outputs; output 16 * b + k of them has byte 4 * k + b, so
that the bytes b of its 32-bit parts are neighbouring outputs. If no weight is over 127 / group, `group` rows are added
as bytes. Then the register counts as 16-bit parts, and their upper bytes are the odd ones:

    total += register;  odd += register >> 8

The even bytes' sum is what is left, total - 256 * odd, if none of them is negative: so they are stored with 128 / group
more, which is taken away at the end. FLUSH groups fit 16 bits. In 32 bits a sum is shifted by what its output's
exponent is above that of the grid, and added to the bias, as other sums of integers are (`models.spec.sums`).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from spikeserve.models.engines.event.connections import AT_ONCE, GATHER, NARROW, NOTHING, Feed, Ints, as_integers
from spikeserve.models.engines.event.layouts import Layout, aligned, padded
from spikeserve.models.engines.event.native import Native, native
from spikeserve.models.engines.event.vectors import BYTE_PANEL, BYTES, LANES, WIDE, Code
from spikeserve.models.spec.narrow import Narrow, narrow_of
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.sums import Sum, Summation, lowest_bit

MOST_COUNTED = 4.0  # the largest input of such a sum: so many rows of bytes take as long as one of floats
GROUPS = (16, 8, 4, 2, 1)  # rows that may be added as bytes
FLUSH = 256  # groups whose sums, of at most 127 each, fit 16 bits
SIZES = (4, 3, 2, 1) if WIDE else (1,)  # registers of bytes whose sums are held at once
MOST_SHIFT = 30  # of weights that are all 0, whose exponent means nothing
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F64, _FLOATS, _PLACES = ir.DoubleType(), ir.FloatType().as_pointer(), ir.IntType(32).as_pointer()
_BYTES, _SHORTS = ir.VectorType(_I8, BYTES), ir.VectorType(_I16, BYTES // 2)
_INTEGERS, _DOUBLES = ir.VectorType(_I32, LANES), ir.VectorType(_F64, LANES)


class ByteSum(NamedTuple):
    """A sum for the function at the address `adder`: panels of `weight`, and `base` (rows + 1, size) with room behind.

    The rows are biases, as multiples of `grid`; the last one has by how many bits each output's weights are shifted.
    """

    weight: FloatArray
    base: FloatArray
    grid: float
    adder: int

    def feed(self, fan_in: int) -> Feed:
        """Return the feed of a Linear with so many inputs."""
        outputs = self.weight.nbytes / fan_in
        return NOTHING._replace(
            kind=GATHER,
            weight=self.weight,
            fan_in=fan_in,
            fan_out=outputs / 4,  # as four bytes are added in the time of a float
            step=BYTE_PANEL,
            summed=NARROW,
            grid=self.grid,
            most=MOST_COUNTED,
            adder=self.adder,
        )


def byte_sum(
    rule: Sum, weight: FloatArray, biases: FloatArray, senders: Ints, units: int, layout: Layout
) -> ByteSum | None:
    """Return the sum of `weight` (outputs, inputs) and `biases` (rows, size) if it can be added up as bytes.

    Its inputs are spikes, or a few at once, at the places `senders` of a row of `units`; its outputs have a layout.
    """
    narrow = None
    if rule.by is not Summation.FLOAT64 and rule.arriving.step >= 1.0 and rule.arriving.bound <= MOST_COUNTED:
        narrow = _narrow(weight)
    if narrow is None:
        return None
    largest = int(np.abs(narrow.values.astype(np.int16)).max(initial=1))
    group = next(group for group in GROUPS if group * largest <= 127)
    rows = np.zeros((units, padded(layout.size, BYTES)), np.int8)
    rows[np.ix_(senders, layout.places)] = narrow.values.T
    grid = rule.grid or min(lowest_bit(weight), lowest_bit(biases))
    grid = grid if np.isfinite(grid) else 1.0
    base = aligned((biases.size + rows.shape[1],))
    base[: biases.size] = biases.reshape(-1)
    as_integers(base[: biases.size], grid)
    shifts = np.clip(narrow.exponents - (np.frexp(grid)[1] - 1), 0, MOST_SHIFT)
    base.view(np.int32)[biases.size + layout.places] = shifts
    return ByteSum(byte_panels(rows, group), base, grid, adder_of(group).address)


def _narrow(weight: FloatArray) -> Narrow | None:
    """Return weights as narrow ones, worked out piece by piece."""
    at_once = max(1, AT_ONCE // max(1, weight[0].size))
    pieces = list[Narrow]()
    for first in range(0, len(weight), at_once):
        piece = narrow_of(weight[first : first + at_once])
        if piece is None:
            return None
        pieces.append(piece)
    values, exponents = ([getattr(piece, name) for piece in pieces] for name in ("values", "exponents"))
    return Narrow(np.concatenate(values), np.concatenate(exponents))


def byte_panels(rows: Any, group: int) -> FloatArray:
    """Return weights (units, whole registers) as panels of registers of bytes, in the bits of an array."""
    units, size = rows.shape
    held = aligned((rows.size // 4,))
    for j in range(0, size, BYTE_PANEL):
        registers = rows[:, j : j + BYTE_PANEL].reshape(units, -1, 4, LANES).swapaxes(2, 3).copy()
        registers.view(np.uint8)[..., ::2] += np.uint8(128 // group)
        held.view(np.int8)[units * j :][: registers.size] = registers.ravel()
    return held


@cache
def adder_of(group: int) -> Native:
    """Make the function that adds up narrow weights, of which `group` rows are added as bytes.

    (sums, base, shifts, weight, width, index, value, k0, k1, grid): sums[:width] = (base + the sum of the events k0 to
    k1, shifted) * grid, of a panel of weights. An event counts as often as its value says, or once if that is null.
    """
    arguments = [*[_FLOATS] * 4, _I64, _PLACES, _FLOATS, _I64, _I64, ir.FloatType()]
    return native(("narrow", group), arguments, partial(_write_adder, group))


def _write_adder(group: int, builder: Any, arguments: Any) -> None:
    value = arguments[6]
    with builder.if_else(builder.icmp_unsigned("==", value, ir.Constant(_FLOATS, None))) as (spikes, values):
        with spikes:
            _Adder(builder, arguments, group).add_spikes()
        with values:
            _Adder(builder, arguments, group).add_values()
    builder.ret(_I64(0))


class _Adder:
    """The code of one function of `adder_of`."""

    def __init__(self, builder: Any, arguments: Any, group: int) -> None:
        self.builder, self.group, self.code = builder, group, Code(None, builder)
        self.sums, self.base, self.shifts, weight, self.width, *others = arguments
        self.index, self.value, self.k0, self.k1, self.grid = others
        self.weight = builder.bitcast(weight, _I8.as_pointer())
        self.base, self.shifts = (builder.bitcast(each, _PLACES) for each in (self.base, self.shifts))
        self.pitch = builder.and_(builder.add(self.width, _I64(BYTES - 1)), _I64(-BYTES))

    def add_spikes(self) -> None:
        """Write the sums of events that are all spikes."""
        self.code.parts(self.width, SIZES, self._add_spikes, BYTES)

    def _add_spikes(self, place: Any, registers: int) -> None:
        builder, most = self.builder, self.group * FLUSH
        count = builder.sub(self.k1, self.k0)
        shifts = self._integers(self.shifts, place, registers)

        def flush(number: Any, totals: list[Any]) -> list[Any]:
            first = builder.add(self.k0, builder.mul(number, _I64(most)))
            left = builder.sub(self.k1, first)
            added = builder.select(builder.icmp_signed("<", left, _I64(most)), left, _I64(most))
            found = self._sums_of(place, registers, first, added)
            shifted = [builder.shl(each, by) for each, by in zip(found, shifts, strict=True)]
            return [builder.add(total, each) for total, each in zip(totals, shifted, strict=True)]

        flushes = builder.sdiv(builder.add(count, _I64(most - 1)), _I64(most))
        totals = self.code.loop(_I64(0), flushes, self._integers(self.base, place, registers), flush)
        self._store(place, [self.code.in_floats(total, self.grid) for total in totals])

    def _sums_of(self, place: Any, registers: int, first: Any, count: Any) -> list[Any]:
        """Return the sums of a few groups of events, in 32 bits and the order of the outputs."""
        builder, group = self.builder, self.group
        groups = builder.udiv(count, _I64(group))
        whole = builder.add(first, builder.mul(groups, _I64(group)))

        def widen(held: list[Any], added: list[Any]) -> list[Any]:
            shorts = [builder.bitcast(each, _SHORTS) for each in added]
            odd = [builder.ashr(each, ir.Constant(_SHORTS, [8] * _SHORTS.count)) for each in shorts]
            return [builder.add(total, each) for total, each in zip(held, shorts + odd, strict=True)]

        def add_rows(held: list[Any], k: Any, rows: int) -> list[Any]:
            added = self._row(place, registers, k)
            for row in range(1, rows):
                following = self._row(place, registers, builder.add(k, _I64(row)))
                added = [builder.add(each, other) for each, other in zip(added, following, strict=True)]
            return widen(held, added)

        def add_group(number: Any, held: list[Any]) -> list[Any]:
            return add_rows(held, builder.add(first, builder.mul(number, _I64(group))), group)

        def add_row(k: Any, added: list[Any]) -> list[Any]:
            return [builder.add(each, other) for each, other in zip(added, self._row(place, registers, k), strict=True)]

        held = self.code.loop(_I64(0), groups, [ir.Constant(_SHORTS, [0] * _SHORTS.count)] * 2 * registers, add_group)
        if group > 1:
            none = [ir.Constant(_BYTES, [0] * BYTES)] * registers
            held = widen(held, self.code.loop(whole, builder.add(first, count), none, add_row))
        more = self.code.of(_SHORTS).splat(builder.trunc(builder.mul(count, _I64(128 // group)), _I16))
        found = []
        for total, odd in zip(held[:registers], held[registers:], strict=True):
            upper = builder.shl(odd, ir.Constant(_SHORTS, [8] * _SHORTS.count))
            parts = [builder.bitcast(each, _INTEGERS) for each in (builder.sub(builder.sub(total, upper), more), odd)]
            half = ir.Constant(_INTEGERS, [16] * LANES)
            found += [builder.ashr(builder.shl(each, half), half) for each in parts]
            found += [builder.ashr(each, half) for each in parts]
        return found

    def add_values(self) -> None:
        """Write the sums of events with values, added up in float64."""
        self.code.parts(self.width, (1,), self._add_values, BYTES)

    def _add_values(self, place: Any, registers: int) -> None:
        builder, code = self.builder, self.code
        shifts = self._integers(self.shifts, place, registers)

        def add(k: Any, totals: list[Any]) -> list[Any]:
            (row,) = self._row(place, registers, k)
            parts, factor = builder.bitcast(row, _INTEGERS), builder.load(builder.gep(self.value, [k]))
            factor, after = code.splat(builder.fpext(factor, _F64), _DOUBLES), []
            for b, (total, by) in enumerate(zip(totals, shifts, strict=True)):
                shifted = builder.shl(parts, _constant(24 - 8 * b))
                if b % 2:
                    weights = builder.ashr(shifted, _constant(24))
                else:
                    weights = builder.sub(builder.lshr(shifted, _constant(24)), _constant(128 // self.group))
                terms = builder.sitofp(builder.shl(weights, by), _DOUBLES)
                after.append(builder.fadd(total, builder.fmul(terms, factor)))
            return after

        start = [builder.sitofp(each, _DOUBLES) for each in self._integers(self.base, place, registers)]
        grid = code.splat(builder.fpext(self.grid, _F64), _DOUBLES)
        totals = [builder.fmul(total, grid) for total in code.loop(self.k0, self.k1, start, add)]
        self._store(place, [builder.fptrunc(total, code.vector) for total in totals])

    def _row(self, place: Any, registers: int, k: Any) -> list[Any]:
        """Load the registers of the event k."""
        builder = self.builder
        unit = builder.sext(builder.load(builder.gep(self.index, [k])), _I64)
        at = builder.add(builder.mul(unit, self.pitch), place)
        return [self.code.of(_BYTES).load(self.weight, at, register) for register in range(registers)]

    def _integers(self, array: Any, place: Any, registers: int) -> list[Any]:
        return [self.code.of(_INTEGERS).load(array, place, vector) for vector in range(4 * registers)]

    def _store(self, place: Any, vectors: list[Any]) -> None:
        """Write vectors of floats; the last register's end may lie behind the width."""
        builder = self.builder
        for number, vector in enumerate(vectors):
            if number <= len(vectors) - 4:
                self.code.store(vector, self.sums, place, number)
                continue
            reaches = builder.icmp_signed("<", builder.add(place, _I64(number * LANES)), self.width)
            with builder.if_then(reaches):
                self.code.store(vector, self.sums, place, number)


def _constant(number: int) -> Any:
    return ir.Constant(_INTEGERS, [number] * LANES)
