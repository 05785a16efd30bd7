"""ONNX models whose answer to a sample depends on the others of its batch, each in its own way; and one that loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.external import scores

N = helper.make_node
TRIPS = 2**24  # a minute
Numbers = dict[str, Any]

# Each takes `own` (batch, 3), the scores of `scores`, to `scores`; `x` is (batch, 2), from 0 to 1.
TAILS: dict[str, tuple[list[Any], Numbers]] = {
    "maximum": ([N("ReduceMax", ["own"], ["m"], axes=[0]), N("Sub", ["own", "m"], ["scores"])], {}),
    "mean": ([N("ReduceMean", ["own"], ["m"], axes=[0]), N("Sub", ["own", "m"], ["scores"])], {}),
    "batch normalisation": (
        [
            N("ReduceMean", ["own"], ["mean"], axes=[0]),
            N("Sub", ["own", "mean"], ["centred"]),
            N("Mul", ["centred", "centred"], ["squared"]),
            N("ReduceMean", ["squared"], ["variance"], axes=[0]),
            N("Add", ["variance", "epsilon"], ["positive"]),
            N("Sqrt", ["positive"], ["deviation"]),
            N("Div", ["centred", "deviation"], ["scores"]),
        ],
        {"epsilon": np.float32(1e-5)},
    ),
    "running sum": ([N("CumSum", ["own", "first"], ["scores"])], {"first": np.int64(0)}),
    "position of the maximum": (
        [
            N("ArgMax", ["own"], ["at"], axis=0, keepdims=1),
            N("Cast", ["at"], ["at_f"], to=TensorProto.FLOAT),
            N("Add", ["own", "at_f"], ["scores"]),
        ],
        {},
    ),
    "size of the batch": (
        [
            N("Shape", ["own"], ["size"], start=0, end=1),
            N("Cast", ["size"], ["size_f"], to=TensorProto.FLOAT),
            N("Mul", ["own", "size_f"], ["scores"]),
        ],
        {},
    ),
    "three or more": (
        [
            N("Shape", ["own"], ["size"], start=0, end=1),
            N("Greater", ["size", "two"], ["many"]),
            N("Cast", ["many"], ["many_f"], to=TensorProto.FLOAT),
            N("Add", ["own", "many_f"], ["scores"]),
        ],
        {"two": np.array([2], np.int64)},
    ),
    "forty or more": (
        [
            N("Shape", ["own"], ["size"], start=0, end=1),
            N("Greater", ["size", "most"], ["many"]),
            N("Cast", ["many"], ["many_f"], to=TensorProto.FLOAT),
            N("Add", ["own", "many_f"], ["scores"]),
        ],
        {"most": np.array([39], np.int64)},
    ),
    "a value above 0.999": (
        [
            N("ReduceMax", ["x"], ["largest"], keepdims=0),
            N("Greater", ["largest", "most"], ["hot"]),
            N("Cast", ["hot"], ["hot_f"], to=TensorProto.FLOAT),
            N("Add", ["own", "hot_f"], ["scores"]),
        ],
        {"most": np.float32(0.999)},
    ),
    "the sample before": (
        [
            N("Slice", ["own", "start", "end", "axis"], ["others"]),
            N("Slice", ["own", "nil", "start", "axis"], ["head"]),
            N("Concat", ["others", "head"], ["turned"], axis=0),
            N("Add", ["own", "turned"], ["scores"]),
        ],
        {"start": [np.int64(1)], "end": [np.int64(2**40)], "axis": [np.int64(0)], "nil": [np.int64(0)]},
    ),
}


def mixing(tail: str) -> Any:
    """Return the model of `scores`, mixed in the way of this name."""
    nodes, numbers = TAILS[tail]
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(_array(value), name) for name, value in numbers.items())
    return model


def _array(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def close_only() -> Any:
    """Return the scores, greater by 2**-20 of themselves for each other sample of the batch."""
    model = mixing("size of the batch")
    model.graph.node.pop()
    model.graph.node.extend(
        [
            N("Mul", ["size_f", "bit"], ["bits"]),
            N("Add", ["bits", "less"], ["factor"]),
            N("Mul", ["own", "factor"], ["scores"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2.0**-20), "bit"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 - 2.0**-20), "less"))
    return model


def counting() -> Any:
    """Return a model whose Loop adds 1 for TRIPS times if a value is 1, and not once if all are less."""
    body = helper.make_graph(
        [N("Identity", ["go_on"], ["goes_on"]), N("Add", ["before", "one"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.node.extend(
        [
            N("ReduceMax", ["x"], ["largest"], keepdims=0),
            N("Floor", ["largest"], ["whole"]),
            N("Mul", ["whole", "often"], ["times"]),
            N("Cast", ["times"], ["trips"], to=TensorProto.INT64),
            N("Loop", ["trips", "true", "nil"], ["counted"], body=body),
            N("Add", ["own", "counted"], ["scores"]),
        ]
    )
    numbers = {"true": np.array(True), "nil": np.float32(0), "one": np.float32(1), "often": np.float32(TRIPS)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in numbers.items())
    return model
