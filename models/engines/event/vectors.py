"""What the kernels need and Numba's language lacks: vectors of eight floats in registers, and the bits of their masks.

Each function below is an intrinsic: it writes LLVM code in the place of its call. Arrays are one-dimensional and
contiguous, float32 or int32; positions count elements. Nothing is checked here: callers stay within bounds by the
padding and the tables that `plan` makes. No fast-math flag is set, so that every operation rounds by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import config
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic

LANES = 8
HOST = llvm.get_host_cpu_features()
WIDE = 16 if HOST.get("avx512f") else LANES  # the floats of this processor's widest vector
if WIDE == 16 and not config.CPU_FEATURES:
    # LLVM splits these vectors in two for the sake of old processors' clock rates, unless told not to.
    config.CPU_NAME = llvm.get_host_cpu_name()
    config.CPU_FEATURES = f"{HOST.flatten()},-prefer-256-bit"

TILE_ROWS = 5  # of `multiply`: with four vectors across, its sums fill sixteen registers
TILE_VECTORS = 4

# As mypy should see it: what calls an intrinsic does not pass the typing context that its definition takes.
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba_intrinsic

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WIDE_VECTOR = ir.VectorType(ir.FloatType(), WIDE)


class _Code:
    """LLVM code on its way into a function, with the few operations that the intrinsics are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, vector: Any = _VECTOR) -> None:
        self.context, self.builder, self.vector = context, builder, vector
        self.kinds, self.arguments = signature.args, arguments

    def pointer(self, argument: int) -> Any:
        """Return the address of an array's first element."""
        array = self.context.make_array(self.kinds[argument])
        return array(self.context, self.builder, self.arguments[argument]).data

    def at(self, pointer: Any, position: Any, offset: int = 0) -> Any:
        """Return the address of the vector at a position, plus so many vectors."""
        if offset:
            position = self.builder.add(position, _I64(offset * self.vector.count))
        return self.builder.bitcast(self.builder.gep(pointer, [position]), self.vector.as_pointer())

    def load(self, pointer: Any, position: Any, offset: int = 0) -> Any:
        """Load the vector there."""
        loaded = self.builder.load(self.at(pointer, position, offset))
        loaded.align = 4
        return loaded

    def store(self, vector: Any, pointer: Any, position: Any, offset: int = 0) -> None:
        """Store a vector there."""
        self.builder.store(vector, self.at(pointer, position, offset)).align = 4

    def splat(self, scalar: Any) -> Any:
        """Return a vector of one number."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), [0] * self.vector.count)
        return self.builder.shuffle_vector(first, first, zeros)

    def bits(self, booleans: Any) -> Any:
        """Return a vector of booleans as the low bits of a 64-bit integer."""
        return self.builder.zext(self.builder.bitcast(booleans, ir.IntType(booleans.type.count)), _I64)


def _gather(vectors: int, *, valued: bool) -> Any:
    """Make the intrinsic that sums weight rows into `vectors` vectors, held in registers throughout.

    (row, base, b, weight, j, size, index, value, k0, k1): row[j:] = base[b + j:] + the sum of
    weight[index[k] * size + j:], times value[k] if `valued`, for k0 <= k < k1, one after the other: the order of the
    sum is that of the events.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        row, base, weight, index, value = (code.pointer(argument) for argument in (0, 1, 3, 6, 7))
        b, j, size, k0, k1 = (arguments[argument] for argument in (2, 4, 5, 8, 9))
        start = builder.add(b, j)
        before = [code.load(base, start, vector) for vector in range(vectors)]
        entry = builder.block
        loop, done = builder.append_basic_block("rows"), builder.append_basic_block("rows.done")
        builder.cbranch(builder.icmp_signed("<", k0, k1), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(_I64)
        k.add_incoming(k0, entry)
        sums = [builder.phi(_VECTOR) for _ in range(vectors)]
        unit = builder.sext(builder.load(builder.gep(index, [k])), _I64)
        position = builder.add(builder.mul(unit, size), j)
        terms = [code.load(weight, position, vector) for vector in range(vectors)]
        if valued:
            factor = code.splat(builder.load(builder.gep(value, [k])))
            terms = [builder.fmul(factor, term) for term in terms]
        after = [builder.fadd(total, term) for total, term in zip(sums, terms, strict=True)]
        following = builder.add(k, _I64(1))
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, k1), loop, done)
        for total, first, later in zip(sums, before, after, strict=True):
            total.add_incoming(first, entry)
            total.add_incoming(later, loop)
        builder.position_at_end(done)
        results = [builder.phi(_VECTOR) for _ in range(vectors)]
        for result, first, later in zip(results, before, after, strict=True):
            result.add_incoming(first, entry)
            result.add_incoming(later, loop)
        for vector, result in enumerate(results):
            code.store(result, row, j, vector)
        return context.get_dummy_value()

    @intrinsic
    def gather(
        _: Any, row: Any, base: Any, b: Any, weight: Any, j: Any, size: Any, index: Any, value: Any, k0: Any, k1: Any
    ) -> Any:
        return types.void(row, base, b, weight, j, size, index, value, k0, k1), generate

    return gather


gather_16 = _gather(16, valued=False)
gather_4 = _gather(4, valued=False)
gather_1 = _gather(1, valued=False)
gather_values_16 = _gather(16, valued=True)
gather_values_4 = _gather(4, valued=True)
gather_values_1 = _gather(1, valued=True)


