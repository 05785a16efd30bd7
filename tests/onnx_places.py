"""ONNX models with a tensor in another file, at each place where a model may hold one."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_graphs import OPSETS, WEIGHT, scores, with_external_data

TENSOR = numpy_helper.from_array(WEIGHT, "weight")


OUTSIDE = with_external_data(TENSOR)


def in_graph(node: Any = None, **graph: Any) -> Any:
    model = scores()
    if node is not None:
        model.graph.node.append(node)
    for field, value in graph.items():
        getattr(model.graph, field).append(value)
    return model


def branch(node: Any) -> Any:
    """Return an If whose branches hold `node`."""
    body = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["condition"], ["z"], then_branch=body, else_branch=body)


def sparse(values: Any) -> Any:
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(6, np.int64)), [100])


def in_function() -> Any:
    model = scores()
    node = helper.make_node("Constant", [], ["y"], value=OUTSIDE)
    model.functions.append(helper.make_function("own", "F", [], ["y"], [node], OPSETS))
    return model


def in_training() -> Any:
    model = scores()
    model.training_info.add().algorithm.initializer.append(OUTSIDE)
    return model


PLACES = {
    "initializer": in_graph(initializer=OUTSIDE),
    "sparse initializer": in_graph(sparse_initializer=sparse(OUTSIDE)),
    "attribute": in_graph(helper.make_node("Constant", [], ["y"], value=OUTSIDE)),
    "attribute, sparse": in_graph(helper.make_node("Constant", [], ["y"], sparse_value=sparse(OUTSIDE))),
    "attribute, one of several": in_graph(helper.make_node("Any", [], ["y"], several=[TENSOR, OUTSIDE])),
    "branch": in_graph(branch(helper.make_node("Constant", [], ["y"], value=OUTSIDE))),
    "branch of a branch": in_graph(branch(branch(helper.make_node("Constant", [], ["y"], value=OUTSIDE)))),
    "function": in_function(),
    "training": in_training(),
}
