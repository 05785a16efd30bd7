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

from functools import cache, partial
from typing import Any

from llvmlite import ir

from spikeserve.models.engines.event.native import Native, native
from spikeserve.models.engines.event.vectors import BYTES, LANES, Code
from spikeserve.models.engines.processor import WIDE

FLUSH = 256  # groups whose sums, of at most 127 each, fit 16 bits
SIZES = (4, 3, 2, 1) if WIDE else (1,)  # registers of bytes whose sums are held at once
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32, _F64, _PLACES = ir.FloatType(), ir.DoubleType(), ir.IntType(32).as_pointer()
_FLOATS = _F32.as_pointer()
_BYTES, _SHORTS = ir.VectorType(_I8, BYTES), ir.VectorType(_I16, BYTES // 2)
_INTEGERS, _DOUBLES = ir.VectorType(_I32, LANES), ir.VectorType(_F64, LANES)

GATHERING = ir.FunctionType(_I64, [*[_FLOATS] * 4, _I64, _PLACES, _FLOATS, _I64, _I64, _F32])  # see `gathering`


@cache
def gathering(group: int) -> Native:
    """Make the function that adds up the rows of a panel, of which `group` are added as bytes.

    (sums, base, shifts, weight, width, index, value, k0, k1, grid): sums[:width] = (base + the sum of the events k0 to
    k1, shifted) * grid. An event counts as often as its value says, or once if that is null.
    """
    return native(("gathering", group), [*GATHERING.args], partial(_write_gathering, group))


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
