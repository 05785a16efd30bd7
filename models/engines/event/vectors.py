"""What the kernels need and Numba's language lacks: vectors of floats in registers, and the bits of their masks.

Each function below is an intrinsic: it writes LLVM code in the place of its call. Arrays are one-dimensional and
contiguous, float32 or int32; positions count elements. What a function calls integers lies in the bits of an array of
floats, so that a kernel has one signature for both. Nothing is checked here: callers stay within bounds by the
padding and the tables that `plan` makes. No fast-math flag is set, so that every operation rounds by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import config
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic

LANES = 16  # floats of a vector: one register with AVX-512, two without
HALF = LANES // 2
HOST = llvm.get_host_cpu_features()
if HOST.get("avx512f") and not config.CPU_FEATURES:
    # LLVM splits these vectors in two for the sake of old processors' clock rates, unless told not to.
    config.CPU_NAME = llvm.get_host_cpu_name()
    config.CPU_FEATURES = f"{HOST.flatten()},-prefer-256-bit"

FLOAT_BYTES = 4
READ, TO_ALL_CACHES, DATA = 0, 3, 1  # the arguments of LLVM's prefetch

TILE_ROWS = 5  # of `multiply`
TILE_VECTORS = 4 if HOST.get("avx512f") else 1  # across: its sums fill the registers that there are
WIDE = bool(HOST.get("avx512f"))  # whether registers hold the sums of twelve vectors

# As mypy should see it: what calls an intrinsic does not pass the typing context that its definition takes.
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba_intrinsic

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_VECTOR = ir.VectorType(_F32, LANES)
_INTEGERS = ir.VectorType(_I32, LANES)


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


@dataclass(frozen=True)
class Arithmetic:
    """How sums of weights are added up: the type that weights are stored in, and the one that their sums are held in.

    The `flags` let a product be fused with its addition: where the product is exact, or where that drops fewer bits.
    """

    stored: Any
    held: Any
    flags: tuple[str, ...] = ()

    def load(self, code: Code, pointer: Any, position: Any, vector: int = 0) -> Any:
        """Load a vector of weights, as numbers that can be added up."""
        loaded = code.load(pointer, position, vector)
        if self.stored == self.held:
            return loaded
        widen = code.builder.sitofp if self.stored == _I32 else code.builder.fpext
        return widen(loaded, ir.VectorType(self.held, code.vector.count))

    def times(self, code: Code, factor: Any, term: Any) -> Any:
        """Return a float, which is a scalar, times a vector; of integers, one of 0 or of bits that are all 1."""
        if self.held == _I32:
            return code.builder.and_(code.splat(code.builder.bitcast(factor, _I32), term.type), term)
        if self.held == _F64:
            factor = code.builder.fpext(factor, _F64)
        return code.builder.fmul(code.splat(factor, term.type), term, flags=self.flags)

    def add(self, code: Code, total: Any, term: Any) -> Any:
        """Return the sum of two vectors."""
        if self.held == _I32:
            return code.builder.add(total, term)
        return code.builder.fadd(total, term, flags=self.flags)

    def rounded(self, code: Code, total: Any, grid: Any) -> Any:
        """Return a sum times `grid` as floats, which it rounds to once; a sum of floats is taken as it is."""
        if self.held == _I32:
            return code.in_floats(total, grid)
        if self.held == _F64:
            scaled = code.builder.fmul(total, code.splat(grid, total.type))
            return code.builder.fptrunc(scaled, ir.VectorType(_F32, code.vector.count))
        return total


FLOATS = Arithmetic(_F32, _F32)
SPIKES_OF_FLOATS = Arithmetic(_F32, _F32, ("contract",))  # times 0 or 1, or in training, which lets sums round
INTEGERS = Arithmetic(_I32, _I32)
DOUBLES = Arithmetic(_F32, _F64, ("contract",))
INTEGERS_IN_DOUBLES = Arithmetic(_I32, _F64, ("contract",))


def _gather(arithmetic: Arithmetic, vectors: int, *, valued: bool = False, rounded: bool = False) -> Any:
    """Make the intrinsic that sums weight rows into `vectors` vectors, held in registers throughout.

    (sums, s, base, b, weight, w, width, index, value, k0, k1, grid): sums[s:] = base[b:] + the sum of
    weight[w + index[k] * width:], times value[k] if `valued`, for k0 <= k < k1, one after the other: the order of the
    sum is that of the events. It is written as floats, times `grid`, if `rounded`, else as the type it is held in.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments, ir.VectorType(arithmetic.stored, LANES))
        sums, base, weight, index, value = (code.pointer(argument) for argument in (0, 2, 4, 7, 8))
        s, b, w, width, k0, k1, grid = (arguments[argument] for argument in (1, 3, 5, 6, 9, 10, 11))
        before = [arithmetic.load(code, base, b, vector) for vector in range(vectors)]

        def add(k: Any, totals: list[Any]) -> list[Any]:
            unit = builder.sext(builder.load(builder.gep(index, [k])), _I64)
            position = builder.add(builder.mul(unit, width), w)
            terms = [arithmetic.load(code, weight, position, vector) for vector in range(vectors)]
            if valued:
                factor = builder.load(builder.gep(value, [k]))
                terms = [arithmetic.times(code, factor, term) for term in terms]
            return [arithmetic.add(code, total, term) for total, term in zip(totals, terms, strict=True)]

        for vector, total in enumerate(code.loop(k0, k1, before, add)):
            code.store(arithmetic.rounded(code, total, grid) if rounded else total, sums, s, vector)
        return context.get_dummy_value()

    @intrinsic
    def gather(
        _: Any, sums: Any, s: Any, base: Any, b: Any, weight: Any, w: Any, width: Any, index: Any, value: Any, k0: Any,
        k1: Any, grid: Any,
    ) -> Any:  # fmt: skip
        return types.void(sums, s, base, b, weight, w, width, index, value, k0, k1, grid), generate

    return gather


