"""What the kernels need and Numba's language lacks: vectors of floats in registers, and the bits of their masks.

Each function below is an intrinsic: it writes LLVM code in the place of its call. Arrays are one-dimensional and
contiguous, float32 or int32; positions count elements. What a function calls integers lies in the bits of an array of
floats, so that a kernel has one signature for both. Nothing is checked here: callers stay within bounds by the
padding and the tables that `plan` makes. No fast-math flag is set, so that every operation rounds by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic

from spikeserve.models.engines.processor import WIDE

LANES = 16  # floats of a vector: one register with AVX-512, two without
HALF = LANES // 2
BYTE_VECTORS = (8, 2, 1) if WIDE else (2, 1)  # of twice LANES bytes, whose sums are held at once
BYTE_PANEL = BYTE_VECTORS[0] * 2 * LANES  # neighbouring outputs whose weights of a byte are stored as one panel
FLUSH = 256  # rows of them whose sums, of at most 127 each, fit 16 bits
FLOAT_BYTES = 4
READ, TO_ALL_CACHES, DATA = 0, 3, 1  # the arguments of LLVM's prefetch

TILE_ROWS = 5  # of `multiply`
TILE_VECTORS = 4 if WIDE else 1  # across: its sums fill the registers that there are

# As mypy should see it: what calls an intrinsic does not pass the typing context that its definition takes.
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba_intrinsic

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_I16, _I8 = ir.IntType(16), ir.IntType(8)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_VECTOR = ir.VectorType(_F32, LANES)
_INTEGERS = ir.VectorType(_I32, LANES)
_BYTES = ir.VectorType(_I8, 2 * LANES)


class Code:
    """LLVM code on its way into a function, with the few operations that the intrinsics are made of."""

    def __init__(
        self, context: Any, builder: Any, signature: Any = None, arguments: Any = (), vector: Any = _VECTOR
    ) -> None:
        self.context, self.builder, self.vector = context, builder, vector
        self.kinds, self.arguments = () if signature is None else signature.args, arguments

    def pointer(self, argument: int) -> Any:
        """Return the address of an array's first element."""
        array = self.context.make_array(self.kinds[argument])
        return array(self.context, self.builder, self.arguments[argument]).data

    def of(self, vector: Any) -> Code:
        """Return the same code with other vectors."""
        return Code(self.context, self.builder, vector=vector)

    def at(self, pointer: Any, position: Any, offset: int = 0, vector: Any = None) -> Any:
        """Return the address of the vector at a position, plus so many vectors; of another type if `vector` is one."""
        vector = vector or self.vector
        if offset:
            position = self.builder.add(position, _I64(offset * vector.count))
        return self.builder.bitcast(self.builder.gep(pointer, [position]), vector.as_pointer())

    def load(self, pointer: Any, position: Any, offset: int = 0) -> Any:
        """Load the vector there."""
        loaded = self.builder.load(self.at(pointer, position, offset))
        loaded.align = 4
        return loaded

    def store(self, vector: Any, pointer: Any, position: Any, offset: int = 0) -> None:
        """Store a vector, of any type, there."""
        self.builder.store(vector, self.at(pointer, position, offset, vector.type)).align = 4

    def loop(self, first: Any, end: Any, before: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Let values pass through `body` for each number from `first` until `end`, and return what comes out."""
        builder, entry = self.builder, self.builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("loop.done")
        builder.cbranch(builder.icmp_signed("<", first, end), loop, done)
        builder.position_at_end(loop)
        number = builder.phi(_I64)
        values = [builder.phi(value.type) for value in before]
        after = body(number, values)
        following, last = builder.add(number, _I64(1)), builder.block
        builder.cbranch(builder.icmp_signed("<", following, end), loop, done)
        for phi, start, later in zip([number, *values], [first, *before], [following, *after], strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(later, last)
        builder.position_at_end(done)
        results = [builder.phi(value.type) for value in before]
        for phi, start, later in zip(results, before, after, strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(later, last)
        return results

    def parts(self, width: Any, sizes: Sequence[int], body: Callable[[Any, int], None], unit: int = LANES) -> None:
        """Write `body(place, vectors)` for all places of a width, each time with the first of `sizes` that fits.

        A vector takes `unit` places. The last one may reach over the width, and the last size is 1.
        """
        builder, entry = self.builder, self.builder.block
        again, done = builder.append_basic_block("parts"), builder.append_basic_block("parts.done")
        builder.branch(again)
        builder.position_at_end(again)
        here = builder.phi(_I64)
        here.add_incoming(_I64(0), entry)
        left = builder.sub(width, here)
        for vectors in sizes:
            fits, other = builder.append_basic_block("part"), builder.append_basic_block("no.part")
            builder.cbranch(builder.icmp_signed(">", left, _I64((vectors - 1) * unit)), fits, other)
            builder.position_at_end(fits)
            body(here, vectors)
            here.add_incoming(builder.add(here, _I64(vectors * unit)), builder.block)
            builder.branch(again)
            builder.position_at_end(other)
        builder.branch(done)
        builder.position_at_end(done)

    def in_floats(self, integers: Any, grid: Any) -> Any:
        """Return integers times a power of two, as floats: they round once, as integers become floats."""
        floats = ir.VectorType(ir.FloatType(), self.vector.count)
        factor = self.splat(grid, floats)
        return self.builder.fmul(self.builder.sitofp(integers, floats), factor)

    def splat(self, scalar: Any, vector: Any = None) -> Any:
        """Return a vector of one number."""
        vector = vector or self.vector
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, self.vector.count), [0] * self.vector.count)
        return self.builder.shuffle_vector(first, first, zeros)

    def call(self, operation: str, vector: Any) -> Any:
        """Apply one of LLVM's own operations to a vector of floats."""
        kind = ir.FunctionType(vector.type, [vector.type])
        name = f"{operation}.v{vector.type.count}{'f64' if vector.type.element == ir.DoubleType() else 'f32'}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [vector])

    def bits(self, booleans: Any) -> Any:
        """Return a vector of booleans as the low bits of a 64-bit integer."""
        return self.builder.zext(self.builder.bitcast(booleans, ir.IntType(booleans.type.count)), _I64)


def written(result: Any = types.void) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make an intrinsic of what a function writes: a value of the type `result`, or nothing.

    The function gets the code, and of each argument the value, of an array the address of its first element.
    """

    def make(write: Callable[..., Any]) -> Callable[..., Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code = Code(context, builder, signature, arguments)
            arrays = [isinstance(kind, types.Array) for kind in signature.args]
            passed = [code.pointer(k) if is_array else arguments[k] for k, is_array in enumerate(arrays)]
            written_value = write(code, *passed)
            return context.get_dummy_value() if written_value is None else written_value

        def define(_: Any, *types_of_arguments: Any) -> Any:
            return result(*types_of_arguments), generate

        define.__signature__ = signature(write)  # type: ignore[attr-defined]  # by which Numba counts the arguments
        return intrinsic(wraps(write, ())(define))

    return make


@dataclass(frozen=True)
class Arithmetic:
    """How sums of weights are added up: the type that weights are stored in, and the one that their sums are held in.

    The `flags` let a product be fused with its addition: where the product is exact, or where that drops fewer bits.
    Sums of bytes begin with 0, and their bias is added to what they are times a power of two for each output.
    """

    stored: Any
    summed: Any
    flags: tuple[str, ...] = ()

    def load(self, code: Code, pointer: Any, position: Any, vector: int = 0) -> Any:
        """Load a vector of weights, as numbers that can be added up."""
        if self.stored == _I8:
            pointer = code.builder.bitcast(pointer, _I8.as_pointer())
        loaded = code.load(pointer, position, vector)
        if self.stored == self.summed:
            return loaded
        to_doubles = code.builder.fpext if self.stored == _F32 else code.builder.sitofp
        widen = code.builder.sext if self.summed == _I32 else to_doubles
        return widen(loaded, ir.VectorType(self.summed, code.vector.count))

    def start(self, code: Code, base: Any, b: Any, vector: int) -> Any:
        """Load what a sum begins with."""
        if self.stored == _I8:
            return ir.Constant(ir.VectorType(self.summed, code.vector.count), None)
        return self.load(code, base, b, vector)

    def times(self, code: Code, factor: Any, term: Any) -> Any:
        """Return a float, which is a scalar, times a vector; of integers, one of 0 or of bits that are all 1."""
        if self.summed == _I32:
            return code.builder.and_(code.splat(code.builder.bitcast(factor, _I32), term.type), term)
        if self.summed == _F64:
            factor = code.builder.fpext(factor, _F64)
        return code.builder.fmul(code.splat(factor, term.type), term, flags=self.flags)

    def add(self, code: Code, total: Any, term: Any) -> Any:
        """Return the sum of two vectors."""
        if self.summed == _I32:
            return code.builder.add(total, term)
        return code.builder.fadd(total, term, flags=self.flags)

    def rounded(self, code: Code, total: Any, grid: Any, base: Any, b: Any, vector: int) -> Any:
        """Return a sum times `grid` as floats, which it rounds to once; a sum of floats is taken as it is.

        It began with base[b:]; the powers of two of bytes lie `grid` places behind their biases.
        """
        builder = code.builder
        if self.stored == _I8:
            bias, power = (code.of(_VECTOR).load(base, at, vector) for at in (b, builder.add(b, grid)))
            if self.summed == _I32:
                return builder.fadd(builder.fmul(builder.sitofp(total, bias.type), power), bias)
            bias, power = (builder.fpext(each, total.type) for each in (bias, power))
            return builder.fptrunc(builder.fadd(builder.fmul(total, power), bias), _VECTOR)
        if self.summed == _I32:
            return code.in_floats(total, grid)
        if self.summed == _F64:
            scaled = code.builder.fmul(total, code.splat(code.builder.fpext(grid, _F64), total.type))
            return code.builder.fptrunc(scaled, ir.VectorType(_F32, code.vector.count))
        return total


FLOATS = Arithmetic(_F32, _F32)
EXACT_FLOATS = Arithmetic(_F32, _F32, ("contract",))  # which do not round, or are training's, which may
INTEGERS = Arithmetic(_I32, _I32)
DOUBLES = Arithmetic(_F32, _F64, ("contract",))
INTEGERS_IN_DOUBLES = Arithmetic(_I32, _F64, ("contract",))
BYTES, BYTES_IN_DOUBLES = Arithmetic(_I8, _I32), Arithmetic(_I8, _F64, ("contract",))


def add_up(
    code: Code, arithmetic: Arithmetic, vectors: int, base: Any, b: Any, weight: Any, w: Any, unit: Any, index: Any,
    value: Any, k0: Any, k1: Any,
) -> list[Any]:  # fmt: skip
    """Write the code of a sum of so many vectors, held in registers, and return it as it is added up.

    It is base[b:] + the sum of weight[w + index[k] * unit:], times value[k] unless that is None, for k0 <= k < k1, one
    after the other: the order of the sum is that of the events.
    """
    code, builder = code.of(ir.VectorType(arithmetic.stored, LANES)), code.builder

    def add(k: Any, totals: list[Any]) -> list[Any]:
        row = builder.sext(builder.load(builder.gep(index, [k])), _I64)
        position = builder.add(builder.mul(row, unit), w)
        terms = [arithmetic.load(code, weight, position, vector) for vector in range(vectors)]
        if value is not None:
            factor = builder.load(builder.gep(value, [k]))
            terms = [arithmetic.times(code, factor, term) for term in terms]
        return [arithmetic.add(code, total, term) for total, term in zip(totals, terms, strict=True)]

    return code.loop(k0, k1, [arithmetic.start(code, base, b, vector) for vector in range(vectors)], add)


def gathering(arithmetic: Arithmetic, sizes: Sequence[int] = (4, 2, 1), *, valued: bool = False) -> Callable[..., None]:
    """Make what writes the code of sums of weight rows, as many vectors at a time as `sizes` say; see `add_up`.

    (sums, s, base, b, weight, w, width, unit, index, value, k0, k1, grid), behind the code: sums[s:] is the sum,
    `width` long, of values if it is `valued`, as floats; `Arithmetic.rounded` says what `grid` is.
    """

    def gather(
        code: Code, sums: Any, s: Any, base: Any, b: Any, weight: Any, w: Any, width: Any, unit: Any, index: Any,
        value: Any, k0: Any, k1: Any, grid: Any,
    ) -> None:  # fmt: skip
        factors = value if valued else None

        def sum_part(place: Any, vectors: int) -> None:
            to, start, first = (code.builder.add(each, place) for each in (s, b, w))
            totals = add_up(code, arithmetic, vectors, base, start, weight, first, unit, index, factors, k0, k1)
            for vector, total in enumerate(totals):
                code.store(arithmetic.rounded(code, total, grid, base, start, vector), sums, to, vector)

        code.parts(width, sizes, sum_part)

    return gather


_SIZES = (12, 6, 4, 2, 1) if WIDE else (4, 2, 1)
gather_spikes = written()(gathering(FLOATS, _SIZES))
gather_values = written()(gathering(FLOATS, valued=True))
gather_exact_values = written()(gathering(EXACT_FLOATS, valued=True))  # where float32 holds every partial sum
gather_to_floats = written()(gathering(INTEGERS))
gather_floats_in_doubles = written()(gathering(DOUBLES, (2, 1), valued=True))
gather_integers_in_doubles = written()(gathering(INTEGERS_IN_DOUBLES, (2, 1), valued=True))
gather_bytes_in_doubles = written()(gathering(BYTES_IN_DOUBLES, (1,), valued=True))


def write_bytes(
    code: Code, sums: Any, s: Any, base: Any, b: Any, weight: Any, w: Any, width: Any, unit: Any, index: Any, _: Any,
    k0: Any, k1: Any, grid: Any,
) -> None:  # fmt: skip
    """Write the code of sums of bytes as `gathering` does, of spikes alone: FLUSH rows at a time are added in 16 bits.

    A vector has twice LANES bytes, so that the last one may reach over the width.
    """
    builder, rows, shorts = code.builder, code.of(_BYTES), ir.VectorType(_I16, _BYTES.count)
    none, zeros = ir.Constant(shorts, None), ir.Constant(_INTEGERS, None)
    halves = [ir.Constant(_INTEGERS, list(range(first, first + LANES))) for first in (0, LANES)]
    weight = builder.bitcast(weight, _I8.as_pointer())

    def sum_part(place: Any, vectors: int) -> None:
        to, start, first = (builder.add(each, place) for each in (s, b, w))

        def add(k: Any, totals: list[Any]) -> list[Any]:
            row = builder.sext(builder.load(builder.gep(index, [k])), _I64)
            at = builder.add(builder.mul(row, unit), first)
            terms = [builder.sext(rows.load(weight, at, vector), shorts) for vector in range(vectors)]
            return [builder.add(total, term) for total, term in zip(totals, terms, strict=True)]

        def flush(number: Any, totals: list[Any]) -> list[Any]:
            begin = builder.add(k0, builder.mul(number, _I64(FLUSH)))
            end = builder.add(begin, _I64(FLUSH))
            end = builder.select(builder.icmp_signed("<", end, k1), end, k1)
            added = code.loop(begin, end, [none] * vectors, add)
            parts = [builder.shuffle_vector(each, none, half) for each in added for half in halves]
            terms = [builder.sext(part, _INTEGERS) for part in parts]
            return [builder.add(total, term) for total, term in zip(totals, terms, strict=True)]

        flushes = builder.sdiv(builder.add(builder.sub(k1, k0), _I64(FLUSH - 1)), _I64(FLUSH))
        totals = code.loop(_I64(0), flushes, [zeros] * (2 * vectors), flush)
        for vector, total in enumerate(totals):
            fits = builder.icmp_signed("<", builder.add(place, _I64(vector * LANES)), width)
            with nullcontext() if total is not totals[-1] else builder.if_then(fits):  # all but the last do
                code.store(BYTES.rounded(code, total, grid, base, start, vector), sums, to, vector)

    code.parts(width, BYTE_VECTORS, sum_part, _BYTES.count)


gather_bytes = written()(write_bytes)


@written()
def to_floats(code: Code, row: Any, r: Any, count: Any, grid: Any) -> None:
    """Write whole vectors of integers from row[r:] on as floats, times `grid`: (row, r, count, grid)."""
    code = code.of(_INTEGERS)
    with cgutils.for_range_slice(code.builder, _I64(0), count, _I64(LANES)) as (shift, _):
        at = code.builder.add(r, shift)
        code.store(code.in_floats(code.load(row, at), grid), row, at)


def _multiply(arithmetic: Arithmetic, sizes: Sequence[int], rows: int = TILE_ROWS) -> Any:
    """Make the intrinsic that multiplies a few rows of spikes with a few vectors of weights, sums in registers.

    (sums, s, stride, spikes, x, x_stride, units, base, b, weight, w, width, grid): sums[s + r * stride:] = base[b:] +
    the sum over unit of spikes[x + r * x_stride + unit] * weight[w + unit * width:], for each row r. A spike is 0 or 1,
    or among integers 0 or one whose bits are all 1: adding products that are 0 changes nothing, so that it is
    `gather`'s sum. Sums of integers are written as floats, times `grid`. They are `width` long where there are several
    `sizes`, so many vectors at a time; or as long as the only size.
    """

    @written()
    def multiply(
        code: Code, sums: Any, s: Any, stride: Any, spikes: Any, x: Any, x_stride: Any, units: Any, base: Any, b: Any,
        weight: Any, w: Any, width: Any, grid: Any,
    ) -> None:  # fmt: skip
        code, builder = code.of(ir.VectorType(arithmetic.stored, LANES)), code.builder
        starts = [builder.add(x, builder.mul(x_stride, _I64(row))) for row in range(rows)]

        def multiply_part(place: Any, vectors: int) -> None:
            to, start, first = (builder.add(each, place) for each in (s, b, w))

            def add(unit: Any, totals: list[Any]) -> list[Any]:
                position = builder.add(builder.mul(unit, width), first)
                terms = [arithmetic.load(code, weight, position, vector) for vector in range(vectors)]
                after = []
                for row, start in enumerate(starts):
                    spike = builder.load(builder.gep(spikes, [builder.add(start, unit)]))
                    products = [arithmetic.times(code, spike, term) for term in terms]
                    pairs = zip(totals[row * vectors :], products, strict=False)
                    after += [arithmetic.add(code, *pair) for pair in pairs]
                return after

            before = [arithmetic.load(code, base, start, vector) for vector in range(vectors)] * rows
            for at, total in enumerate(code.loop(_I64(0), units, before, add)):
                row, vector = divmod(at, vectors)
                there = builder.add(to, builder.mul(stride, _I64(row)))
                code.store(arithmetic.rounded(code, total, grid, base, start, vector), sums, there, vector)

        if len(sizes) == 1:
            multiply_part(_I64(0), sizes[0])
        else:
            code.parts(width, sizes, multiply_part)

    return multiply


FLOAT_ROWS = 4  # of a tile of any floats, whose products round: training's errors

multiply_panel, multiply_integer_panel = (_multiply(each, (TILE_VECTORS, 1)) for each in (EXACT_FLOATS, INTEGERS))
multiply_floats_tile, multiply_floats_column = (
    _multiply(EXACT_FLOATS, (vectors,), FLOAT_ROWS) for vectors in (TILE_VECTORS, 1)
)


def _add_block(*, valued: bool) -> Any:
    """Make the intrinsic that adds a block of floats to a row of them.

    (row, o, weight, w, lines, vectors, output_step, weight_step, factor, halves): row[o:] += weight[w:], times `factor`
    if `valued`, for so many vectors, or half ones, line after line: the next lies `output_step` and `weight_step`
    further.
    """

    @written()
    def add_block(
        code: Code, row: Any, o: Any, weight: Any, w: Any, lines: Any, vectors: Any, output_step: Any,
        weight_step: Any, factor: Any, halves: Any,
    ) -> None:  # fmt: skip
        builder = code.builder

        def add_lanes(lanes: int) -> None:
            floats = code.of(ir.VectorType(_F32, lanes))
            with cgutils.for_range(builder, lines) as line:
                there = builder.add(o, builder.mul(line.index, output_step))
                here = builder.add(w, builder.mul(line.index, weight_step))
                with cgutils.for_range(builder, vectors) as vector:
                    shift = builder.mul(vector.index, _I64(lanes))
                    at = builder.add(there, shift)
                    term = floats.load(weight, builder.add(here, shift))
                    if valued:
                        term = builder.fmul(floats.splat(factor), term)
                    floats.store(builder.fadd(floats.load(row, at), term), row, at)

        with builder.if_else(builder.icmp_signed("!=", halves, halves.type(0))) as (then, otherwise):
            with then:
                add_lanes(HALF)
            with otherwise:
                add_lanes(LANES)

    return add_block


add_block, add_block_values = (_add_block(valued=valued) for valued in (False, True))


@written()
def copy(code: Code, row: Any, r: Any, source: Any, s: Any, count: Any) -> None:
    """Write source[s:] to row[r:], so many floats, or int32: (row, r, source, s, count)."""
    there, here = code.builder.gep(row, [r]), code.builder.gep(source, [s])
    cgutils.raw_memcpy(code.builder, there, here, count, _I64(FLOAT_BYTES))


@written()
def prefetch(code: Code, values: Any, position: Any) -> None:
    """Have the cache line at a position fetched, (values, position), which may lie behind the array's end."""
    builder = code.builder
    address = builder.bitcast(builder.gep(values, [position]), ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [address.type, *[_I32] * 3])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(fetch, [address, *map(_I32, (READ, TO_ALL_CACHES, DATA))])


def _bits(code: Code, values: Any) -> Any:
    """Return which of a vector of values are not 0, as bits; those from LANES on say which of them are no 1 either."""
    builder = code.builder
    zeros, ones = (ir.Constant(_VECTOR, [number] * LANES) for number in (0.0, 1.0))
    nonzero = builder.fcmp_unordered("!=", values, zeros)
    other = builder.and_(nonzero, builder.fcmp_unordered("!=", values, ones))
    return builder.or_(code.bits(nonzero), builder.shl(code.bits(other), _I64(LANES)))


@written(types.uint64)
def nonzero_bits(code: Code, values: Any, position: Any) -> Any:
    """Return which of a vector of values are not 0, as bits from 0 on, (values, position).

    The bits from LANES on say which of them are no 1 either.
    """
    return _bits(code, code.load(values, position))


@written(types.uint64)
def first_nonzero_bits(code: Code, values: Any, position: Any, count: Any) -> Any:
    """Tell which of the first `count` values of a vector are not 0; the others may lie behind the array's end."""
    builder = code.builder
    lanes = ir.Constant(ir.VectorType(_I64, LANES), list(range(LANES)))
    mask = builder.icmp_signed("<", lanes, code.splat(count, lanes.type))
    address, zeros = code.at(values, position), ir.Constant(_VECTOR, [0.0] * LANES)
    kind = ir.FunctionType(_VECTOR, [address.type, _I32, mask.type, _VECTOR])
    load = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0v16f32")
    return _bits(code, builder.call(load, [address, _I32(FLOAT_BYTES), mask, zeros]))


@written(types.int64)
def list_bits(code: Code, index: Any, count: Any, first: Any, bits: Any) -> Any:
    """Write first + the place of each of a vector's bits that is set to index[count:], and return the new count.

    (index, count, first, bits). A whole vector is written, whose end means nothing: without a branch for each bit,
    which no processor could foresee.
    """
    return list_places(code, index, count, first, bits)


def list_places(code: Code, index: Any, count: Any, first: Any, bits: Any) -> Any:
    """Write the code of `list_bits`; `index` is the address of the array's first element."""
    builder, vector = code.builder, ir.VectorType(_I32, LANES)
    start = code.splat(builder.trunc(first, _I32), vector)
    places = builder.add(start, ir.Constant(vector, list(range(LANES))))
    mask_type = ir.VectorType(ir.IntType(1), LANES)
    if WIDE:
        mask = builder.bitcast(builder.trunc(bits, ir.IntType(LANES)), mask_type)
        kind = ir.FunctionType(vector, [vector, vector, mask_type])
        compress = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.mask.compress.v16i32")
        code.store(builder.call(compress, [places, places, mask]), index, count)
        return builder.add(count, builder.ctpop(builder.and_(bits, _I64(2**LANES - 1))))
    after = count
    for lane in range(LANES):
        builder.store(builder.extract_element(places, _I32(lane)), builder.gep(index, [after]))
        after = builder.add(after, builder.and_(builder.lshr(bits, _I64(lane)), _I64(1)))
    return after
