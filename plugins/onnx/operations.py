"""An ONNX graph that is being built, and a step's operations in it: a row for each of `models.neurons.operations`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.spec.exponential import HIGHEST, HIGHEST_POWER, LOWEST, LOWEST_POWER, parts


@dataclass(frozen=True)
class Value:
    """A named tensor of a graph; arithmetic on it adds operators to its graph.

    `truth` are the booleans of which a comparison's 0 and 1 are made.
    """

    graph: GraphBuilder
    name: str
    truth: Value | None = None

    def __add__(self, other: Value) -> Value:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Value) -> Value:
        return self.graph.op("Sub", self, other)

    def __rsub__(self, number: float) -> Value:
        return self.graph.constant(number, np.float32) - self

    def __mul__(self, other: Value) -> Value:
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Value) -> Value:
        return self.graph.op("Div", self, other)


@dataclass
class GraphBuilder:
    """The operators and constants of an ONNX graph; a Scan's body shares the counter that makes names unique."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    keeps_signs: bool = False  # whether a choice keeps the sign of a zero

    def fresh(self, stem: str) -> Value:
        """Return a value with a unique name."""
        return Value(self, f"{stem}_{next(self.numbers)}")

    def float(self, number: float) -> Value:
        """Add a float32."""
        return self.constant(number, np.float32)

    def constant(self, value: Any, dtype: Any = None, name: str | None = None) -> Value:
        """Add an initializer."""
        constant = Value(self, name) if name else self.fresh("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), constant.name))
        return constant

    def weights(self, values: NDArray[Any], name: str) -> Value:
        """Add weights as an initializer, or a matrix that is mostly 0 as a sparse constant, which takes fewer bytes."""
        places = np.flatnonzero(values)
        if values.ndim != 2 or not 0 < places.size * (8 + values.itemsize) < values.nbytes:
            return self.constant(values, name=name)
        stored = numpy_helper.from_array(values.reshape(-1)[places], name)
        where = numpy_helper.from_array(places.astype(np.int64), f"{name}.places")
        return self.ops(
            "Constant", outputs=[name], sparse_value=helper.make_sparse_tensor(stored, where, values.shape)
        )[0]

    def ops(self, operator: str, *inputs: Value, outputs: Sequence[str | None], **attributes: Any) -> list[Value]:
        """Add an operator with several outputs; an output of None gets a unique name."""
        results = [Value(self, name) if name else self.fresh(operator.lower()) for name in outputs]
        self.nodes.append(
            helper.make_node(
                operator, [value.name for value in inputs], [value.name for value in results], **attributes
            )
        )
        return results

    def op(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """Add an operator of one output."""
        return self.ops(operator, *inputs, outputs=[None], **attributes)[0]

    def cast(self, value: Value, to: int) -> Value:
        """Convert to another element type."""
        return self.op("Cast", value, to=to)

    def reshape(self, value: Value, shape: Value) -> Value:
        """Reshape; a size of 0 means no elements (an empty batch), not "as it was"."""
        return self.op("Reshape", value, shape, allowzero=1)

    def sum(self, value: Value, axes: Sequence[int]) -> Value:
        """Sum over axes and drop them."""
        return self.op("ReduceSum", value, self.constant(list(axes), np.int64), keepdims=0)


def _compared(operator: str) -> Callable[[GraphBuilder, Value, Value], Value]:
    def compare(graph: GraphBuilder, first: Value, second: Value) -> Value:
        truth = graph.op(operator, first, second)
        return Value(graph, graph.cast(truth, TensorProto.FLOAT).name, truth)

    return compare


def _where(graph: GraphBuilder, condition: Value, yes: Value, no: Value) -> Value:
    """Choose one of two values, with the sign of a zero where the graph keeps signs.

    ONNX Runtime (1.32) gives 0 for a first value of -0, or for a second one beside a single number. So the choice is
    made from both sides, of arrays, and where either gives -0 it is that.
    """
    if not graph.keeps_signs:
        return graph.op("Where", condition, yes, no)
    holds, zero = graph.cast(condition, TensorProto.FLOAT), graph.float(0)
    shape = graph.op("Shape", holds + yes + no)
    holds, yes, no = (graph.op("Expand", each, shape) for each in (holds, yes, no))
    # No operator Not: an optimiser takes it away by swapping the values.
    chosen = graph.op("Where", graph.op("Greater", holds, zero), yes, no)
    other = graph.op("Where", graph.op("Equal", holds, zero), no, yes)
    signed = graph.op("Neg", graph.op("Neg", chosen) + graph.op("Neg", other))
    apart = graph.op("Or", graph.op("Less", chosen, zero), graph.op("Greater", chosen, zero))
    return graph.op("Where", apart, chosen, signed)


def _chosen(operator: str) -> Callable[[GraphBuilder, Value, Value], Value]:
    return lambda graph, first, second: _where(graph, graph.op(operator, first, second), first, second)


def _select(graph: GraphBuilder, condition: Value, yes: Value, no: Value) -> Value:
    return _where(graph, condition.truth or graph.op("Greater", condition, graph.float(0)), yes, no)


def _trunc(graph: GraphBuilder, value: Value) -> Value:
    negative = graph.op("Less", value, graph.float(0))
    return _where(graph, negative, graph.op("Ceil", value), graph.op("Floor", value))


def _fire_multiple(graph: GraphBuilder, charged: Value, threshold: Value) -> Value:
    often, zero = charged / threshold, graph.float(0)
    return _select(graph, charged, _select(graph, often, graph.op("Floor", often), zero), zero)


def _exp(body: GraphBuilder, values: Value) -> Value:
    """ONNX Runtime has all that the exponential is made of for float64."""
    lowest, highest = body.constant(LOWEST, np.float32), body.constant(HIGHEST, np.float32)
    c = body.op("Where", body.op("Greater", values, lowest), values, lowest)
    c = body.op("Where", body.op("Less", c, highest), c, highest)
    p, k = parts(
        body.cast(c, TensorProto.DOUBLE),
        lambda number: body.constant(number, np.float64),
        lambda scaled: body.op("Floor", scaled),
    )
    powers = body.constant(np.ldexp(1.0, np.arange(LOWEST_POWER, HIGHEST_POWER + 1)), np.float64)
    place = body.cast(k, TensorProto.INT64) + body.constant(-LOWEST_POWER, np.int64)
    result = body.cast(p * body.op("Gather", powers, place), TensorProto.FLOAT)
    return body.op("Where", body.op("IsNaN", values), values, result)


OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "+": lambda graph, first, second: graph.op("Add", first, second),
    "-": lambda graph, first, second: graph.op("Sub", first, second),
    "*": lambda graph, first, second: graph.op("Mul", first, second),
    "/": lambda graph, first, second: graph.op("Div", first, second),
    "neg": lambda graph, value: graph.op("Neg", value),
    "abs": lambda graph, value: graph.op("Abs", value),
    "minimum": _chosen("Less"),
    "maximum": _chosen("Greater"),
    ">": _compared("Greater"),
    ">=": _compared("GreaterOrEqual"),
    "==": _compared("Equal"),
    "select": _select,
    "exp": _exp,
    "sqrt": lambda graph, value: graph.op("Sqrt", value),
    "floor": lambda graph, value: graph.op("Floor", value),
    "trunc": _trunc,
    "fire": _compared("GreaterOrEqual"),
    "fire_above": _compared("Greater"),
    "fire_multiple": _fire_multiple,
    "hold": lambda _, value: value,
}


def operations(graph: GraphBuilder) -> dict[str, Callable[..., Value]]:
    """Make the table of all operations, which adds their operators to a graph."""
    return {name: partial(operation, graph) for name, operation in OPERATIONS.items()}