gather_12, gather_6, gather_4, gather_2, gather_1 = (_gather(FLOATS, vectors) for vectors in (12, 6, 4, 2, 1))
gather_values_4, gather_values_2, gather_values_1 = (_gather(FLOATS, vectors, valued=True) for vectors in (4, 2, 1))
gather_integers_4, gather_integers_2, gather_integers_1 = (_gather(INTEGERS, vectors) for vectors in (4, 2, 1))
gather_to_floats_4, gather_to_floats_2, gather_to_floats_1 = (
    _gather(INTEGERS, vectors, rounded=True) for vectors in (4, 2, 1)
)
gather_doubles_2, gather_doubles_1 = (_gather(DOUBLES, vectors, valued=True, rounded=True) for vectors in (2, 1))
gather_integers_in_doubles_2, gather_integers_in_doubles_1 = (
    _gather(INTEGERS_IN_DOUBLES, vectors, valued=True, rounded=True) for vectors in (2, 1)
)


@intrinsic
def add_row(_: Any, row: Any, r: Any, source: Any, s: Any, count: Any) -> Any:
    """Add whole vectors of floats from source[s:] to row[r:]: (row, r, source, s, count)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        row, source, (_, r, _, s, count) = code.pointer(0), code.pointer(2), arguments
        with cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES)) as (shift, _):
            at = builder.add(r, shift)
            total = builder.fadd(code.load(row, at), code.load(source, builder.add(s, shift)))
            code.store(total, row, at)
        return context.get_dummy_value()

    return types.void(row, r, source, s, count), generate


@intrinsic
def to_floats(_: Any, row: Any, r: Any, count: Any, grid: Any) -> Any:
    """Write whole vectors of integers from row[r:] on as floats, times `grid`: (row, r, count, grid)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments, _INTEGERS)
        row, (_, r, count, grid) = code.pointer(0), arguments
        with cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES)) as (shift, _):
            at = builder.add(r, shift)
            code.store(code.in_floats(code.load(row, at), grid), row, at)
        return context.get_dummy_value()

    return types.void(row, r, count, grid), generate


