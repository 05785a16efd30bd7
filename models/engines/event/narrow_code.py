"""The functions that add up narrow weights, as LLVM makes them when a network is read; `narrow` has their tables.

A register holds the weights of one input to BYTES outputs; output 16 * b + k of them has byte 4 * k + b, so that the
bytes b of its 32-bit parts are neighbouring outputs. If no weight is over 127 / group, `group` rows are added as bytes.
Then the register counts as 16-bit parts, and their upper bytes are the odd ones:

    total += register;  odd += register >> 8

The even bytes' sum is what is left, total - 256 * odd, if none of them is negative: so they are stored with 128 / group
more, which is taken away at the end. FLUSH groups fit 16 bits. In 32 bits a sum is shifted by what its output's
exponent is above that of the grid, and added to the bias, as other sums of integers are (`models.spec.sums`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from spikeserve.models.engines.event.native import Native, native
from spikeserve.models.engines.event.vectors import BYTES, FLOAT_BYTES, LANES, Code
from spikeserve.models.engines.processor import WIDE

FLUSH = 256  # groups whose sums, of at most 127 each, fit 16 bits
SIZES = (4, 3, 2, 1) if WIDE else (1,)  # registers of bytes whose sums are held at once
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32, _F64, _PLACES = ir.FloatType(), ir.DoubleType(), ir.IntType(32).as_pointer()
_FLOATS = _F32.as_pointer()
_BYTES, _SHORTS = ir.VectorType(_I8, BYTES), ir.VectorType(_I16, BYTES // 2)
_INTEGERS, _DOUBLES = ir.VectorType(_I32, LANES), ir.VectorType(_F64, LANES)


@dataclass(frozen=True)
class Convolution:
    """A convolution of `image` (height, width) and `channels` to `lines` of outputs, of so many `columns` each.

    A kernel of `extent` moves by `stride` over the image with so much padding `before` it. A register row has the
    outputs of `tile` neighbouring columns, `depth` places each, and reads `span` columns of the image.
    """

    image: tuple[int, int]
    channels: int
    lines: int
    columns: int
    depth: int
    extent: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    tile: int

    @property
    def span(self) -> int:
        """How many columns of the image a tile reads."""
        return (self.tile - 1) * self.stride[1] + self.extent[1]

    @property
    def positions(self) -> int:
        """How many positions the image has."""
        return math.prod(self.image)

    @property
    def registers(self) -> int:
        """How many registers a tile's weights of one input fill."""
        return -(-self.tile * self.depth // BYTES)


@cache
def gathering(group: int) -> Native:
    """Make the function that adds up the rows of a panel, of which `group` are added as bytes.

    (sums, base, shifts, weight, width, index, value, k0, k1, grid): sums[:width] = (base + the sum of the events k0 to
    k1, shifted) * grid. An event counts as often as its value says, or once if that is null.
    """
    arguments = [*[_FLOATS] * 4, _I64, _PLACES, _FLOATS, _I64, _I64, _F32]
    return native(("gathering", group), arguments, partial(_write_gathering, group))


def convolving(group: int, shape: Convolution) -> Native:
    """Make the function that adds up a convolution.

    (sums, base, shifts, weight, index, value, first_event, count, room, grid): the outputs go to sums, one line after
    the other. There are `count` events, in any order; for `room` see `currents.ROOM`.
    """
    arguments = [*[_FLOATS] * 4, _PLACES, _FLOATS, _I64, _I64, _FLOATS, _F32]
    return native((group, shape), arguments, partial(_write_convolving, group, shape))


def _write_gathering(group: int, builder: Any, arguments: Any) -> None:
    sums, base, shifts, weight, width, index, value, k0, k1, grid = arguments
    pitch = builder.and_(builder.add(width, _I64(BYTES - 1)), _I64(-BYTES))
    adder = _Adder(builder, group, (sums, base, shifts, index, value, grid), pitch)
    weight, count = builder.bitcast(weight, _I8.as_pointer()), builder.sub(k1, k0)

    def add_spikes(place: Any, registers: int) -> None:
        totals = adder.flushed(adder.base_at(place, registers), builder.gep(weight, [place]), place, k0, count)
        adder.store(place, adder.in_floats(totals), width)

    def add_values(place: Any, registers: int) -> None:
        totals = adder.valued(adder.start_at(place, registers), builder.gep(weight, [place]), place, k0, k1)
        adder.store(place, adder.from_doubles(totals), width)

    with builder.if_else(adder.all_are_spikes()) as (spikes, values):
        with spikes:
            adder.code.parts(width, SIZES, add_spikes, BYTES)
        with values:
            adder.code.parts(width, (1,), add_values, BYTES)
    builder.ret(_I64(0))


def _write_convolving(group: int, shape: Convolution, builder: Any, arguments: Any) -> None:
    sums, base, shifts, weight, index, value, first_event, count, room, grid = arguments
    adder = _Adder(builder, group, (sums, base, shifts, index, value, grid), _I64(shape.registers * BYTES))
    weight, none, code = builder.bitcast(weight, _I8.as_pointer()), _I64(0), adder.code
    index, row = builder.gep(index, [first_event]), shape.columns * shape.depth
    starts = builder.bitcast(room, _PLACES)
    places = builder.gep(starts, [_I64(shape.positions + 1 + LANES)])
    taken = builder.gep(places, [builder.add(count, _I64(LANES))])
    values = builder.bitcast(builder.gep(taken, [builder.add(count, _I64(2 * LANES))]), _FLOATS)
    taken_values = builder.gep(values, [builder.add(count, _I64(LANES))])

    def least(first: Any, other: Any) -> Any:
        return builder.select(builder.icmp_signed("<", first, other), first, other)

    def most(first: Any, other: Any) -> Any:
        return builder.select(builder.icmp_signed(">", first, other), first, other)

    def taken_by(line: Any, column: Any, valued: bool) -> Any:
        """List the rows of weights that a tile's events meet, and their values, and return how many there are."""
        top = builder.sub(builder.mul(line, _I64(shape.stride[0])), _I64(shape.before[0]))
        left = builder.sub(builder.mul(column, _I64(shape.stride[1])), _I64(shape.before[1]))
        begin = least(most(left, none), _I64(shape.image[1]))
        over = most(least(builder.add(left, _I64(shape.span)), _I64(shape.image[1])), begin)

        def take_line(down: Any, count: list[Any]) -> list[Any]:
            at = builder.mul(builder.add(top, down), _I64(shape.image[1]))
            k0, k1 = (_load(builder, starts, builder.add(at, x)) for x in (begin, over))
            rows = builder.sub(builder.mul(down, _I64(shape.span)), builder.add(at, left))
            rows = builder.trunc(builder.mul(rows, _I64(shape.channels)), _I32)
            integers, more = code.of(_INTEGERS), builder.sub(k1, k0)
            shift = integers.splat(rows)

            def take(vector: Any, _: list[Any]) -> list[Any]:
                here = builder.mul(vector, _I64(LANES))
                source, to = builder.add(k0, here), builder.add(count[0], here)
                integers.store(builder.add(integers.load(places, source), shift), taken, to)
                if valued:
                    code.store(code.load(values, source), taken_values, to)
                return []

            # One vector always, without a branch that no processor could foresee; its end is overwritten.
            code.loop(none, most(builder.sdiv(builder.add(more, _I64(LANES - 1)), _I64(LANES)), _I64(1)), [], take)
            return [builder.add(count[0], more)]

        ends = least(_I64(shape.extent[0]), builder.sub(_I64(shape.image[0]), top))
        return code.loop(most(none, builder.neg(top)), ends, [none], take_line)[0]

    def write(valued: bool) -> None:
        list_positions(code, shape, starts, index, builder.gep(value, [first_event]), count, places, values, valued)
        adder.index, adder.value = taken, taken_values

        def write_tile(line: Any, tile: Any) -> list[Any]:
            column = least(builder.mul(tile, _I64(shape.tile)), _I64(shape.columns - shape.tile))
            at, events = (
                builder.add(builder.mul(line, _I64(row)), builder.mul(column, _I64(shape.depth))),
                taken_by(line, column, valued),
            )
            totals_of_tile, at_once = list[Any](), shape.registers if WIDE and not valued else 1
            for place in (_I64(register * BYTES) for register in range(0, shape.registers, at_once)):
                here = builder.gep(weight, [place])
                if valued:
                    totals = adder.valued(adder.start_at(place, 1), here, place, none, events)
                    totals_of_tile += adder.from_doubles(totals)
                else:
                    totals = adder.flushed(adder.base_at(place, at_once), here, place, none, events)
                    totals_of_tile += adder.in_floats(totals)
            for number, vector in enumerate(totals_of_tile[: -(-shape.tile * shape.depth // LANES)]):
                code.store(vector, sums, at, number)
            return []

        def write_line(line: Any, _: list[Any]) -> list[Any]:
            code.loop(none, _I64(-(-shape.columns // shape.tile)), [], lambda tile, _: write_tile(line, tile))
            return []

        code.loop(none, _I64(shape.lines), [], write_line)

    with builder.if_else(adder.all_are_spikes()) as (spikes, otherwise):
        with spikes:
            write(valued=False)
        with otherwise:
            write(valued=True)
    if shape.lines * row % LANES:  # the row's padding
        rest = ir.Constant(ir.VectorType(_F32, LANES // 2), [0.0] * (LANES // 2))
        code.store(rest, sums, _I64(shape.lines * row))
    builder.ret(none)


def list_positions(
    code: Code, shape: Convolution, starts: Any, index: Any, value: Any, count: Any, places: Any, values: Any,
    valued: bool,
) -> None:  # fmt: skip
    """Write which is the first event at each position, and the events in the order of their positions."""
    builder, none, one = code.builder, _I64(0), _I64(1)

    def position_of(k: Any) -> Any:
        return builder.udiv(_load(builder, index, k), _I64(shape.channels))

    def put(at: Any, number: Any) -> None:
        builder.store(builder.trunc(number, _I32), builder.gep(starts, [at]))

    def clear(vector: Any, _: list[Any]) -> list[Any]:
        code.store(_constant(0, _INTEGERS), starts, builder.mul(vector, _I64(LANES)))
        return []

    def count_event(k: Any, counts: list[Any]) -> list[Any]:
        before, ordered = counts
        position = position_of(k)
        behind = builder.add(position, one)
        put(behind, builder.add(_load(builder, starts, behind), one))
        return [position, builder.and_(ordered, builder.icmp_signed(">=", position, before))]

    def add_up(position: Any, totals: list[Any]) -> list[Any]:
        total = builder.add(totals[0], _load(builder, starts, position))
        put(position, total)
        return [total]

    code.loop(none, _I64(-(-(shape.positions + 1) // LANES)), [], clear)
    _, ordered = code.loop(none, count, [none, ir.IntType(1)(1)], count_event)
    code.loop(one, _I64(shape.positions + 1), [none], add_up)

    def place(k: Any, _: list[Any]) -> list[Any]:
        position = position_of(k)
        to = _load(builder, starts, position)
        builder.store(builder.load(builder.gep(index, [k])), builder.gep(places, [to]))
        if valued:
            builder.store(builder.load(builder.gep(value, [k])), builder.gep(values, [to]))
        put(position, builder.add(to, one))
        return []

    def move_back(number: Any, _: list[Any]) -> list[Any]:  # as each start was moved to the next one's
        at = builder.sub(_I64(shape.positions), number)
        put(at, _load(builder, starts, builder.sub(at, one)))
        return []

    with builder.if_else(ordered) as (sorted_already, otherwise):
        with sorted_already:
            cgutils.raw_memcpy(builder, places, index, count, _I64(FLOAT_BYTES))
            if valued:
                cgutils.raw_memcpy(builder, values, value, count, _I64(FLOAT_BYTES))
        with otherwise:
            code.loop(none, count, [], place)
            code.loop(none, _I64(shape.positions), [], move_back)
            put(none, none)


def _load(builder: Any, array: Any, at: Any) -> Any:
    """Load an integer of 32 bits as one of 64."""
    return builder.sext(builder.load(builder.gep(array, [at])), _I64)


class _Adder:
    """The code that both kinds of functions are made of. Lists of vectors are those of one register after the other."""

    def __init__(self, builder: Any, group: int, arrays: tuple[Any, ...], pitch: Any) -> None:
        self.builder, self.group, self.code, self.pitch = builder, group, Code(None, builder), pitch
        self.sums, base, shifts, self.index, self.value, self.grid = arrays
        self.base, self.shifts = (builder.bitcast(each, _PLACES) for each in (base, shifts))

    def all_are_spikes(self) -> Any:
        """Return whether events have no values."""
        return self.builder.icmp_unsigned("==", self.value, ir.Constant(_FLOATS, None))

    def row(self, weight: Any, registers: int, k: Any) -> list[Any]:
        """Load the registers of the event k."""
        at = self.builder.mul(_load(self.builder, self.index, k), self.pitch)
        return [self.code.of(_BYTES).load(weight, at, register) for register in range(registers)]

    def zeros(self, registers: int) -> list[Any]:
        """Return sums in 16 bits before any event: the totals of all registers, and then their odd bytes."""
        return [_constant(0, _SHORTS)] * (2 * registers)

    def added(self, sums: list[Any], weight: Any, first: Any, count: Any) -> list[Any]:
        """Add so many events to sums in 16 bits."""
        builder, group, registers = self.builder, self.group, len(sums) // 2
        groups = builder.udiv(count, _I64(group))

        def widen(sums: list[Any], added: list[Any]) -> list[Any]:
            shorts = [builder.bitcast(each, _SHORTS) for each in added]
            odd = [builder.ashr(each, _constant(8, _SHORTS)) for each in shorts]
            return self.plus(sums, shorts + odd)

        def add_group(number: Any, sums: list[Any]) -> list[Any]:
            k = builder.add(first, builder.mul(number, _I64(group)))
            added = self.row(weight, registers, k)
            for row in range(1, group):
                added = self.plus(added, self.row(weight, registers, builder.add(k, _I64(row))))
            return widen(sums, added)

        sums = self.code.loop(_I64(0), groups, sums, add_group)
        if group > 1:
            rest, none = builder.add(first, builder.mul(groups, _I64(group))), [_constant(0, _BYTES)] * registers
            left = self.code.loop(
                rest,
                builder.add(first, count),
                none,
                lambda k, added: self.plus(added, self.row(weight, registers, k)),
            )
            sums = widen(sums, left)
        return sums

    def widened(self, sums: list[Any], count: Any) -> list[Any]:
        """Return sums in 16 bits, of so many events, in 32 bits and the order of the outputs."""
        builder, registers = self.builder, len(sums) // 2
        more = builder.trunc(builder.mul(count, _I64(128 // self.group)), _I16)
        widened, half = [], _constant(16, _INTEGERS)
        for total, odd in zip(sums[:registers], sums[registers:], strict=True):
            even = builder.sub(total, builder.shl(odd, _constant(8, _SHORTS)))
            even = builder.sub(even, self.code.of(_SHORTS).splat(more))
            parts = [builder.bitcast(each, _INTEGERS) for each in (even, odd)]
            widened += [builder.ashr(builder.shl(each, half), half) for each in parts]
            widened += [builder.ashr(each, half) for each in parts]
        return widened

    def flushed(self, totals: list[Any], weight: Any, place: Any, first: Any, count: Any) -> list[Any]:
        """Add any number of events to totals in 32 bits."""
        builder, most, registers = self.builder, self.group * FLUSH, len(totals) // 4

        def flush(number: Any, totals: list[Any]) -> list[Any]:
            done = builder.mul(number, _I64(most))
            left = builder.sub(count, done)
            added = builder.select(builder.icmp_signed("<", left, _I64(most)), left, _I64(most))
            sums = self.added(self.zeros(registers), weight, builder.add(first, done), added)
            return self.shifted(totals, self.widened(sums, added), place)

        flushes = builder.sdiv(builder.add(count, _I64(most - 1)), _I64(most))
        return self.code.loop(_I64(0), flushes, totals, flush)

    def shifted(self, totals: list[Any], sums: list[Any], place: Any) -> list[Any]:
        """Add sums to totals, shifted."""
        shifts = self.integers(self.shifts, place, len(sums))
        return self.plus(totals, [self.builder.shl(each, by) for each, by in zip(sums, shifts, strict=True)])

    def valued(self, totals: list[Any], weight: Any, place: Any, k0: Any, k1: Any) -> list[Any]:
        """Add the events k0 to k1 times their values to the totals of one register, in float64."""
        builder, shifts = self.builder, self.integers(self.shifts, place, 4)

        def add(k: Any, totals: list[Any]) -> list[Any]:
            (row,) = self.row(weight, 1, k)
            parts, factor = builder.bitcast(row, _INTEGERS), builder.load(builder.gep(self.value, [k]))
            factor, after = self.code.splat(builder.fpext(factor, _F64), _DOUBLES), []
            for b, (total, by) in enumerate(zip(totals, shifts, strict=True)):
                weights, upper = builder.shl(parts, _constant(24 - 8 * b, _INTEGERS)), _constant(24, _INTEGERS)
                if b % 2:
                    weights = builder.ashr(weights, upper)
                else:
                    weights = builder.sub(builder.lshr(weights, upper), _constant(128 // self.group, _INTEGERS))
                terms = builder.sitofp(builder.shl(weights, by), _DOUBLES)
                after.append(builder.fadd(total, builder.fmul(terms, factor)))
            return after

        return self.code.loop(k0, k1, totals, add)

    def plus(self, totals: list[Any], terms: list[Any]) -> list[Any]:
        """Return the sums of integers."""
        return [self.builder.add(total, term) for total, term in zip(totals, terms, strict=True)]

    def integers(self, array: Any, place: Any, vectors: int) -> list[Any]:
        """Load vectors of integers."""
        return [self.code.of(_INTEGERS).load(array, place, vector) for vector in range(vectors)]

    def base_at(self, place: Any, registers: int) -> list[Any]:
        """Load what sums begin with."""
        return self.integers(self.base, place, 4 * registers)

    def start_at(self, place: Any, registers: int) -> list[Any]:
        """Load what sums begin with, in float64."""
        return [self.builder.sitofp(each, _DOUBLES) for each in self.base_at(place, registers)]

    def in_floats(self, totals: list[Any]) -> list[Any]:
        """Return integers times the grid."""
        return [self.code.in_floats(total, self.grid) for total in totals]

    def from_doubles(self, totals: list[Any]) -> list[Any]:
        """Return numbers in float64 times the grid, rounded to float32."""
        grid = self.code.splat(self.builder.fpext(self.grid, _F64), _DOUBLES)
        return [self.builder.fptrunc(self.builder.fmul(total, grid), self.code.vector) for total in totals]

    def store(self, place: Any, vectors: list[Any], width: Any) -> None:
        """Write vectors of floats; the last register's end may lie behind the width."""
        builder = self.builder
        for number, vector in enumerate(vectors):
            if number <= len(vectors) - 4:
                self.code.store(vector, self.sums, place, number)
                continue
            with builder.if_then(builder.icmp_signed("<", builder.add(place, _I64(number * LANES)), width)):
                self.code.store(vector, self.sums, place, number)


def _constant(number: int, vector: Any) -> Any:
    return ir.Constant(vector, [number] * vector.count)
