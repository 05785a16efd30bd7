"""ONNX graphs as others might make them, with the onnx package alone, in place of a bundle's own model.onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.engines.onnx import graph as onnx_graph
from tests.bundles import publish, rehash
from tests.networks import toy

WEIGHT = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.float32)
OPSETS = [helper.make_opsetid("", 21)]
TRIPS = 2**24  # of a loop; a minute


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: list[Any]) -> Any:
    """Return a model with these parts."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def scores() -> Any:
    """Return scores = x @ weight.T for two inputs and three classes: nobody's spiking network."""
    return model_of(
        [helper.make_node("Gemm", ["x", "weight"], ["scores"], transB=1)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )


def own() -> Any:
    """Return the graph of the network `toy`, as its bundle holds it."""
    return onnx_graph.build(toy())


def plus(nodes: list[Any], tensors: list[Any]) -> Any:
    """Return `own` with the largest value of "made" in its count of operations; `nodes` make it of "inputs"."""
    model = own()
    output = next(node for node in model.graph.node if "synaptic_operations" in node.output)
    output.output[0] = "own"
    model.graph.initializer.extend(tensors)
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node("Cast", ["made"], ["real"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("ReduceMax", ["real"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Cast", ["most"], ["whole"], to=TensorProto.INT64))
    model.graph.node.append(helper.make_node("Add", ["own", "whole"], ["synaptic_operations"]))
    return model


def loop(body_nodes: list[Any], trips: int, grows: bool = False) -> tuple[Any, list[Any]]:
    """Return a Loop of the value "before", which its body's nodes make into "after"; where it `grows` it keeps each."""
    info = helper.make_tensor_value_info
    outputs = [info("go_on", TensorProto.BOOL, []), info("after", TensorProto.FLOAT, None)]
    outputs += [info("kept", TensorProto.FLOAT, None)] if grows else []
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), *body_nodes]
    nodes += [helper.make_node("Identity", ["after"], ["kept"])] if grows else []
    inputs = [
        info("trip", TensorProto.INT64, []),
        info("go", TensorProto.BOOL, []),
        info("before", TensorProto.FLOAT, None),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    return helper.make_node("Loop", ["trips", "", "inputs"], ["made", "all"] if grows else ["made"], body=body), [
        numpy_helper.from_array(np.int64(trips), "trips")
    ]


def endless() -> Any:
    """Return `own` beside a loop without an end."""
    node, tensors = loop([helper.make_node("Identity", ["before"], ["after"])], 2**62)
    return plus([node], tensors)


def counting() -> Any:
    """Return `own` beside a loop that goes on for TRIPS times if a value is 10, and for none if all are less."""
    node, _ = loop([helper.make_node("Identity", ["before"], ["after"])], 0)
    nodes = [
        helper.make_node("ReduceMax", ["inputs"], ["largest"], keepdims=0),
        helper.make_node("Div", ["largest", "ten"], ["tenth"]),
        helper.make_node("Floor", ["tenth"], ["full"]),
        helper.make_node("Mul", ["full", "often"], ["times"]),
        helper.make_node("Cast", ["times"], ["trips"], to=TensorProto.INT64),
    ]
    numbers = {"ten": np.float32(10), "often": np.float32(TRIPS)}
    return plus([*nodes, node], [numpy_helper.from_array(value, name) for name, value in numbers.items()])


def expanding(values: int) -> Any:
    """Return `own` beside so many zeros, which a session makes when it is created."""
    shape = numpy_helper.from_array(np.array([values], np.int64), "values")
    return plus([helper.make_node("ConstantOfShape", ["values"], ["made"])], [shape])


def publish_with(root: Path, model: Any, name: str) -> None:
    """Publish `toy` as a version of `name` with this model.onnx, which the engine `onnx` alone reads."""
    version = publish(root, toy(), name)
    rehash(root / name / str(version), "model.onnx", model.SerializeToString())


def with_external_data(tensor: Any, place: str = "/etc/passwd") -> Any:
    """Return a tensor whose data lies in a file of the machine that reads it."""
    outside = onnx.TensorProto()
    outside.CopyFrom(tensor)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=place)
    return outside