def _multiply(arithmetic: Arithmetic, vectors: int, rows: int = TILE_ROWS) -> Any:
    """Make the intrinsic that multiplies a few rows of spikes with a few vectors of weights, sums in registers.

    (sums, s, stride, spikes, x, x_stride, units, base, b, weight, w, width, grid): sums[s + r * stride:] = base[b:] +
    the sum over unit of spikes[x + r * x_stride + unit] * weight[w + unit * width:], for each row r. A spike is 0 or 1,
    or among integers 0 or one whose bits are all 1: adding products that are 0 changes nothing, so that it is
    `gather`'s sum. Sums of integers are written as floats, times `grid`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments, ir.VectorType(arithmetic.stored, LANES))
        sums, spikes, base, weight = (code.pointer(argument) for argument in (0, 3, 7, 9))
        s, stride, x, x_stride, units, b, w, width, grid = (
            arguments[argument] for argument in (1, 2, 4, 5, 6, 8, 10, 11, 12)
        )
        starts = [builder.add(x, builder.mul(x_stride, _I64(row))) for row in range(rows)]
        before = [arithmetic.load(code, base, b, vector) for vector in range(vectors)] * rows

        def add(unit: Any, totals: list[Any]) -> list[Any]:
            position = builder.add(builder.mul(unit, width), w)
            terms = [arithmetic.load(code, weight, position, vector) for vector in range(vectors)]
            after = []
            for row, start in enumerate(starts):
                spike = builder.load(builder.gep(spikes, [builder.add(start, unit)]))
                products = [arithmetic.times(code, spike, term) for term in terms]
                pairs = zip(totals[row * vectors :], products, strict=False)
                after += [arithmetic.add(code, *pair) for pair in pairs]
            return after

        for at, total in enumerate(code.loop(_I64(0), units, before, add)):
            row, vector = divmod(at, vectors)
            there = builder.add(s, builder.mul(stride, _I64(row)))
            code.store(arithmetic.rounded(code, total, grid), sums, there, vector)
        return context.get_dummy_value()

    @intrinsic
    def multiply(
        _: Any, sums: Any, s: Any, stride: Any, spikes: Any, x: Any, x_stride: Any, units: Any, base: Any, b: Any,
        weight: Any, w: Any, width: Any, grid: Any,
    ) -> Any:  # fmt: skip
        return types.void(sums, s, stride, spikes, x, x_stride, units, base, b, weight, w, width, grid), generate

    return multiply


FLOAT_ROWS = 4  # of a tile of any floats, whose products round: training's errors

multiply_tile, multiply_column = (_multiply(SPIKES_OF_FLOATS, vectors) for vectors in (TILE_VECTORS, 1))
multiply_integers_tile, multiply_integers_column = (_multiply(INTEGERS, vectors) for vectors in (TILE_VECTORS, 1))
multiply_floats_tile, multiply_floats_column = (
    _multiply(SPIKES_OF_FLOATS, vectors, FLOAT_ROWS) for vectors in (TILE_VECTORS, 1)
)


def _add_block(arithmetic: Arithmetic, lanes: int, *, valued: bool = False) -> Any:
    """Make the intrinsic that adds a block of weights to a row of outputs, which holds sums as they are held.

    (row, o, weight, w, lines, vectors, output_step, weight_step, factor): row[o:] += weight[w:], times `factor` if
    `valued`, for so many vectors of `lanes`, line after line: the next lies `output_step` and `weight_step` further.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments, ir.VectorType(arithmetic.stored, lanes))
        sums = Code(context, builder, signature, arguments, ir.VectorType(arithmetic.held, lanes))
        row, weight = code.pointer(0), code.pointer(2)
        o, w, lines, vectors, output_step, weight_step, factor = (arguments[a] for a in (1, 3, 4, 5, 6, 7, 8))
        with cgutils.for_range(builder, lines) as line:
            there = builder.add(o, builder.mul(line.index, output_step))
            here = builder.add(w, builder.mul(line.index, weight_step))
            with cgutils.for_range(builder, vectors) as vector:
                shift = builder.mul(vector.index, _I64(lanes))
                at = builder.add(there, shift)
                term = arithmetic.load(code, weight, builder.add(here, shift))
                if valued:
                    term = arithmetic.times(code, factor, term)
                code.store(arithmetic.add(code, sums.load(row, at), term), row, at)
        return context.get_dummy_value()

    @intrinsic
    def add_block(
        _: Any, row: Any, o: Any, weight: Any, w: Any, lines: Any, vectors: Any, output_step: Any, weight_step: Any,
        factor: Any,
    ) -> Any:  # fmt: skip
        return types.void(row, o, weight, w, lines, vectors, output_step, weight_step, factor), generate

    return add_block


add_block, add_block_half = (_add_block(FLOATS, lanes) for lanes in (LANES, HALF))
add_block_values, add_block_values_half = (_add_block(FLOATS, lanes, valued=True) for lanes in (LANES, HALF))
add_block_integers, add_block_integers_half = (_add_block(INTEGERS, lanes) for lanes in (LANES, HALF))
add_block_doubles, add_block_doubles_half = (_add_block(DOUBLES, lanes, valued=True) for lanes in (LANES, HALF))
add_block_integers_in_doubles, add_block_integers_in_doubles_half = (
    _add_block(INTEGERS_IN_DOUBLES, lanes, valued=True) for lanes in (LANES, HALF)
)


LINES, ACROSS = 3, 6  # of `add_lines`: the sums of a 3x3 kernel's positions with 32 channels fill 18 of 32 registers


