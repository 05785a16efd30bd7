"""The spec as an ONNX model of standard operators, for ONNX Runtime and anything else that reads ONNX.

Layer by layer: each connection is one operator over time × batch, each neuron a Scan over time. In ONNX Runtime that is
as fast as an unrolled graph, whose number of steps is fixed, and for single samples much faster than one Scan over the
whole network.

Inputs: `inputs`, float32 encoded values: (batch, *shape) and `time_steps`, an int64 scalar, for `direct` coding, and
(time_steps, batch, *shape) for the others. Outputs: `spike_counts` int64 and `readout` float32, both (batch, classes);
`synaptic_operations` int64 (batch,); and per neuron layer `<node>.spikes` int64 (batch,), `<node>.raster` and
`<node>.membrane` float32 (time_steps, batch, *shape). The equations are `models.neurons`'.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.engines.fan_out import fan_out, recurrent_fan_out
from models.network import Network
from models.neurons import integrator, spiking_neuron
from models.nodes import (
    LI,
    AvgPool2d,
    Conv2d,
    Fire,
    Flatten,
    Linear,
    MaxPool2d,
    Neuron,
    Node,
    Pool2d,
    Spiking,
    SumPool2d,
    Weighted,
)
from models.parameters import Shape
from models.spec import Coding, Readout, Spec

OPSET = 21
IR_VERSION = 10


@dataclass(frozen=True)
class Value:
    """A named tensor of a graph; arithmetic on it adds operators to its graph."""

    graph: Graph
    name: str

    def __add__(self, other: Value) -> Value:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Value) -> Value:
        return self.graph.op("Sub", self, other)

    def __mul__(self, other: Value) -> Value:
        return self.graph.op("Mul", self, other)


@dataclass
class Graph:
    """Operators and constants on their way into an ONNX graph; a body shares the counter, so that names never clash."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def fresh(self, stem: str) -> Value:
        """Return a value of a name that no other has."""
        return Value(self, f"{stem}_{next(self.numbers)}")

    def constant(self, value: Any, dtype: Any = None, name: str | None = None) -> Value:
        """Add an initializer."""
        constant = Value(self, name) if name else self.fresh("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), constant.name))
        return constant

    def ops(self, operator: str, *inputs: Value, outputs: int, **attributes: Any) -> list[Value]:
        """Add an operator of several outputs."""
        results = [self.fresh(operator.lower()) for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(
                operator, [value.name for value in inputs], [value.name for value in results], **attributes
            )
        )
        return results

    def op(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """Add an operator of one output."""
        return self.ops(operator, *inputs, outputs=1, **attributes)[0]

    def name(self, value: Value, name: str) -> None:
        """Give `value` the name of a graph output."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))

    def cast(self, value: Value, to: int) -> Value:
        """Convert to another element type."""
        return self.op("Cast", value, to=to)

    def reshape(self, value: Value, shape: Value) -> Value:
        """Reshape; a size of 0 means no elements (an empty batch), not "as it was"."""
        return self.op("Reshape", value, shape, allowzero=1)

    def sum(self, value: Value, axes: Sequence[int]) -> Value:
        """Sum over axes and drop them."""
        return self.op("ReduceSum", value, self.constant(list(axes), np.int64), keepdims=0)


@dataclass(frozen=True)
class OnnxArithmetic:
    """Firing as ONNX operators, in the graph of a Scan's body."""

    body: Graph

    def fire(self, charged: Value, threshold: Value, rule: Fire) -> Value:
        """Return 1.0 where `charged` reaches `threshold` (or passes it), else 0.0."""
        operator = "GreaterOrEqual" if rule is Fire.AT_THRESHOLD else "Greater"
        return self.body.cast(self.body.op(operator, charged, threshold), TensorProto.FLOAT)

    def select(self, spikes: Value, fired: Value, silent: Value) -> Value:
        """Return `fired` where there is a spike, else `silent`."""
        return self.body.op("Where", self.body.cast(spikes, TensorProto.BOOL), fired, silent)

    def held(self, spikes: Value) -> Value:
        """Return the spikes: there is no gradient to hold back."""
        return spikes


def build(network: Network, name: str = "spikeserve", version: int = 1, producer: str = "") -> onnx.ModelProto:
    """Return the checked ONNX model of `network`, with the model's name, version and labels as metadata."""
    builder = _Builder(network)
    graph = builder.build(name)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="spikeserve",
        producer_version=producer,
        model_version=version,
    )
    helper.set_model_props(
        model, {"name": name, "version": str(version), "labels": json.dumps(network.spec.labels, ensure_ascii=False)}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Builder:
    """One network's way into one graph; signals are (1 or time_steps, batch, *shape)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.spec: Spec = network.spec
        self.graph = Graph()
        self.outputs: list[onnx.ValueInfoProto] = []
        self.operations: list[Value] = []

    def build(self, name: str) -> onnx.GraphProto:
        graph, spec = self.graph, self.spec
        inputs, source = self.inputs()
        for node, arriving, last in spec.propagate(source, self.apply, Value.__add__):  # noqa: B007
            if isinstance(node, Weighted):
                self.count_operations(arriving, fan_out(node, spec.input_shapes[node.name]))
        counts, readout = self.read_out(last)
        total = self.operations[0] if self.operations else None
        for value in self.operations[1:]:
            total = total + value if total else value
        if total is None:
            total = graph.op("Expand", graph.constant(0, np.int64), self.batch)
        self.output(counts, "spike_counts", TensorProto.INT64, ["batch", spec.classes])
        self.output(readout, "readout", TensorProto.FLOAT, ["batch", spec.classes])
        self.output(total, "synaptic_operations", TensorProto.INT64, ["batch"])
        return helper.make_graph(graph.nodes, name, inputs, self.outputs, graph.constants)

    def inputs(self) -> tuple[list[onnx.ValueInfoProto], Value]:
        graph, shape = self.graph, self.spec.input.shape
        if self.spec.coding is Coding.DIRECT:
            declared = [
                helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", *shape]),
                helper.make_tensor_value_info("time_steps", TensorProto.INT64, []),
            ]
            given = Value(graph, "inputs")
            self.batch = graph.op("Shape", given, start=0, end=1)
            self.time_steps = graph.reshape(Value(graph, "time_steps"), graph.constant([1], np.int64))
            return declared, graph.op("Unsqueeze", given, graph.constant([0], np.int64))
        declared = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["time_steps", "batch", *shape])]
        given = Value(graph, "inputs")
        self.time_steps = graph.op("Shape", given, start=0, end=1)
        self.batch = graph.op("Shape", given, start=1, end=2)
        return declared, given

    def output(self, value: Value, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        self.graph.name(value, name)
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def sized(self, *sizes: Value | Shape) -> Value:
        """Return a shape made of graph values and numbers."""
        parts = [
            part if isinstance(part, Value) else self.graph.constant(part, np.int64) for part in sizes if part != ()
        ]
        return self.graph.op("Concat", *parts, axis=0)

    def count_operations(self, arriving: Value, per_input: NDArray[np.int64]) -> None:
        """Add the weights that non-zero inputs meet; sums in float64, exact to 2**53."""
        graph = self.graph
        met = graph.cast(graph.cast(arriving, TensorProto.BOOL), TensorProto.FLOAT)
        per_position = graph.cast(graph.sum(met, [0]), TensorProto.DOUBLE)
        axes = range(1, per_input.ndim + 1)
        weighted = graph.sum(per_position * graph.constant(per_input, np.float64), axes)
        self.operations.append(graph.cast(weighted, TensorProto.INT64))

    def read_out(self, last: Value) -> tuple[Value, Value]:
        """Return the counts and the readout of the last layer's output (time_steps, batch, classes)."""
        graph, rule = self.graph, self.spec.readout
        if rule is Readout.SPIKE_COUNT:
            readout = graph.sum(last, [0])
            return graph.cast(readout, TensorProto.INT64), readout
        counts = graph.op("Expand", graph.constant(0, np.int64), self.sized(self.batch, (self.spec.classes,)))
        if rule is Readout.LAST_MEMBRANE:
            return counts, graph.op("Gather", last, graph.constant(-1, np.int64), axis=0)
        if rule is Readout.MAX_MEMBRANE:
            return counts, graph.op("ReduceMax", last, graph.constant([0], np.int64), keepdims=0)
        precise = graph.cast(last, TensorProto.DOUBLE)
        mean = graph.op("ReduceMean", precise, graph.constant([0], np.int64), keepdims=0)
        return counts, graph.cast(mean, TensorProto.FLOAT)

    def apply(self, node: Node, arriving: Value) -> Value:
        if isinstance(node, Neuron):
            return self.neuron(node, arriving)
        return self.connect(node, arriving)

    @singledispatchmethod
    def connect(self, node: Node, _: Value) -> Value:
        raise TypeError(f"no ONNX operator for a {type(node).__name__}")

    @connect.register
    def _(self, node: Linear, arriving: Value) -> Value:
        transposed = np.ascontiguousarray(self.network.tensors[f"{node.name}.weight"].T)
        current = self.graph.op("MatMul", arriving, self.graph.constant(transposed, name=f"{node.name}.weight"))
        bias = self.network.tensor(node, "bias")
        return current if bias is None else current + self.graph.constant(bias, name=f"{node.name}.bias")

    @connect.register
    def _(self, node: Conv2d, arriving: Value) -> Value:
        operands = [
            self.graph.constant(tensor, name=f"{node.name}.{parameter}")
            for parameter in ("weight", "bias")
            if (tensor := self.network.tensor(node, parameter)) is not None
        ]
        return self.sweep(
            node, arriving, "Conv", *operands, kernel_shape=node.kernel_size, strides=node.stride,
            pads=[*node.padding, *node.padding], dilations=node.dilation, group=node.groups,
        )  # fmt: skip

    @connect.register
    def _(self, node: SumPool2d, arriving: Value) -> Value:
        return self.sum_pool(node, arriving)

    @connect.register
    def _(self, node: AvgPool2d, arriving: Value) -> Value:
        summed = self.sum_pool(node, arriving)
        return self.graph.op("Div", summed, self.graph.constant(np.prod(node.kernel_size), np.float32))

    @connect.register
    def _(self, node: MaxPool2d, arriving: Value) -> Value:
        return self.sweep(node, arriving, "MaxPool", **_window(node))

    @connect.register
    def _(self, node: Flatten, arriving: Value) -> Value:
        return self.reshaped(arriving, self.spec.output_shapes[node.name])

    def sum_pool(self, node: SumPool2d | AvgPool2d, arriving: Value) -> Value:
        """Sum each window by a convolution with ones, since ONNX has no sum pool and an average would round."""
        channels = self.spec.input_shapes[node.name][0]
        ones = self.graph.constant(np.ones((channels, 1, *node.kernel_size), np.float32))
        return self.sweep(node, arriving, "Conv", ones, group=channels, **_window(node))

    def sweep(self, node: Node, arriving: Value, operator: str, *operands: Value, **attributes: Any) -> Value:
        """Apply an operator that knows one batch axis to (1 or time_steps, batch, *shape)."""
        graph = self.graph
        flat = graph.reshape(arriving, graph.constant([-1, *self.spec.input_shapes[node.name]], np.int64))
        swept = graph.op(operator, flat, *operands, **attributes)
        return self.reshaped(swept, self.spec.output_shapes[node.name], like=arriving)

    def reshaped(self, value: Value, shape: Shape, like: Value | None = None) -> Value:
        leading = self.graph.op("Shape", like or value, start=0, end=2)
        return self.graph.reshape(value, self.sized(leading, shape))

    def neuron(self, node: Neuron, current: Value) -> Value:
        """Scan one neuron layer over time and return its output (time_steps, batch, *shape)."""
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        current = graph.op("Expand", current, self.sized(self.time_steps, self.batch, shape))
        rest = graph.op("Expand", graph.constant(0, np.float32), self.sized(self.batch, shape))
        axes: list[int | str] = ["time_steps", "batch", *shape]
        if isinstance(node, LI):
            _, membranes = graph.ops("Scan", rest, current, outputs=2, body=self.li_body(node), num_scan_inputs=1)
            self.output(membranes, f"{node.name}.membrane", TensorProto.FLOAT, axes)
            return membranes
        results = graph.ops("Scan", rest, rest, current, outputs=4, body=self.spiking_body(node), num_scan_inputs=1)
        raster, membranes = results[2:]
        self.output(raster, f"{node.name}.raster", TensorProto.FLOAT, axes)
        self.output(membranes, f"{node.name}.membrane", TensorProto.FLOAT, axes)
        self.count_spikes(node, raster)
        return raster

    def count_spikes(self, node: Spiking, raster: Value) -> None:
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        over_time = graph.cast(graph.sum(raster, [0]), TensorProto.DOUBLE)
        spikes = graph.cast(graph.sum(over_time, range(1, len(shape) + 1)), TensorProto.INT64)
        self.output(spikes, f"{node.name}.spikes", TensorProto.INT64, ["batch"])
        if node.recurrent:  # the last step's spikes never come back
            last = graph.op("Gather", raster, graph.constant(-1, np.int64), axis=0)
            unsent = graph.cast(
                graph.sum(graph.cast(last, TensorProto.DOUBLE), range(1, len(shape) + 1)), TensorProto.INT64
            )
            self.operations.append((spikes - unsent) * graph.constant(recurrent_fan_out(shape), np.int64))

    def li_body(self, node: LI) -> onnx.GraphProto:
        body = Graph(self.graph.numbers)
        membrane, current = body.fresh("membrane"), body.fresh("current")
        charged = integrator(node, self.parameters_in(body, node)).charge(membrane, current)
        return _body(body, [membrane, current], [charged, body.op("Identity", charged)])

    def spiking_body(self, node: Spiking) -> onnx.GraphProto:
        body = Graph(self.graph.numbers)
        before, membrane, current = body.fresh("spikes"), body.fresh("membrane"), body.fresh("current")
        arriving = current + self.recurrent(body, node, before) if node.recurrent else current
        neuron = spiking_neuron(node, self.parameters_in(body, node))
        spikes, after = neuron.step(membrane, arriving, OnnxArithmetic(body))
        results = [spikes, after, body.op("Identity", spikes), body.op("Identity", after)]
        return _body(body, [before, membrane, current], results)

    def recurrent(self, body: Graph, node: Spiking, spikes: Value) -> Value:
        weight = np.ascontiguousarray(self.network.tensors[f"{node.name}.recurrent.weight"].T)
        flat = body.op("Flatten", spikes, axis=1)
        current = body.op("MatMul", flat, body.constant(weight, name=f"{node.name}.recurrent.weight"))
        bias = self.network.tensor(node, "recurrent.bias")
        if bias is not None:
            current = current + body.constant(bias, name=f"{node.name}.recurrent.bias")
        return body.reshape(current, body.op("Shape", spikes))

    def parameters_in(self, body: Graph, node: Neuron) -> Any:
        return lambda name: body.constant(self.network.parameter(node, name), name=f"{node.name}.{name}")


def _body(body: Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.GraphProto:
    infos = [
        [helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None) for value in values]
        for values in (inputs, outputs)
    ]
    return helper.make_graph(body.nodes, "step", *infos, body.constants)


def _window(node: Pool2d) -> dict[str, Any]:
    return {"kernel_shape": node.kernel_size, "strides": node.hop, "pads": [*node.padding, *node.padding]}