def _multiply(rows: int, vectors: int, vector_type: Any) -> Any:
    """Make the intrinsic that multiplies a few rows of spikes with a few vectors of weights, sums in registers.

    (sums, s, spikes, x, units, weight, j, size): sums[s + r * size + j:] += the sum over unit of
    spikes[x + r * units + unit] * weight[unit * size + j:], for each of `rows` rows r. A spike is 0 or 1, so a product
    is exact, fused with its addition or not, and adding those that are 0 changes nothing: it is `gather`'s sum.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments, vector_type)
        sums, spikes, weight = (code.pointer(argument) for argument in (0, 2, 5))
        s, x, units, j, size = (arguments[argument] for argument in (1, 3, 4, 6, 7))
        places = [builder.add(builder.add(s, j), builder.mul(size, _I64(row))) for row in range(rows)]
        starts = [builder.add(x, builder.mul(units, _I64(row))) for row in range(rows)]
        before = [[code.load(sums, place, vector) for vector in range(vectors)] for place in places]
        entry = builder.block
        loop, done = builder.append_basic_block("units"), builder.append_basic_block("units.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        unit = builder.phi(_I64)
        unit.add_incoming(_I64(0), entry)
        totals = [[builder.phi(vector_type) for _ in range(vectors)] for _ in range(rows)]
        position = builder.add(builder.mul(unit, size), j)
        terms = [code.load(weight, position, vector) for vector in range(vectors)]
        after = []
        for start, total in zip(starts, totals, strict=True):
            spike = code.splat(builder.load(builder.gep(spikes, [builder.add(start, unit)])))
            products = [builder.fmul(spike, term, flags=("contract",)) for term in terms]
            after.append([builder.fadd(*pair, flags=("contract",)) for pair in zip(total, products, strict=True)])
        following = builder.add(unit, _I64(1))
        unit.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, units), loop, done)
        for total, first, later in zip(*map(chain.from_iterable, (totals, before, after)), strict=True):
            total.add_incoming(first, entry)
            total.add_incoming(later, loop)
        builder.position_at_end(done)
        for place, row in zip(places, after, strict=True):
            for vector, result in enumerate(row):
                code.store(result, sums, place, vector)
        return context.get_dummy_value()

    @intrinsic
    def multiply(_: Any, sums: Any, s: Any, spikes: Any, x: Any, units: Any, weight: Any, j: Any, size: Any) -> Any:
        return types.void(sums, s, spikes, x, units, weight, j, size), generate

    return multiply


multiply_tile = _multiply(TILE_ROWS, TILE_VECTORS, _WIDE_VECTOR)
multiply_column = _multiply(TILE_ROWS, 1, _VECTOR)


def _add_run(*, valued: bool) -> Any:
    """Make the intrinsic that adds a run of weights to a row, (row, o, weight, w, vectors, factor).

    row[o:] += weight[w:], times `factor` if `valued`, for so many vectors.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        row, weight = code.pointer(0), code.pointer(2)
        factor = code.splat(arguments[5]) if valued else None

        def add(first: Any, vectors: int) -> None:
            shift = builder.mul(first, _I64(LANES))
            there, here = builder.add(arguments[1], shift), builder.add(arguments[3], shift)
            terms = [code.load(weight, here, vector) for vector in range(vectors)]
            if factor is not None:
                terms = [builder.fmul(factor, term) for term in terms]
            sums = [builder.fadd(code.load(row, there, vector), term) for vector, term in enumerate(terms)]
            for vector, total in enumerate(sums):
                code.store(total, row, there, vector)

        fours = builder.lshr(arguments[4], _I64(2))
        with cgutils.for_range(builder, fours) as step:
            add(builder.mul(step.index, _I64(4)), 4)
        done = builder.mul(fours, _I64(4))
        with cgutils.for_range(builder, builder.sub(arguments[4], done)) as step:
            add(builder.add(done, step.index), 1)
        return context.get_dummy_value()

    @intrinsic
    def add_run(_: Any, row: Any, o: Any, weight: Any, w: Any, vectors: Any, factor: Any) -> Any:
        return types.void(row, o, weight, w, vectors, factor), generate

    return add_run


add_run = _add_run(valued=False)
add_run_values = _add_run(valued=True)


def _step_neurons(vector_type: Any) -> Any:
    """Make the intrinsic that steps one vector of neurons and returns their spikes as bits.

    (j, membrane, row, decay, gain, drive, fires_at, change, to_value): the neurons from j on charge, and fire at
    `fires_at` or above; a spike subtracts `change` from its membrane or, where `to_value` is 1, sets it to that.
    `models.neurons` has the equations; here they are once more, for arrays that are not whole.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments, vector_type)
        j = arguments[0]
        v, i, decay, gain, drive, fires_at, change = (code.load(code.pointer(a), j) for a in range(1, 8))
        charged = builder.fadd(builder.fadd(builder.fmul(decay, v), builder.fmul(gain, i)), drive)
        fired = builder.fcmp_ordered(">=", charged, fires_at)
        to_value = builder.icmp_signed("!=", arguments[8], arguments[8].type(0))
        reset = builder.select(to_value, change, builder.fsub(charged, change))
        code.store(builder.select(fired, reset, charged), code.pointer(1), j)
        return code.bits(fired)

    @intrinsic
    def step(
        _: Any, j: Any, membrane: Any, row: Any, decay: Any, gain: Any, drive: Any, fires_at: Any, change: Any, to: Any
    ) -> Any:
        return types.uint64(j, membrane, row, decay, gain, drive, fires_at, change, to), generate

    return step


step_neurons = _step_neurons(_VECTOR)
step_neurons_wide = _step_neurons(_WIDE_VECTOR)


@intrinsic
def nonzero_bits(_: Any, values: Any, position: Any) -> Any:
    """Return which of eight values are not 0, as bits, (values, position)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        return code.bits(builder.fcmp_unordered("!=", code.load(code.pointer(0), arguments[1]), zeros))

    return types.uint64(values, position), generate


@intrinsic
def lowest_bit(_: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set; `bits` must not be 0."""

    def generate(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.uint64(bits), generate
