"""The steps of neurons as vector code: one row for each operation, and a layer's step, a vector of neurons at a time.

The rows of `OPERATIONS` take vectors in registers. Each operation rounds by itself, as no flag of LLVM's allows
anything else. Inference makes a function of each program, `layers.layer_of`; training writes its own with these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from spikeserve.models.engines.event.vectors import LANES, Code
from spikeserve.models.spec.exponential import HIGHEST, LOWEST, parts
from spikeserve.models.spec.expressions import Expression, evaluate, in_order, leaf
from spikeserve.models.spec.program import CURRENT, FEEDBACK, Program

EXPONENT_BIAS, MANTISSA_BITS = 1023, 52  # of a float64
_I64 = ir.IntType(64)
_FLOATS = ir.FloatType().as_pointer()
_DOUBLES, _WIDE = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(_I64, LANES)
_VECTOR, _MASK = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(1), LANES)


@dataclass(frozen=True)
class Vector:
    """A vector in registers."""

    code: Code
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fdiv(self.value, other.value))

    def number(self, value: float) -> Vector:
        """Make a vector of one number, of the same type."""
        return Vector(self.code, ir.Constant(self.value.type, [value] * LANES))

    def call(self, operation: str) -> Vector:
        """Apply one of LLVM's own operations."""
        return Vector(self.code, self.code.call(operation, self.value))

    def where(self, operator: str, other: Vector, yes: Vector, no: Vector) -> Vector:
        """Choose `yes` where the comparison with `other` holds, else `no`."""
        return Vector(self.code, self.code.builder.select(self.compared(operator, other), yes.value, no.value))

    def compared(self, operator: str, other: Vector) -> Any:
        """Make the mask of a comparison, which is false where a value is NaN."""
        return self.code.builder.fcmp_ordered(operator, self.value, other.value)


def _compared(operator: str) -> Callable[[Vector, Vector], Vector]:
    return lambda first, second: first.where(operator, second, first.number(1.0), first.number(0.0))


def _select(condition: Vector, yes: Vector, no: Vector) -> Vector:
    return condition.where(">", condition.number(0.0), yes, no)


def _fire_multiple(charged: Vector, threshold: Vector) -> Vector:
    often, zero = charged / threshold, charged.number(0.0)
    return _select(charged, _select(often, often.call("llvm.floor"), zero), zero)


def _exp(values: Vector) -> Vector:
    """Raise e to the power of the values, by a function of the module, whose code stands once for all uses."""
    module = values.code.builder.module
    function = module.globals.get("exponential")
    if function is None:
        kind = ir.FunctionType(values.value.type, [values.value.type])
        function = ir.Function(module, kind, "exponential")
        function.linkage = "internal"
        function.attributes.add("noinline")
        code = Code(None, ir.IRBuilder(function.append_basic_block()))
        code.builder.ret(_exponential(Vector(code, function.args[0])).value)
    return Vector(values.code, values.code.builder.call(function, [values.value]))


def _exponential(values: Vector) -> Vector:
    """Write the exponential; 2**k is made of k as the exponent of a float64."""
    code, builder, lowest, highest = values.code, values.code.builder, values.number(LOWEST), values.number(HIGHEST)
    c = values.where(">", lowest, values, lowest)
    c = c.where("<", highest, c, highest)
    wide = Vector(code, builder.fpext(c.value, _DOUBLES))
    p, k = parts(wide, wide.number, lambda scaled: scaled.call("llvm.floor"))
    exponent = builder.add(builder.fptosi(k.value, _WIDE), ir.Constant(_WIDE, [EXPONENT_BIAS] * LANES))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(_WIDE, [MANTISSA_BITS] * LANES)), _DOUBLES)
    result = builder.fptrunc((p * Vector(code, power)).value, values.value.type)
    nan = builder.fcmp_unordered("uno", values.value, values.value)
    return Vector(code, builder.select(nan, values.value, result))


OPERATIONS: Mapping[str, Callable[..., Vector]] = {
    "+": lambda first, second: first + second,
    "-": lambda first, second: first - second,
    "*": lambda first, second: first * second,
    "/": lambda first, second: first / second,
    "neg": lambda value: Vector(value.code, value.code.builder.fneg(value.value)),
    "abs": lambda value: value.call("llvm.fabs"),
    "minimum": lambda first, second: first.where("<", second, first, second),
    "maximum": lambda first, second: first.where(">", second, first, second),
    ">": _compared(">"),
    ">=": _compared(">="),
    "==": _compared("=="),
    "select": _select,
    "exp": _exp,
    "sqrt": lambda value: value.call("llvm.sqrt"),
    "floor": lambda value: value.call("llvm.floor"),
    "trunc": lambda value: value.call("llvm.trunc"),
    "fire": _compared(">="),
    "fire_above": _compared(">"),
    "fire_multiple": _fire_multiple,
    "hold": lambda value: value,
}


