"""A step and its gradients as vector code inside Numba kernels: the expressions of `derivation`, written as LLVM.

A kernel takes a `Rule` as its first argument. Numba compiles it once for each rule that it meets, since a rule is a
type of its own there, and what the rule's step computes is written in the place of `forward_step` and `backward_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from spikeserve.models.engines.event.stepping import Vector, VectorArithmetic
from spikeserve.models.engines.event.vectors import LANES, Code, intrinsic
from spikeserve.training.fit.operators.derivation import CURRENT, FEEDBACK, SLOPE, TO_LEAVING, Rule, Step
from spikeserve.training.fit.operators.expressions import Expression, evaluate, leaf

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class RuleType(types.Type):
    """The type that a rule has inside a kernel; a value of it holds nothing."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        super().__init__(
            name=f"Rule({rule.node.model_dump_json()}, {rule.trained}, {rule.surrogate}, {rule.detach_reset})"
        )


register_model(RuleType)(models.OpaqueModel)


@typeof_impl.register(Rule)  # type: ignore[untyped-decorator]
def _(rule: Rule, _: Any) -> RuleType:
    return RuleType(rule)


@unbox(RuleType)  # type: ignore[untyped-decorator]
def _(_: Any, __: Any, context: Any) -> Any:
    return NativeValue(context.context.get_dummy_value())


step_of = cache(Step.of)


class _Writer:
    """Writes expressions into a kernel, and loads and stores what they need."""

    arithmetic = VectorArithmetic()

    def __init__(self, code: Code) -> None:
        self.code = code

    def mask(self, lanes: Any) -> Any:
        """Return a mask of the first `lanes` lanes."""
        builder = self.code.builder
        numbers = ir.VectorType(_I32, LANES)
        first = builder.insert_element(ir.Constant(numbers, ir.Undefined), builder.trunc(lanes, _I32), _I32(0))
        count = builder.shuffle_vector(first, first, ir.Constant(numbers, [0] * LANES))
        return builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), count)

    def load(self, pointer: Any, *places: Any) -> Vector:
        """Load the vector at the sum of `places`."""
        return Vector(self.code, self.code.load(pointer, self.sum(places)))

    def store(self, vector: Vector, pointer: Any, *places: Any) -> None:
        """Store a vector at the sum of `places`."""
        self.code.store(vector.value, pointer, self.sum(places))

    def load_masked(self, pointer: Any, place: Any, mask: Any) -> Vector:
        """Load the lanes of a mask, and 0 in place of the others, whose memory is not touched."""
        address = self.code.at(pointer, place)
        vector = self.code.vector
        kind = ir.FunctionType(vector, [address.type, _I32, _MASK, vector])
        name = f"llvm.masked.load.v{LANES}f32.p0"
        load = cgutils.get_or_insert_function(self.code.builder.module, kind, name)
        return Vector(
            self.code, self.code.builder.call(load, [address, _I32(4), mask, ir.Constant(vector, [0.0] * LANES)])
        )

    def store_masked(self, vector: Vector, pointer: Any, place: Any, mask: Any) -> None:
        """Store the lanes of a mask."""
        address = self.code.at(pointer, place)
        kind = ir.FunctionType(ir.VoidType(), [self.code.vector, address.type, _I32, _MASK])
        name = f"llvm.masked.store.v{LANES}f32.p0"
        store = cgutils.get_or_insert_function(self.code.builder.module, kind, name)
        self.code.builder.call(store, [vector.value, address, _I32(4), mask])

    def sum(self, places: Sequence[Any]) -> Any:
        """Return the sum of integers."""
        total = places[0]
        for place in places[1:]:
            total = self.code.builder.add(total, place)
        return total

    def times(self, stride: Any, number: int) -> Any:
        """Return a multiple of an integer."""
        return self.code.builder.mul(stride, _I64(number))

    def write(self, roots: Sequence[Expression], known: Mapping[Expression, Vector]) -> list[Vector]:
        """Return the values of expressions."""
        return evaluate(roots, known, self._compute)

    def _compute(self, expression: Expression, operands: Sequence[Vector]) -> Vector:
        if expression.operation == "constant":
            return Vector(self.code, ir.Constant(self.code.vector, [expression.detail] * LANES))
        if expression.operation == "fire":
            charged, threshold = operands
            return self.arithmetic.fire(charged, threshold, expression.detail)
        return OPERATIONS[expression.operation](self, *operands)

    def _abs(self, values: Vector) -> Vector:
        return Vector(self.code, self.code.call("llvm.fabs", values.value))

    def _sigmoid(self, values: Vector) -> Vector:
        one = self.arithmetic.constant(values, 1.0)
        return one / (one + self._rough_exponential(self.arithmetic.constant(values, 0.0) - values))

    def _nearest(self, charged: Vector, threshold: Vector) -> Vector:
        one = self.arithmetic.constant(charged, 1.0)
        often = Vector(self.code, self.code.call("llvm.rint", (charged / threshold).value))
        return self.arithmetic.where(self.arithmetic.compare(">", often, one), often, one)

    def _rough_exponential(self, values: Vector) -> Vector:
        """Return e to the power of `values`, to about one unit in the last place (Cephes' expf): for gradients alone.

        x = n ln 2 + r; e**r is a polynomial, and 2**n is made of n as a float's exponent.
        """
        builder, arithmetic = self.code.builder, self.arithmetic

        def number(value: float) -> Vector:
            return arithmetic.constant(values, value)

        low, high = number(-87.0), number(88.0)
        x = arithmetic.where(arithmetic.compare(">", values, low), values, low)
        x = arithmetic.where(arithmetic.compare(">", high, x), x, high)
        n = Vector(self.code, self.code.call("llvm.rint", (x * number(1.44269504088896341)).value))
        r = (x - n * number(0.693359375)) - n * number(-2.12194440e-4)
        total = number(1.9875691500e-4)
        for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            total = total * r + number(coefficient)
        power = total * (r * r) + r + number(1.0)
        whole = ir.VectorType(_I32, LANES)
        exponent = builder.add(builder.fptosi(n.value, whole), ir.Constant(whole, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(whole, [23] * LANES)), self.code.vector)
        return power * Vector(self.code, scale)