def _add_lines(arithmetic: Arithmetic) -> Any:
    """Make the intrinsic that adds the weights of a position's spikes to LINES lines of ACROSS vectors each.

    (row, o, weight, w, unit, index, k0, k1, output_step, weight_step): row[o:] += weight[w + index[k] * unit:] for k0
    <= k < k1, line after line as in `add_block`. All sums are held in registers meanwhile.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments, ir.VectorType(arithmetic.stored, LANES))
        row, weight, index = (code.pointer(argument) for argument in (0, 2, 5))
        o, w, unit, k0, k1, output_step, weight_step = (arguments[a] for a in (1, 3, 4, 6, 7, 8, 9))
        lines = [builder.add(o, builder.mul(output_step, _I64(line))) for line in range(LINES)]
        kernels = [builder.add(w, builder.mul(weight_step, _I64(line))) for line in range(LINES)]
        places = [(line, vector) for line in range(LINES) for vector in range(ACROSS)]

        def add(k: Any, totals: list[Any]) -> list[Any]:
            shift = builder.mul(builder.sext(builder.load(builder.gep(index, [k])), _I64), unit)
            here = [builder.add(kernel, shift) for kernel in kernels]
            terms = [arithmetic.load(code, weight, here[line], vector) for line, vector in places]
            return [arithmetic.add(code, total, term) for total, term in zip(totals, terms, strict=True)]

        before = [arithmetic.load(code, row, lines[line], vector) for line, vector in places]
        for (line, vector), total in zip(places, code.loop(k0, k1, before, add), strict=True):
            code.store(total, row, lines[line], vector)
        return context.get_dummy_value()

    @intrinsic
    def add_lines(
        _: Any, row: Any, o: Any, weight: Any, w: Any, unit: Any, index: Any, k0: Any, k1: Any, output_step: Any,
        weight_step: Any,
    ) -> Any:  # fmt: skip
        return types.void(row, o, weight, w, unit, index, k0, k1, output_step, weight_step), generate

    return add_lines


add_lines, add_lines_of_integers = (_add_lines(arithmetic) for arithmetic in (FLOATS, INTEGERS))


@intrinsic
def copy(_: Any, row: Any, r: Any, source: Any, s: Any, count: Any) -> Any:
    """Write source[s:] to row[r:], so many floats, or int32: (row, r, source, s, count)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        there, here = (builder.gep(code.pointer(a), [arguments[a + 1]]) for a in (0, 2))
        cgutils.raw_memcpy(builder, there, here, arguments[4], _I64(FLOAT_BYTES))
        return context.get_dummy_value()

    return types.void(row, r, source, s, count), generate


@intrinsic
def prefetch(_: Any, values: Any, position: Any) -> Any:
    """Have the cache line at a position fetched, (values, position), which may lie behind the array's end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        address = builder.bitcast(builder.gep(code.pointer(0), [arguments[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, *[_I32] * 3])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fetch, [address, *map(_I32, (READ, TO_ALL_CACHES, DATA))])
        return context.get_dummy_value()

    return types.void(values, position), generate


def _bits(code: Code, found: Any) -> Any:
    """Return which of a vector of values are not 0, as bits; those from LANES on say which of them are no 1 either."""
    builder = code.builder
    zeros, ones = (ir.Constant(_VECTOR, [number] * LANES) for number in (0.0, 1.0))
    nonzero = builder.fcmp_unordered("!=", found, zeros)
    other = builder.and_(nonzero, builder.fcmp_unordered("!=", found, ones))
    return builder.or_(code.bits(nonzero), builder.shl(code.bits(other), _I64(LANES)))


@intrinsic
def nonzero_bits(_: Any, values: Any, position: Any) -> Any:
    """Return which of a vector of values are not 0, as bits from 0 on, (values, position).

    The bits from LANES on say which of them are no 1 either.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        return _bits(code, code.load(code.pointer(0), arguments[1]))

    return types.uint64(values, position), generate


@intrinsic
def first_nonzero_bits(_: Any, values: Any, position: Any, count: Any) -> Any:
    """Tell which of the first `count` values of a vector are not 0; the others may lie behind the array's end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, position, count = arguments
        lanes = ir.Constant(ir.VectorType(_I64, LANES), list(range(LANES)))
        mask = builder.icmp_signed("<", lanes, code.splat(count, lanes.type))
        address, zeros = code.at(code.pointer(0), position), ir.Constant(_VECTOR, [0.0] * LANES)
        kind = ir.FunctionType(_VECTOR, [address.type, _I32, mask.type, _VECTOR])
        load = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0v16f32")
        return _bits(code, builder.call(load, [address, _I32(FLOAT_BYTES), mask, zeros]))

    return types.uint64(values, position, count), generate


@intrinsic
def list_bits(_: Any, index: Any, count: Any, first: Any, bits: Any) -> Any:
    """Write first + the place of each of a vector's bits that is set to index[count:], and return the new count.

    (index, count, first, bits). A whole vector is written, whose end means nothing: without a branch for each bit,
    which no processor could foresee.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        return list_places(code, code.pointer(0), *arguments[1:])

    return types.int64(index, count, first, bits), generate


def list_places(code: Code, index: Any, count: Any, first: Any, bits: Any) -> Any:
    """Write the code of `list_bits`; `index` is the address of the array's first element."""
    builder, vector = code.builder, ir.VectorType(_I32, LANES)
    start = code.splat(builder.trunc(first, _I32), vector)
    places = builder.add(start, ir.Constant(vector, list(range(LANES))))
    mask_type = ir.VectorType(ir.IntType(1), LANES)
    if HOST.get("avx512f"):
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
