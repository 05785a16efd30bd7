"""A step and its gradients as native functions: the expressions of `derivation`, written as vector code.

The rows of the operations are those of inference, `models.engines.event.steps`, and two that gradients alone need.
Each function goes through some neighbouring neurons of one sample, a vector at a time, and kernels call it by address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from spikeserve.models.engines.event.native import Native, native
from spikeserve.models.engines.event.steps import OPERATIONS as OF_STEPS
from spikeserve.models.engines.event.steps import Vector, write
from spikeserve.models.engines.event.vectors import LANES, Code
from spikeserve.models.spec.expressions import leaf
from spikeserve.training.fit.operators.derivation import CURRENT, FEEDBACK, SLOPE, TO_LEAVING, Rule, Step, gradient_of

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOAT, _FLOATS = ir.FloatType(), ir.FloatType().as_pointer()
_MASK = ir.VectorType(ir.IntType(1), LANES)

ZERO = _I64(0)

step_of = cache(Step.of)


def _sigmoid(values: Vector) -> Vector:
    one = values.number(1.0)
    return one / (one + _rough_exponential(values.number(0.0) - values))


def _nearest(charged: Vector, threshold: Vector) -> Vector:
    """Count the whole thresholds that are nearest to what is charged, at least 1."""
    one, often = charged.number(1.0), (charged / threshold).call("llvm.rint")
    return often.where(">", one, often, one)


def _rough_exponential(values: Vector) -> Vector:
    """Raise e to the power of `values`, to about one unit in the last place (Cephes' expf): for gradients alone.

    x = n ln 2 + r; e**r is a polynomial, and 2**n is made of n as a float's exponent.
    """
    builder, number = values.code.builder, values.number
    low, high = number(-87.0), number(88.0)
    x = values.where(">", low, values, low)
    x = high.where(">", x, x, high)
    n = (x * number(1.44269504088896341)).call("llvm.rint")
    r = (x - n * number(0.693359375)) - n * number(-2.12194440e-4)
    total = number(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        total = total * r + number(coefficient)
    power = total * (r * r) + r + number(1.0)
    whole = ir.VectorType(_I32, LANES)
    exponent = builder.add(builder.fptosi(n.value, whole), ir.Constant(whole, [127] * LANES))
    scale = builder.bitcast(builder.shl(exponent, ir.Constant(whole, [23] * LANES)), values.value.type)
    return power * Vector(values.code, scale)


OPERATIONS: Mapping[str, Callable[..., Vector]] = {**OF_STEPS, "sigmoid": _sigmoid, "nearest": _nearest}


class _Rows:
    """Loads and stores what a vector of neurons has in memory, the k-th row `stride` apart."""

    def __init__(self, code: Code, at: Any) -> None:
        self.code, self.builder, self.at = code, code.builder, at

    def place(self, stride: Any, k: int) -> Any:
        """Find where the vector lies in row k."""
        return self.builder.add(self.at, self.builder.mul(stride, _I64(k)))

    def load(self, pointer: Any, stride: Any = ZERO, k: int = 0) -> Vector:
        """Load the vector of row k."""
        return Vector(self.code, self.code.load(pointer, self.place(stride, k)))

    def store(self, value: Vector, pointer: Any, stride: Any = ZERO, k: int = 0) -> None:
        """Store the vector of row k."""
        self.code.store(value.value, pointer, self.place(stride, k))

    def mask(self, lanes: Any) -> Any:
        """Make the mask of those that come before the first `lanes`."""
        numbers = ir.VectorType(_I32, LANES)
        left = self.code.splat(self.builder.trunc(self.builder.sub(lanes, self.at), _I32), numbers)
        return self.builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), left)

    def load_masked(self, pointer: Any, mask: Any) -> Vector:
        """Load the lanes of a mask, and 0 in place of the others, whose memory is not touched."""
        address, vector = self.code.at(pointer, self.at), self.code.vector
        load = self.intrinsic("load", vector, [address.type, _I32, _MASK, vector])
        return Vector(self.code, self.builder.call(load, [address, _I32(4), mask, ir.Constant(vector, [0.0] * LANES)]))

    def store_masked(self, value: Vector, pointer: Any, mask: Any) -> None:
        """Store the lanes of a mask."""
        address = self.code.at(pointer, self.at)
        store = self.intrinsic("store", ir.VoidType(), [self.code.vector, address.type, _I32, _MASK])
        self.builder.call(store, [value.value, address, _I32(4), mask])

    def intrinsic(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """Declare one of LLVM's masked operations."""
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{name}.v{LANES}f32.p0")


@cache  # which holds it, while kernels have its address
def forward_of(rule: Rule) -> Native:
    """Make the function that steps neurons.

    (count, samples, current, c_sample, feedback, states, s_stride, s_sample, parameters, p_stride, stored, q_stride,
    q_sample, leaving, lanes, l_sample, fired, f_sample): it steps `count` neurons, whole vectors of them, of each
    sample; what is a sample's lies so far from that of the sample before. State k lies at states[k * s_stride:],
    parameter k at parameters[k * p_stride:], and what the backward pass needs goes to stored[k * q_stride:]. The first
    `lanes` of `current` are read. What leaves goes to `leaving`, so many of it, unless that is null, and the bits of
    those that fired to `fired`, LANES in each.
    """

    def build(builder: Any, arguments: Any) -> None:
        step = step_of(rule)
        (
            n, samples, currents, c_sample, feedback, all_states, s_stride, s_sample, parameters, p_stride, all_stored,
            q_stride, q_sample, all_leaving, lanes, l_sample, all_fired, f_sample,
        ) = arguments  # fmt: skip
        code = Code(None, builder)
        writes = builder.icmp_unsigned("!=", all_leaving, ir.Constant(_FLOATS, None))

        def body(sample: Any, number: Any) -> None:
            current, states, stored, leaving, fired = (
                builder.gep(first, [builder.mul(sample, apart)])
                for first, apart in (
                    (currents, c_sample), (all_states, s_sample), (all_stored, q_sample), (all_leaving, l_sample),
                    (all_fired, f_sample),
                )
            )  # fmt: skip
            rows = _Rows(code, builder.mul(number, _I64(LANES)))
            mask = rows.mask(lanes)
            known = {leaf(name): rows.load(states, s_stride, k) for k, name in enumerate(step.states)}
            known |= {leaf(name): rows.load(parameters, p_stride, k) for k, name in enumerate(step.parameters)}
            known[CURRENT] = rows.load_masked(current, mask)
            if step.to_feedback is not None:
                known[FEEDBACK] = rows.load(feedback)
            out, *rest = write(code, [step.leaving, *step.after, *step.stored], known, OPERATIONS)
            for k, value in enumerate(rest[: len(step.states)]):
                rows.store(value, states, s_stride, k)
            for k, value in enumerate(rest[len(step.states) :]):
                rows.store(value, stored, q_stride, k)
            with builder.if_then(writes):
                rows.store_masked(out, leaving, mask)
            bits = builder.bitcast(builder.and_(out.compared(">", out.number(0.0)), mask), _I16)
            builder.store(bits, builder.gep(fired, [number]))

        vectors = builder.udiv(n, _I64(LANES))
        with cgutils.for_range(builder, samples) as each, cgutils.for_range(builder, vectors) as vector:
            body(each.index, vector.index)
        builder.ret(_I64(0))

    pair, triple = [_FLOATS, _I64], [_FLOATS, _I64, _I64]
    kinds = [_I64, _I64, *pair, _FLOATS, *triple, *pair, *triple * 2, _I16.as_pointer(), _I64]
    return native(("forward", rule), kinds, build)


@cache
def backward_of(rule: Rule) -> Native:
    """Make the function that steps gradients back.

    (count, to_leaving, lanes, common, back, to_states, s_stride, parameters, p_stride, stored, q_stride, slope,
    to_current, adds, to_feedback, to_trained, t_stride): for `count` neurons, whole vectors of them, the gradient of
    what leaves is the sum of `to_leaving`, of which `lanes` are read, `common` and `back`. Those of the states are read
    from to_states[k * s_stride:] and written there for the step before. The gradient of the current goes to
    `to_current`, or is added to it if `adds` is not 0, that of the feedback to `to_feedback` where it is another one,
    and those of the trained parameters are added to to_trained[k * t_stride:].
    """

    def build(builder: Any, arguments: Any) -> None:
        step = step_of(rule)
        n, to_leaving, lanes, common, back, to_states, s_stride, parameters, p_stride, stored, q_stride, *ends = (
            arguments
        )
        slope, to_current, adds, to_feedback, to_trained, t_stride = ends
        code = Code(None, builder)
        steepness = Vector(code, code.splat(slope))
        summed = builder.icmp_signed("!=", adds, _I64(0))

        def body(number: Any, _: list[Any]) -> list[Any]:
            rows = _Rows(code, builder.mul(number, _I64(LANES)))
            gradient = rows.load_masked(to_leaving, rows.mask(lanes))
            known = {TO_LEAVING: gradient + rows.load(common) + rows.load(back), SLOPE: steepness}
            known |= {gradient_of(name): rows.load(to_states, s_stride, k) for k, name in enumerate(step.states)}
            known |= {leaf(name): rows.load(parameters, p_stride, k) for k, name in enumerate(step.parameters)}
            known |= {each: rows.load(stored, q_stride, k) for k, each in enumerate(step.stored)}
            separate = has_feedback_of_its_own(step)
            end = [step.to_feedback] if separate and step.to_feedback is not None else []
            outputs = [step.to_current, *step.to_before, *step.to_trained, *end]
            current, *others = write(code, outputs, known, OPERATIONS)
            total = rows.load(to_current) + current
            rows.store(Vector(code, builder.select(summed, total.value, current.value)), to_current)
            for k in range(len(step.states)):
                rows.store(others[k], to_states, s_stride, k)
            for k in range(len(step.trained)):
                rows.store(rows.load(to_trained, t_stride, k) + others[len(step.states) + k], to_trained, t_stride, k)
            if separate:
                rows.store(others[-1], to_feedback)
            return []

        code.loop(_I64(0), builder.udiv(n, _I64(LANES)), [], body)
        builder.ret(_I64(0))

    pair = [_FLOATS, _I64]
    start = [_I64, *pair, _FLOATS, _FLOATS, *pair * 3]
    return native(("backward", rule), [*start, _FLOAT, *pair, _FLOATS, *pair], build)


def has_feedback_of_its_own(step: Step) -> bool:
    """Tell whether the gradient of a layer's feedback is another than that of its current."""
    return step.to_feedback is not None and step.to_feedback is not step.to_current
