"""ONNX graphs that mean harm in place of a bundle's own, and the sentence that each must give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_graphs import OPSETS, endless, expanding, loop, own, plus, scores, with_external_data
from tests.onnx_places import PLACES

HUGE = 1_500_000_000  # zeros, which are six gigabytes of floats
BEYOND = 2**61  # more bytes of them than there are addresses
STOPPED = "more than max_model_bytes and was stopped"
RECURSIVE = "ONNX Runtime cannot load it: Model local function definitions must not be recursive"
TOO_LONG = "(load_seconds) and was stopped"


class HostileGraph(NamedTuple):
    """A graph, and a part of the sentence, None where it is fine.

    `is_endless` says that its load goes on for minutes at the least, unless it is stopped.
    """

    name: str
    make: Callable[[], Any]
    sentence: str | None
    is_endless: bool = False


def adding(op: str, inputs: list[Any], **attributes: Any) -> Any:
    """Return `own` beside what a node of this type makes of these constants."""
    names = [f"c{index}" for index in range(len(inputs))]
    made = helper.make_node(op, names, ["made"], **attributes)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, inputs, strict=True)]
    return plus([made], tensors)


def growing_loop() -> Any:
    node, tensors = loop([helper.make_node("Concat", ["before", "before"], ["after"], axis=1)], 60)
    return plus([node], tensors)


def keeping_loop() -> Any:
    node, tensors = loop([helper.make_node("Identity", ["before"], ["after"])], 2**40, grows=True)
    return plus([node, helper.make_node("Shape", ["all"], ["shape_of_all"])], tensors)


def nested_loops() -> Any:
    inner, _ = loop([helper.make_node("Identity", ["before"], ["after"])], 2**31)
    inner.input[2] = "before"
    inner.output[0] = "after"
    for graph in (inner.attribute[0].g,):
        for value in (*graph.input, *graph.output, *graph.node):
            _rename(value)
    node, tensors = loop([inner], 2**31)
    return plus([node], tensors)


def _rename(value: Any) -> None:
    """Give what is inside an inner body names of its own."""
    if hasattr(value, "name") and value.name:
        value.name = f"inner_{value.name}"
    for names in (getattr(value, "input", []), getattr(value, "output", [])):
        for index, name in enumerate(names):
            names[index] = f"inner_{name}"


def either_branch() -> Any:
    """Return an If whose branches make too much, either way."""

    def side(name: str) -> Any:
        nodes = [
            helper.make_node("ConstantOfShape", ["values"], [f"{name}_zeros"]),
            helper.make_node("ReduceMax", [f"{name}_zeros"], [name], keepdims=0),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [])])

    nodes = [
        helper.make_node("ReduceMax", ["inputs"], ["greatest"], keepdims=0),
        helper.make_node("Greater", ["greatest", "half"], ["condition"]),
        helper.make_node("If", ["condition"], ["made"], then_branch=side("yes"), else_branch=side("no")),
    ]
    values = numpy_helper.from_array(np.array([HUGE], np.int64), "values")
    return plus(nodes, [values, numpy_helper.from_array(np.float32(0.5), "half")])


def doubling() -> Any:
    """Return a chain of 40 nodes, each of which makes its input twice as long."""
    names = ["inputs", *(f"d{index}" for index in range(40))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]
    return plus([*nodes, helper.make_node("Identity", [names[-1]], ["made"])], [])


def multiplying() -> Any:
    """Return 4,000 products of matrices of 2,000 by 2,000, which take an hour."""
    names = ["m0", *(f"m{index}" for index in range(1, 4001))]
    nodes = [
        helper.make_node("ReduceMax", ["inputs"], ["greatest"], keepdims=0),
        helper.make_node("Expand", ["greatest", "square"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [a, a], [b]) for a, b in pairwise(names)]
    square = numpy_helper.from_array(np.array([2000, 2000], np.int64), "square")
    return plus([*nodes, helper.make_node("Identity", [names[-1]], ["made"])], [square])


def random(**attributes: Any) -> Any:
    return plus([helper.make_node("RandomUniformLike", ["inputs"], ["made"], **attributes)], [])


def training_batch_norm() -> Any:
    nodes = [
        helper.make_node(
            "BatchNormalization",
            ["inputs", "ones", "ones", "ones", "ones"],
            ["made", "mean", "variance"],
            training_mode=1,
        )
    ]
    return plus(nodes, [numpy_helper.from_array(np.ones(2, np.float32), "ones")])


def weights_elsewhere(place: str) -> Any:
    model = scores()
    outside = with_external_data(model.graph.initializer[0], place)
    del model.graph.initializer[:]
    model.graph.initializer.append(outside)
    return model


def of_function(calls: str) -> Any:
    """Return `own` beside what a function of the model makes, which calls `calls`."""
    model = plus([helper.make_node("first", ["inputs"], ["made"], domain="own")], [])
    opsets = [*OPSETS, helper.make_opsetid("own", 1)]
    for name, called in (("first", calls), ("second", "first")):
        node = helper.make_node(called, ["a"], ["b"], domain="own")
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def exponential_functions() -> Any:
    """Return a function that calls the next one twice, 40 deep: inlined, a trillion nodes."""
    model = plus([helper.make_node("f0", ["inputs"], ["made"], domain="own")], [])
    opsets = [*OPSETS, helper.make_opsetid("own", 1)]
    for index in range(40):
        domain, called = ("own", f"f{index + 1}") if index < 39 else ("", "Identity")
        nodes = [
            helper.make_node(called, ["a"], ["b"], domain=domain),
            helper.make_node(called, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(helper.make_function("own", f"f{index}", ["a"], ["c"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def nested_branches(depth: int) -> Any:
    """Return branches in branches, this deep."""
    info = helper.make_tensor_value_info("out0", TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Identity", ["half"], ["out0"])], "g", [], [info])
    for level in range(1, depth):
        node = helper.make_node("If", ["yes"], [f"out{level}"], then_branch=graph, else_branch=graph)
        output = helper.make_tensor_value_info(f"out{level}", TensorProto.FLOAT, [])
        graph = helper.make_graph([node], "g", [], [output])
    node = helper.make_node("If", ["yes"], ["made"], then_branch=graph, else_branch=graph)
    return plus(
        [node], [numpy_helper.from_array(np.bool_(True), "yes"), numpy_helper.from_array(np.float32(0), "half")]
    )


def chain(nodes: int) -> Any:
    names = ["inputs", *(f"n{index}" for index in range(nodes))]
    made = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    return plus([*made, helper.make_node("Identity", [names[-1]], ["made"])], [])


def of_opset(version: int) -> Any:
    model = scores()
    model.opset_import[0].version = version
    return model


def lying_initializer() -> Any:
    model = scores()
    model.graph.initializer[0].dims[0] = 2**40
    return model


def hostile_graphs() -> Iterator[HostileGraph]:
    """Yield every graph."""
    one, float_one = np.array([1], np.float32), np.ones((1, 1, 1), np.float32)
    pads = np.array([0, 0, 0, 0, 0, HUGE], np.int64)
    resized = [float_one, np.array([], np.float32), np.array([1, 1, HUGE], np.float32)]
    yield HostileGraph("a sound graph", own, None)
    yield HostileGraph("a long chain", lambda: chain(3000), None)
    yield HostileGraph("an endless loop", endless, TOO_LONG, is_endless=True)
    yield HostileGraph("loops in loops", nested_loops, TOO_LONG, is_endless=True)
    yield HostileGraph("a loop that doubles", growing_loop, STOPPED)
    yield HostileGraph("a loop that keeps all", keeping_loop, "was stopped", is_endless=True)
    yield HostileGraph("a chain that doubles", doubling, STOPPED)
    yield HostileGraph("products", multiplying, TOO_LONG, is_endless=True)
    yield HostileGraph("ConstantOfShape", lambda: expanding(HUGE), STOPPED)
    yield HostileGraph("If", either_branch, STOPPED)
    large: list[tuple[str, list[Any]]] = [
        ("Expand", [one, np.array([HUGE], np.int64)]),
        ("Pad", [float_one, pads]),
        ("Resize", resized),
        ("Range", [np.int64(0), np.int64(HUGE), np.int64(1)]),
        ("OneHot", [np.array([0, 1, 2], np.int64), np.int64(HUGE), np.array([0, 1], np.float32)]),
    ]
    for op, inputs in large:
        yield HostileGraph(op, partial(adding, op, inputs), STOPPED)
    beyond: list[tuple[str, list[Any]]] = [
        ("ConstantOfShape", [np.array([BEYOND], np.int64)]),
        ("Expand", [one, np.array([BEYOND], np.int64)]),
        ("Tile", [one, np.array([HUGE], np.int64)]),
        ("Pad", [float_one, np.array([0, 0, 0, 0, 0, BEYOND], np.int64)]),
        ("Resize", [float_one, np.array([], np.float32), np.array([1, 1, 2.0**61], np.float32)]),
    ]
    for op, inputs in beyond:
        yield HostileGraph(f"{op} beyond", partial(adding, op, inputs), f"fails on these inputs: {op} node '': ")
    yield HostileGraph("random", random, None)
    yield HostileGraph("random with a seed", partial(random, seed=1.0), None)
    yield HostileGraph("training mode", training_batch_norm, "model.onnx: ")
    for place in ("/etc/passwd", "../../secret", "/dev/zero"):
        yield HostileGraph(
            f"weights in {place}", partial(weights_elsewhere, place), "keeps the tensor 'weight' in another file"
        )
    for place, model in PLACES.items():
        yield HostileGraph(f"a tensor elsewhere: {place}", partial(deepcopy, model), "in another file")
    yield HostileGraph("a function of itself", lambda: of_function("first"), RECURSIVE)
    yield HostileGraph("functions in a circle", lambda: of_function("second"), RECURSIVE)
    yield HostileGraph("functions that double", exponential_functions, "", is_endless=True)
    yield HostileGraph("deep branches", lambda: nested_branches(8), None)
    yield HostileGraph(
        "a stranger's graph", scores, "model.onnx: its inputs are {'x': [2]} per sample, but the spec needs"
    )
    yield HostileGraph("an opset to come", lambda: of_opset(999), "model.onnx: ONNX Runtime cannot load it")
    yield HostileGraph("weights that lie", lying_initializer, "model.onnx: ONNX Runtime cannot load it")