OPERATIONS: Mapping[str, Callable[..., Vector]] = {
    "+": lambda _, first, second: first + second,
    "-": lambda _, first, second: first - second,
    "*": lambda _, first, second: first * second,
    "/": lambda _, first, second: first / second,
    "select": lambda writer, spikes, fired, silent: writer.arithmetic.select(spikes, fired, silent),
    "held": lambda _, spikes: spikes,
    "positive": lambda writer, values: writer.arithmetic.positive(values),
    "exponential": lambda writer, values: writer.arithmetic.exponential(values),
    "abs": _Writer._abs,
    "sigmoid": _Writer._sigmoid,
    "nearest": _Writer._nearest,
}


@intrinsic
def forward_step(
    _: Any, rule: Any, states: Any, s: Any, s_stride: Any, current: Any, c: Any, feedback: Any, f: Any,
    parameters: Any, p: Any, p_stride: Any, stored: Any, q: Any, q_stride: Any, leaving: Any, o: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Step a vector of neurons, and return which fired as bits.

    (rule, states, s, s_stride, current, c, feedback, f, parameters, p, p_stride, stored, q, q_stride, leaving, o,
    lanes): state k lies at states[s + k * s_stride:], parameter k at parameters[p + k * p_stride:], and what the
    backward pass needs goes to stored[q + k * q_stride:]. The first `lanes` of current[c:] are read. What leaves goes
    to leaving[o:], so many lanes of it, unless that is empty.
    """
    step = step_of(rule.rule)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        writer = _Writer(code)
        _, _, s, s_stride, _, c, _, f, _, p, p_stride, _, q, q_stride, _, o, lanes = arguments
        states, current, feedback, parameters, stored, leaving = (code.pointer(a) for a in (1, 4, 6, 8, 11, 14))
        mask = writer.mask(lanes)
        known = {leaf(name): writer.load(states, s, writer.times(s_stride, k)) for k, name in enumerate(step.states)}
        known |= {
            leaf(name): writer.load(parameters, p, writer.times(p_stride, k)) for k, name in enumerate(step.parameters)
        }
        known[CURRENT] = writer.load_masked(current, c, mask)
        if step.to_feedback is not None:
            known[FEEDBACK] = writer.load(feedback, f)
        out, *rest = writer.write([step.leaving, *step.after, *step.stored], known)
        for k, value in enumerate(rest[: len(step.states)]):
            writer.store(value, states, s, writer.times(s_stride, k))
        for k, value in enumerate(rest[len(step.states) :]):
            writer.store(value, stored, q, writer.times(q_stride, k))
        size = code.context.make_array(signature.args[14])(context, builder, arguments[14]).nitems
        with builder.if_then(builder.icmp_signed(">", size, _I64(0))):
            writer.store_masked(out, leaving, o, mask)
        fired = writer.arithmetic.compare(">", out, writer.arithmetic.constant(out, 0.0))
        return code.bits(builder.and_(fired, mask))

    return types.uint64(
        rule, states, s, s_stride, current, c, feedback, f, parameters, p, p_stride, stored, q, q_stride, leaving, o,
        lanes,
    ), generate  # fmt: skip


@intrinsic
def backward_step(
    _: Any, rule: Any, to_leaving: Any, g: Any, lanes: Any, common: Any, n: Any, back: Any, b: Any, to_states: Any,
    s: Any, s_stride: Any, parameters: Any, p: Any, p_stride: Any, stored: Any, q: Any, q_stride: Any, slope: Any,
    to_current: Any, c: Any, to_feedback: Any, f: Any, to_trained: Any, t: Any, t_stride: Any,
) -> Any:  # fmt: skip
    """Step a vector of gradients back.

    (rule, to_leaving, g, lanes, common, n, back, b, to_states, s, s_stride, parameters, p, p_stride, stored, q,
    q_stride, slope, to_current, c, to_feedback, f, to_trained, t, t_stride): the gradient of what leaves is the sum of
    to_leaving[g:], of which `lanes` are read, common[n:] and back[b:]. Those of the states are read from
    to_states[s + k * s_stride:] and written there for the step before. The gradient of the current goes to
    to_current[c:], that of the feedback to to_feedback[f:] where it is another one, and those of the trained parameters
    are added to to_trained[t + k * t_stride:].
    """
    step = step_of(rule.rule)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        writer = _Writer(code)
        _, _, g, lanes, _, n, _, b, _, s, s_stride, _, p, p_stride, _, q, q_stride, slope, *rest = arguments
        _, c, _, f, _, t, t_stride = rest
        to_leaving, common, back, to_states, parameters, stored, to_current, to_feedback, to_trained = (
            code.pointer(a) for a in (1, 4, 6, 8, 11, 14, 18, 20, 22)
        )
        given = writer.load_masked(to_leaving, g, writer.mask(lanes))
        known = {
            TO_LEAVING: given + writer.load(common, n) + writer.load(back, b),
            SLOPE: Vector(code, code.splat(builder.fptrunc(slope, ir.FloatType()))),
        }
        for k, name in enumerate(step.states):
            known[leaf(f"gradient.{name}")] = writer.load(to_states, s, writer.times(s_stride, k))
        for k, name in enumerate(step.parameters):
            known[leaf(name)] = writer.load(parameters, p, writer.times(p_stride, k))
        for k, expression in enumerate(step.stored):
            known[expression] = writer.load(stored, q, writer.times(q_stride, k))
        separate = has_feedback_of_its_own(step)
        ends = [step.to_feedback] if separate and step.to_feedback is not None else []
        current, *others = writer.write([step.to_current, *step.to_before, *step.to_trained, *ends], known)
        writer.store(current, to_current, c)
        for k in range(len(step.states)):
            writer.store(others[k], to_states, s, writer.times(s_stride, k))
        for k in range(len(step.trained)):
            place = writer.sum([t, writer.times(t_stride, k)])
            writer.store(writer.load(to_trained, place) + others[len(step.states) + k], to_trained, place)
        if separate:
            writer.store(others[-1], to_feedback, f)
        return context.get_dummy_value()

    return types.void(
        rule, to_leaving, g, lanes, common, n, back, b, to_states, s, s_stride, parameters, p, p_stride, stored, q,
        q_stride, slope, to_current, c, to_feedback, f, to_trained, t, t_stride,
    ), generate  # fmt: skip


def has_feedback_of_its_own(step: Step) -> bool:
    """Return whether the gradient of a layer's feedback is another than that of its current."""
    return step.to_feedback is not None and step.to_feedback is not step.to_current