def write(
    code: Code,
    roots: Sequence[Expression],
    known: Mapping[Expression, Vector],
    operations: Mapping[str, Callable[..., Vector]] = OPERATIONS,
) -> list[Vector]:
    """Write the code of expressions, from the vectors that are `known`."""

    def compute(each: Expression, operands: Sequence[Vector]) -> Vector:
        if each.operation == "constant":
            return Vector(code, ir.Constant(code.vector, [each.detail] * LANES))
        return operations[each.operation](*operands)

    return evaluate(roots, known, compute)


def scalars(program: Program, arrays: frozenset[str]) -> tuple[str, ...]:
    """List the parameters that are one number for the layer; `arrays` names those of which each neuron has its own."""
    return tuple(name for name in program.parameters if name not in arrays)


def rows_at(program: Program, arrays: frozenset[str]) -> int:
    """Tell where the rows of the parameters that each neuron has its own of begin, behind those of one number."""
    return -(-len(scalars(program, arrays)) // LANES) * LANES


class Step:
    """The code of a layer's step, written for one vector of neurons after another.

    The parameters lie as `plan` lays them out, those of each neuron `p_stride` apart. `inside` has the bits of a vector
    that are no padding, and is None in a layer that is not padded; `trace` is the first row of the membranes' trace, or
    null.
    """

    def __init__(
        self, code: Code, program: Program, arrays: frozenset[str], parameters: Any, p_stride: Any, inside: Any,
        trace: Any,
    ) -> None:  # fmt: skip
        builder = code.builder
        self.code, self.program, self.inside = code, program, inside
        self.numbers = {
            leaf(name): Vector(code, code.splat(builder.load(builder.gep(parameters, [_I64(k)]))))
            for k, name in enumerate(scalars(program, arrays))
        }
        rows = builder.gep(parameters, [_I64(rows_at(program, arrays))])
        self.rows = {
            leaf(name): builder.gep(rows, [builder.mul(p_stride, _I64(k))]) for k, name in enumerate(sorted(arrays))
        }
        self.used = {*in_order(program.roots)}
        self.traced = builder.icmp_unsigned("!=", trace, ir.Constant(_FLOATS, None))

    def states(self, states: Any, stride: Any) -> list[Any]:
        """Write where each state of a sample begins."""
        builder = self.code.builder
        return [builder.gep(states, [builder.mul(stride, _I64(k))]) for k in range(len(self.program.after))]

    def write(
        self, states: list[Any], at: Any, current: Any, feedback: Callable[[], Any], trace: Any
    ) -> tuple[Vector, Any]:
        """Write the step of the neurons from `at` on. It gives what leaves them and the bits of those that fired.

        Neurons that do not spike have no bits (None). `feedback` loads what comes back, if the step reads it. The
        membranes go to a row of the `trace`.
        """
        code, builder, program = self.code, self.code.builder, self.program
        known = self.numbers | {
            each: Vector(code, code.load(row, at)) for each, row in self.rows.items() if each in self.used
        }
        known |= {leaf(name): Vector(code, code.load(row, at)) for name, row in zip(program.after, states, strict=True)}
        known[leaf(CURRENT)] = Vector(code, current)
        if leaf(FEEDBACK) in self.used:
            known[leaf(FEEDBACK)] = Vector(code, feedback())
        leaving, membrane, *after = write(code, program.roots, known)
        for value, row in zip(after, states, strict=True):
            code.store(value.value, row, at)
        zero, mask = leaving.number(0.0), None
        if self.inside is not None:
            number = builder.udiv(at, _I64(LANES))
            mask = builder.bitcast(builder.load(builder.gep(self.inside, [number])), _MASK)
        with builder.if_then(self.traced):
            shown = membrane.value if mask is None else builder.select(mask, membrane.value, zero.value)
            code.store(shown, trace, at)
        if not program.spiking:
            return leaving, None
        fired = leaving.compared(">", zero)
        return leaving, code.bits(fired if mask is None else builder.and_(fired, mask))
