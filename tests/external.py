"""ONNX models as others might make them, with the onnx package alone, and their contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.bundle.external import ExternalContents
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.spec.onnx_contract import OnnxContract

WEIGHT = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.float32)


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: list[Any], **fields: Any) -> Any:
    """Return a model of opset 17 with these parts."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **fields)


def scores(batch: int | str = "batch", weight: Any = WEIGHT) -> Any:
    """Return scores = x @ weight.T for two inputs and three classes."""
    return model_of(
        [helper.make_node("Gemm", ["x", "weight"], ["scores"], transB=1)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(np.asarray(weight, np.float32), "weight")],
    )


def spikes(steps: int | str = "steps", axis: int = 1) -> Any:
    """Return, at each step, a spike of each of three neurons that x @ weight.T brings to 1; no neuron remembers."""
    inputs = ["steps", "batch", 2] if axis == 1 else ["batch", "steps", 2]
    inputs[1 - axis] = steps
    return model_of(
        [
            helper.make_node("MatMul", ["x", "weight"], ["current"]),
            helper.make_node("GreaterOrEqual", ["current", "one"], ["fired"]),
            helper.make_node("Cast", ["fired"], ["spikes"], to=TensorProto.FLOAT),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("spikes", TensorProto.FLOAT, [*inputs[:2], 3])],
        [numpy_helper.from_array(WEIGHT.T.copy(), "weight"), numpy_helper.from_array(np.float32(1), "one")],
    )


def endless(trips: int = 2**62) -> Any:
    """Return `scores` of what a loop of so many trips has passed on unchanged."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", 2]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", 2]),
        ],
    )
    model = scores()
    model.graph.node[0].input[0] = "passed"
    model.graph.node.insert(0, helper.make_node("Loop", ["trips", "", "x"], ["passed"], body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.int64(trips), "trips"))
    return model


def expanding(values: int) -> Any:
    """Return `scores` plus the largest of so many zeros, which a session makes when it is created."""
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.initializer.append(numpy_helper.from_array(np.array([values], np.int64), "values"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["values"], ["zeros"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["own", "most"], ["scores"]))
    return model


def contract(**changes: Any) -> OnnxContract:
    """Return the contract of `scores`, or one like it."""
    fields: dict[str, Any] = {
        "input": {"shape": [2]},
        "time_steps": 4,
        "labels": ["left", "right", "both"],
        "input_name": "x",
        "output_name": "scores",
    }
    return OnnxContract.of(fields | changes)


def of_spikes(**changes: Any) -> OnnxContract:
    """Return the contract of `spikes`, or one like it."""
    fields = {"coding": "spikes", "input_layout": "time_batch", "any_time_steps": True, "output_name": "spikes"}
    return contract(**{**fields, "output_kind": "spikes_per_step", **changes})


def publish(root: Path, model: Any, kept: OnnxContract, name: str = "external") -> int:
    """Publish a model as the next version of `name`, unchecked, and return that version."""
    contents = ExternalContents(name, kept, model.SerializeToString(), f"# {name}\n", {})
    return ModelRepository(root).publish_external(contents)


def with_external_data(tensor: Any, place: str = "/etc/passwd") -> Any:
    """Return a tensor whose data lies in a file of the machine that reads it."""
    outside = onnx.TensorProto()
    outside.CopyFrom(tensor)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=place)
    return outside
