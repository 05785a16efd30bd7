"""What the kernels need and Numba's language lacks: vectors of eight floats in registers, and the bits of their masks.

Each function below is an intrinsic: it writes LLVM code in the place of its call. Arrays are one-dimensional and
contiguous, float32 or int32; positions count elements. Nothing is checked here: callers stay within bounds by the
padding and the tables that `plan` makes. No fast-math flag is set, so that every operation rounds by itself.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class _Code:
    """LLVM code on its way into a function, with the few operations that the intrinsics are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.kinds, self.arguments = signature.args, arguments

    def pointer(self, argument: int) -> Any:
        """Return the address of an array's first element."""
        array = self.context.make_array(self.kinds[argument])
        return array(self.context, self.builder, self.arguments[argument]).data

    def at(self, pointer: Any, position: Any, offset: int = 0) -> Any:
        """Return the address of the vector at a position, plus so many vectors."""
        if offset:
            position = self.builder.add(position, _I64(offset * LANES))
        return self.builder.bitcast(self.builder.gep(pointer, [position]), _VECTOR.as_pointer())

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
        first = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, first, zeros)

    def bits(self, booleans: Any) -> Any:
        """Return a vector of booleans as the low bits of a 64-bit integer."""
        return self.builder.zext(self.builder.bitcast(booleans, ir.IntType(LANES)), _I64)


def _gather(vectors: int, *, valued: bool) -> Any:
    """Make the intrinsic that adds weight rows to `vectors` vectors of a row, held in registers throughout.

    (row, o, weight, w, stride, index, value, k0, k1): row[o:] += weight[index[k] * stride + w:] for k0 <= k < k1, times
    value[k] if `valued`. Rows are added one after the other, k ascending, so the order of the sum is that of the events.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        row, weight, index, value = (code.pointer(argument) for argument in (0, 2, 5, 6))
        o, w, stride, k0, k1 = (arguments[argument] for argument in (1, 3, 4, 7, 8))
        before = [code.load(row, o, vector) for vector in range(vectors)]
        entry = builder.block
        loop, done = builder.append_basic_block("rows"), builder.append_basic_block("rows.done")
        builder.cbranch(builder.icmp_signed("<", k0, k1), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(_I64)
        k.add_incoming(k0, entry)
        sums = [builder.phi(_VECTOR) for _ in range(vectors)]
        unit = builder.sext(builder.load(builder.gep(index, [k])), _I64)
        position = builder.add(builder.mul(unit, stride), w)
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
            code.store(result, row, o, vector)
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def gather(
        _: Any, row: Any, o: Any, weight: Any, w: Any, stride: Any, index: Any, value: Any, k0: Any, k1: Any
    ) -> Any:
        return types.void(row, o, weight, w, stride, index, value, k0, k1), generate

    return gather


gather_16 = _gather(16, valued=False)
gather_4 = _gather(4, valued=False)
gather_1 = _gather(1, valued=False)
gather_values_16 = _gather(16, valued=True)
gather_values_4 = _gather(4, valued=True)
gather_values_1 = _gather(1, valued=True)


@intrinsic  # type: ignore[untyped-decorator]
def add_run(_: Any, row: Any, o: Any, weight: Any, w: Any, vectors: Any, factor: Any) -> Any:
    """Add a run of weights to a row, (row, o, weight, w, vectors, factor): row[o:] += factor * weight[w:]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        row, weight = code.pointer(0), code.pointer(2)
        factor = code.splat(arguments[5])
        with cgutils.for_range(builder, arguments[4]) as step:
            shift = builder.mul(step.index, _I64(LANES))
            there, here = builder.add(arguments[1], shift), builder.add(arguments[3], shift)
            term = builder.fmul(factor, code.load(weight, here))
            code.store(builder.fadd(code.load(row, there), term), row, there)
        return context.get_dummy_value()

    return types.void(row, o, weight, w, vectors, factor), generate


@intrinsic  # type: ignore[untyped-decorator]
def charge_fire_reset(
    _: Any,
    j: Any,
    membrane: Any,
    row: Any,
    decay: Any,
    gain: Any,
    drive: Any,
    fires_at: Any,
    change: Any,
    to_value: Any,
) -> Any:
    """Step eight neurons from position j on and return their spikes as bits; `models.neurons` has the equations.

    (j, membrane, row, decay, gain, drive, fires_at, change, to_value): a neuron fires at `fires_at` or above, and a spike
    then subtracts `change` from its membrane or, where `to_value` is 1, sets it to that.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        j = arguments[0]
        v, i, decay, gain, drive, fires_at, change = (code.load(code.pointer(a), j) for a in range(1, 8))
        charged = builder.fadd(builder.fadd(builder.fmul(decay, v), builder.fmul(gain, i)), drive)
        fired = builder.fcmp_ordered(">=", charged, fires_at)
        to_value = builder.icmp_signed("!=", arguments[8], arguments[8].type(0))
        reset = builder.select(to_value, change, builder.fsub(charged, change))
        code.store(builder.select(fired, reset, charged), code.pointer(1), j)
        return code.bits(fired)

    signature = types.int64(j, membrane, row, decay, gain, drive, fires_at, change, to_value)
    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def nonzero_bits(_: Any, values: Any, position: Any) -> Any:
    """Return which of eight values are not 0, as bits, (values, position)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Code(context, builder, signature, arguments)
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        return code.bits(builder.fcmp_unordered("!=", code.load(code.pointer(0), arguments[1]), zeros))

    return types.int64(values, position), generate


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(_: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set; `bits` must not be 0."""

    def generate(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate
