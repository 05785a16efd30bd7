"""The spec as an ONNX model of standard operators, for ONNX Runtime and anything else that reads ONNX.

The graph goes layer by layer: each connection is one operator over time × batch, each neuron layer a Scan over time. In
ONNX Runtime that is as fast as an unrolled graph, whose number of steps would be fixed, and for single samples much
faster than one Scan over the whole network.

Inputs: `inputs`, float32 encoded values: (batch, *shape) and `time_steps`, an int64 scalar, for `direct` coding, and
(time_steps, batch, *shape) for the others. Outputs: `spike_counts` int64 and `readout` float32, both (batch, classes);
`synaptic_operations` int64 (batch,); and per neuron layer `<node>.spikes` int64 (batch,), `<node>.raster` and
`<node>.membrane` float32 (time_steps, batch, *shape). Where a neuron may fire several times a step, `<node>.most`
float32 (batch,) is the most that one did. Where the readout is of a node that is no neuron, `<node>.output` float32
(time_steps, batch, classes) is its output. The equations are `models.neurons`'.

A run starts from rest unless a state is fed: each of its arrays, with its name in `models.engines.state`, except the
readout, is an optional input `state.<array>`, and so is `state.begun` (1 after the first step) where a recurrent bias
waits for the second step, and `state.steps`, the number of steps since rest, where a Scale has its own for each. The
state after the last step leaves as `next.<array>`. With a state, `spike_counts` and `readout` are of the steps of that
call alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce, singledispatchmethod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from spikeserve.models.engines.fan_out import fan_out, recurrent_fan_out
from spikeserve.models.engines.state import longest_delay, neuron_arrays, state_names
from spikeserve.models.neurons import NeuronLayer, at_rest, counts_steps, program_of
from spikeserve.models.spec import Coding, Readout, Spec, nodes
from spikeserve.models.spec.narrow import narrow_of
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.readouts import Reduction
from spikeserve.models.spec.sums import Limbs, Summation, names_of, sums_of
from spikeserve.models.spec.windows import TransposedWindow, Window
from spikeserve.plugins.onnx.operations import GraphBuilder, Value, operations

OPSET = 21
IR_VERSION = 10


@dataclass(frozen=True)
class Part:
    """One of the parts that a connection's sum is the sum of: its weight and its bias, in this order, by name."""

    type: int
    tensors: Mapping[str, NDArray[Any]]
    suffix: str = ""  # of the names of its constants
    narrow: bool = False  # whether its weights are stored as integers and powers of two, if they are such

    @property
    def wide(self) -> bool:
        """Whether it is computed in float64."""
        return self.type == TensorProto.DOUBLE

    def constants(
        self, graph: GraphBuilder, connection: str, *, transposed: bool = False
    ) -> tuple[Value, Value | None]:
        """Return the weight, as (inputs, outputs) if `transposed`, and the bias as constants of a graph."""
        weight, *bias = self.tensors.values()
        name = f"{connection}.weight{self.suffix}"
        narrow = narrow_of(weight) if self.narrow else None
        if narrow is None:
            weights = graph.weights(_turned(weight, transposed), name)
        else:
            powers = np.ldexp(np.ones(1, weight.dtype), narrow.exponents).reshape(-1, *[1] * (weight.ndim - 1))
            values = graph.weights(_turned(narrow.values, transposed), name)
            weights = graph.cast(values, self.type) * graph.constant(_turned(powers, transposed))
        return weights, graph.constant(bias[0], name=f"{connection}.bias{self.suffix}") if bias else None


def _turned(tensor: NDArray[Any], transposed: bool) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.T) if transposed else tensor


def _inputs_first(node: nodes.ConvTranspose, part: Part) -> Part:
    """Return a part of a transposed convolution as ONNX has it: with the axis of its inputs first."""
    name, weight = next(iter(part.tensors.items()))
    grouped = weight.reshape(node.groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    turned = grouped.reshape(node.in_channels, -1, *weight.shape[2:])
    return replace(part, tensors={**part.tensors, name: turned}, narrow=False)


def build(network: Network, name: str = "spikeserve", version: int = 1, producer: str = "") -> onnx.ModelProto:
    """Return the checked ONNX model of `network`, with the model's name, version and labels as metadata."""
    builder = _NetworkBuilder(network)
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


def read_at_each_step(spec: Spec) -> str:
    """Return the name of the output with what the answer is read from at each step, (time_steps, batch, *shape)."""
    node = spec.readout_node
    if spec.readout.of_membrane or isinstance(node, nodes.Integrating):
        return f"{node.name}.membrane"
    return f"{node.name}.raster" if isinstance(node, nodes.Spiking) else f"{node.name}.output"


class _NetworkBuilder:
    """Builds the graph of one network; signals are (1 or time_steps, batch, *shape)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.spec: Spec = network.spec
        self.sums = sums_of(network)
        self.graph = GraphBuilder()
        self.optional: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.operations: list[Value] = []

    def build(self, name: str) -> onnx.GraphProto:
        graph, spec = self.graph, self.spec
        inputs, source = self.inputs()
        for node, arriving, last in spec.propagate(source, self.apply, self.join):  # noqa: B007
            if isinstance(node, nodes.Weighted):
                self.count_operations(arriving, fan_out(node, spec.input_shapes[node.name], self.network))
        counts, readout = self.read_out(last)
        if not self.operations:
            self.operations.append(graph.op("Expand", graph.constant(0, np.int64), self.batch))
        total = reduce(Value.__add__, self.operations)
        self.output(counts, "spike_counts", TensorProto.INT64, ["batch", spec.classes])
        self.output(readout, "readout", TensorProto.FLOAT, ["batch", spec.classes])
        self.output(total, "synaptic_operations", TensorProto.INT64, ["batch"])
        return helper.make_graph(graph.nodes, name, inputs + self.optional, self.outputs, graph.constants)

    def inputs(self) -> tuple[list[onnx.ValueInfoProto], Value]:
        graph, shape, raw = self.graph, self.spec.input.arriving, Value(self.graph, "inputs")
        if self.spec.coding is Coding.DIRECT:
            declared = [
                helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", *shape]),
                helper.make_tensor_value_info("time_steps", TensorProto.INT64, []),
            ]
            self.batch = graph.op("Shape", raw, start=0, end=1)
            self.time_steps = graph.reshape(Value(graph, "time_steps"), graph.constant([1], np.int64))
            return declared, graph.op("Unsqueeze", raw, graph.constant([0], np.int64))
        declared = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["time_steps", "batch", *shape])]
        self.time_steps = graph.op("Shape", raw, start=0, end=1)
        self.batch = graph.op("Shape", raw, start=1, end=2)
        return declared, raw

    def output(self, value: Value, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        if value.name != name:
            self.graph.ops("Identity", value, outputs=[name])
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def optional_input(self, name: str, rest: NDArray[np.float32], shape: Sequence[int | str]) -> Value:
        """Add an optional input with the default `rest`: an initializer that is also listed as an input."""
        self.optional.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return self.graph.constant(rest, np.float32, name=name)

    def carried(self, name: str, rest: NDArray[np.float32]) -> Value:
        """Return an array of the state before the first step, (batch, *shape); `rest` is one sample's array at rest."""
        carried = self.optional_input(f"state.{name}", rest[np.newaxis], [f"batch or 1 of {name}", *rest.shape])
        return self.graph.op("Expand", carried, self.sized(self.batch, rest.shape))

    def sized(self, *sizes: Value | Shape) -> Value:
        """Return a shape made of graph values and numbers."""
        parts = [
            part if isinstance(part, Value) else self.graph.constant(part, np.int64) for part in sizes if part != ()
        ]
        return self.graph.op("Concat", *parts, axis=0)

    def count_operations(self, arriving: Value, per_input: NDArray[np.int64]) -> None:
        """Add the number of weights that non-zero inputs meet, summed in float64, which is exact up to 2**53."""
        graph = self.graph
        met = graph.cast(graph.cast(arriving, TensorProto.BOOL), TensorProto.FLOAT)
        per_position = graph.cast(graph.sum(met, [0]), TensorProto.DOUBLE)
        axes = range(1, per_input.ndim + 1)
        weighted = graph.sum(per_position * graph.constant(per_input, np.float64), axes)
        self.operations.append(graph.cast(weighted, TensorProto.INT64))

    def read_out(self, last: Value) -> tuple[Value, Value]:
        """Return the counts and the readout, (batch, classes); `last` is the last node's output."""
        graph, rule, read = self.graph, self.spec.readout, self.spec.readout_node
        classes = self.spec.classes
        if isinstance(read, nodes.Spiking):
            total = self.over_steps(read, Value(graph, f"{read.name}.raster"))
            counts = graph.cast(graph.reshape(total, self.sized(self.batch, (classes,))), TensorProto.INT64)
        else:
            counts = graph.op("Expand", graph.constant(0, np.int64), self.sized(self.batch, (classes,)))
        if rule is Readout.SPIKE_COUNT:
            return counts, graph.cast(counts, TensorProto.FLOAT)
        steps = self.read_at_each_step(last)
        if rule is Readout.FIRST_SPIKE:
            return counts, self.first_spike(steps)
        reduced = self.reduced(steps, rule.reduction)
        return counts, graph.cast(reduced, TensorProto.FLOAT)

    def read_at_each_step(self, last: Value) -> Value:
        """Return the values that the answer is read from, (time_steps, batch, classes)."""
        graph, name, classes = self.graph, read_at_each_step(self.spec), self.spec.classes
        flat = self.sized(self.time_steps, self.batch, (classes,))
        if not name.endswith(".output"):  # a neuron's raster and membrane are outputs already
            return graph.reshape(Value(graph, name), flat)
        leaving = self.spec.output_shapes[self.spec.nodes[-1].name]
        steps = graph.op("Expand", last, self.sized(self.time_steps, self.batch, leaving))
        steps = graph.reshape(steps, flat)
        self.output(steps, name, TensorProto.FLOAT, ["time_steps", "batch", classes])
        return steps

    def reduced(self, steps: Value, reduction: Reduction) -> Value:
        graph = self.graph
        if reduction is Reduction.LAST:
            return graph.op("Gather", steps, graph.constant(-1, np.int64), axis=0)
        if reduction is Reduction.MAX:
            return graph.op("ReduceMax", steps, graph.constant([0], np.int64), keepdims=0)
        # Step by step, since another order of summing could change the last bit.
        upto = graph.op("CumSum", graph.cast(steps, TensorProto.DOUBLE), graph.constant(0, np.int64))
        total = graph.op("Gather", upto, graph.constant(-1, np.int64), axis=0)
        if reduction is Reduction.SUM:
            return total
        return total / graph.cast(graph.reshape(self.time_steps, graph.constant([], np.int64)), TensorProto.DOUBLE)

    def first_spike(self, raster: Value) -> Value:
        """Return the steps from each neuron's first spike to the end, and 0 for one that does not fire."""
        graph = self.graph
        fired = graph.cast(graph.cast(raster, TensorProto.BOOL), TensorProto.FLOAT)
        first = graph.op("ArgMax", fired, axis=0, keepdims=0, select_last_index=0)
        length = graph.reshape(self.time_steps, graph.constant([], np.int64))
        ever = graph.op("ReduceMax", fired, graph.constant([0], np.int64), keepdims=0)
        return graph.cast(length - first, TensorProto.FLOAT) * ever

    def over_steps(self, node: nodes.Spiking, raster: Value) -> Value:
        """Return the spikes of each neuron over all steps, in a type that also holds several spikes per step."""
        several = node.several
        return self.graph.sum(self.graph.cast(raster, TensorProto.DOUBLE) if several else raster, [0])

    def apply(self, node: nodes.Node, arriving: Value) -> Value:
        if isinstance(node, nodes.Neuron):
            return self.neuron(node, arriving)
        if isinstance(node, nodes.Delay):
            return self.delay(node, arriving)
        return self.connect(node, arriving)

    @singledispatchmethod
    def connect(self, node: nodes.Node, _: Value) -> Value:
        raise TypeError(f"no ONNX operator for a {type(node).__name__}")

    @connect.register
    def _(self, node: nodes.Linear, arriving: Value) -> Value:
        return self.product(self.graph, node.name, arriving, biased=True)

    def parts(self, connection: str) -> tuple[Part, ...]:
        """Return the parts that a connection's sum is the sum of, each with its weights; see `models.spec.sums`."""
        names = names_of(self.sums.weights, connection)
        tensors, rule = {name: self.sums.weights[name] for name in names}, self.sums[connection]
        narrow = self.spec.weight_bits.get(f"{connection}.weight") is not None
        if rule.by is Summation.FLOAT32:
            return (Part(TensorProto.FLOAT, tensors, narrow=narrow),)
        limbs = Limbs.of(rule, tensors) if rule.by is Summation.INTEGER else None
        if limbs is None:
            wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
            return (Part(TensorProto.DOUBLE, wide, narrow=narrow),)
        return (Part(TensorProto.FLOAT, limbs.high, ".high"), Part(TensorProto.FLOAT, limbs.low, ".low"))

    def product(self, graph: GraphBuilder, connection: str, arriving: Value, biased: Value | bool) -> Value:
        """Return the sums over each row of a connection's weights, plus its bias if it is `biased`, in float32."""
        sums: list[Value] = []
        for part in self.parts(connection):
            weight, bias = part.constants(graph, connection, transposed=True)
            current = graph.op("MatMul", graph.cast(arriving, part.type) if part.wide else arriving, weight)
            if bias is not None:
                factor = graph.cast(biased, part.type) if part.wide and isinstance(biased, Value) else biased
                current = current + (bias * factor if isinstance(factor, Value) else bias)
            sums.append(graph.cast(current, TensorProto.FLOAT) if part.wide else current)
        return reduce(Value.__add__, sums)

    @connect.register
    def _(self, node: nodes.Conv | nodes.ConvTranspose, arriving: Value) -> Value:
        parts = self.parts(node.name)
        if parts[0].wide:
            return self.wide(node, arriving, parts[0])
        if isinstance(node, nodes.ConvTranspose):
            parts = tuple(_inputs_first(node, part) for part in parts)
            operator, attributes = "ConvTranspose", _transposed_window(node.windows)
        else:
            operator, attributes = "Conv", _window(node.windows)
        attributes |= {"dilations": [window.dilation for window in node.windows], "group": node.groups}
        sums: list[Value] = []
        for part in parts:
            operands = [each for each in part.constants(self.graph, node.name) if each is not None]
            sums.append(self.sweep(node, arriving, operator, *operands, **attributes))
        return reduce(Value.__add__, sums)

    def wide(self, node: nodes.Conv | nodes.ConvTranspose, arriving: Value, part: Part) -> Value:
        """Convolve in float64, which ONNX Runtime's operators do not: a product for each tap of the kernel."""
        graph, (weight, *bias), shape = self.graph, part.tensors.values(), self.spec.output_shapes[node.name]
        kernels = weight.reshape(1, node.groups, node.out_channels // node.groups, *weight.shape[1:])
        by_group = graph.constant([-1, *kernels.shape[1:4:2], math.prod(shape[1:])], np.int64)
        products = (
            graph.op("MatMul", graph.constant(kernels[tap]), graph.reshape(sent, by_group))
            for tap, sent in self.taps(node, arriving)
        )
        total = reduce(Value.__add__, products)
        for each in bias:
            total = total + graph.constant(each.reshape(*kernels.shape[:3], 1))
        return self.reshaped(graph.cast(total, TensorProto.FLOAT), shape, like=arriving)

    def taps(
        self, node: nodes.Conv | nodes.ConvTranspose | nodes.Pool, arriving: Value
    ) -> Iterator[tuple[tuple[Any, ...], Value]]:
        """Yield each tap and what every output gets by it, 0 or an input: (samples, channels, *outputs) in float64."""
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        axes = node.spread(shape)
        flat = graph.reshape(arriving, graph.constant([-1, *shape], np.int64))
        ends = graph.constant([0] * (4 + len(axes)) + [1] * len(axes), np.int64)
        padded = graph.op("Pad", graph.cast(flat, TensorProto.DOUBLE), ends)  # by a 0 for outputs that get no input
        for taps in np.ndindex(*(axis.taps for axis in axes)):
            sent = padded
            for place, (axis, tap) in enumerate(zip(axes, taps, strict=True), start=2):
                sources = np.full(axis.outputs, axis.inputs)
                inputs, outputs = axis.pairs(tap)
                sources[outputs] = inputs
                sent = graph.op("Gather", sent, graph.constant(sources, np.int64), axis=place)
            yield (..., *taps), sent

    @connect.register
    def _(self, node: nodes.AvgPool, arriving: Value) -> Value:
        summed = self.sum_pool(node, arriving)
        divisor = node.divisors(self.spec.input_shapes[node.name]) if node.uneven else node.area
        return self.graph.op("Div", summed, self.graph.constant(divisor, np.float32))

    @connect.register
    def _(self, node: nodes.MaxPool, arriving: Value) -> Value:
        return self.sweep(node, arriving, "MaxPool", **_window(node.fitted(self.spec.input_shapes[node.name])))

    @connect.register
    def _(self, node: nodes.Flatten | nodes.Reshape, arriving: Value) -> Value:
        return self.reshaped(arriving, self.spec.output_shapes[node.name])

    @connect.register
    def _(self, node: nodes.Permute, arriving: Value) -> Value:
        return self.graph.op("Transpose", arriving, perm=[0, 1, *(2 + axis for axis in node.order)])

    @connect.register
    def _(self, _: nodes.Multiply | nodes.Concatenate | nodes.MatMul, arriving: Value) -> Value:
        return arriving  # which `join` has joined

    def join(self, node: nodes.Node, inputs: Sequence[Value]) -> Value:
        """Join the inputs of a node, each (1 or time_steps, batch, *shape)."""
        if isinstance(node, nodes.Multiply):
            return reduce(Value.__mul__, inputs)
        if isinstance(node, nodes.Concatenate):
            return self.concatenate(node, inputs)
        if isinstance(node, nodes.MatMul):
            if self.sums[node.name].by is Summation.FLOAT32:
                return self.graph.op("MatMul", *inputs)
            product = self.graph.op("MatMul", *(self.graph.cast(value, TensorProto.DOUBLE) for value in inputs))
            return self.graph.cast(product, TensorProto.FLOAT)
        return reduce(Value.__add__, inputs)

    def concatenate(self, node: nodes.Concatenate, inputs: Sequence[Value]) -> Value:
        """Concatenate inputs, of which one that is the same at every step is repeated if another is not."""
        graph, shapes = self.graph, [self.spec.output_shapes[name] for name in self.spec.sources[node.name]]
        steps = [graph.op("Shape", value, start=0, end=1) for value in inputs]
        longest = graph.op("Max", *steps)
        spread = [
            graph.op("Expand", value, self.sized(longest, self.batch, shape))
            for value, shape in zip(inputs, shapes, strict=True)
        ]
        return graph.op("Concat", *spread, axis=2 + node.axis)

    @connect.register(nodes.SumPool)
    def sum_pool(self, node: nodes.SumPool | nodes.AvgPool, arriving: Value) -> Value:
        """Sum each window by a convolution with ones, since ONNX has no sum pool and an average would round.

        What float32 cannot hold is added up in float64.
        """
        shape = self.spec.input_shapes[node.name]
        if self.sums[node.name].by is not Summation.FLOAT32:
            summed = self.graph.cast(
                reduce(Value.__add__, (sent for _, sent in self.taps(node, arriving))), TensorProto.FLOAT
            )
            return self.reshaped(summed, self.spec.output_shapes[node.name], like=arriving)
        windows = node.fitted(shape)
        ones = self.graph.constant(np.ones((shape[0], 1, *(window.extent for window in windows)), np.float32))
        return self.sweep(node, arriving, "Conv", ones, group=shape[0], **_window(windows))

    def sweep(self, node: nodes.Node, arriving: Value, operator: str, *operands: Value, **attributes: Any) -> Value:
        """Apply an operator that has one batch axis to (1 or time_steps, batch, *shape)."""
        graph = self.graph
        flat = graph.reshape(arriving, graph.constant([-1, *self.spec.input_shapes[node.name]], np.int64))
        swept = graph.op(operator, flat, *operands, **attributes)
        return self.reshaped(swept, self.spec.output_shapes[node.name], like=arriving)

    def reshaped(self, value: Value, shape: Shape, like: Value | None = None) -> Value:
        leading = self.graph.op("Shape", like or value, start=0, end=2)
        return self.graph.reshape(value, self.sized(leading, shape))

    @connect.register
    def _(self, node: nodes.Scale, arriving: Value) -> Value:
        scaled = self.own(node, "scale") * arriving
        return scaled if node.offset == 0 else scaled + self.own(node, "offset")

    def own(self, node: nodes.Scale, name: str) -> Value:
        """Return a parameter of a Scale, such that it spreads over what arrives: of these steps, if it has steps."""
        graph, values = self.graph, self.network.parameter(node, name)
        if not (node.by_step and values.ndim):
            return graph.constant(values, name=f"{node.name}.{name}")
        every = graph.constant(values[:, np.newaxis], name=f"{node.name}.{name}")
        return graph.op("Slice", every, self.steps_before, self.steps_before + self.time_steps)

    @cached_property
    def steps_before(self) -> Value:
        """How many steps there have been since rest, (1,)."""
        self.optional.append(helper.make_tensor_value_info("state.steps", TensorProto.INT64, [1]))
        return self.graph.constant([0], np.int64, name="state.steps")

    def delay(self, node: nodes.Delay, arriving: Value) -> Value:
        """Return the output of a Delay: taken from this call's inputs and the inputs of the steps before it."""
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        longest, time_first = longest_delay(self.network, node), [1, 0, *range(2, 2 + len(shape))]
        before = self.carried(f"{node.name}.line", np.zeros((longest, *shape), np.float32))
        arriving = graph.op("Expand", arriving, self.sized(self.time_steps, self.batch, shape))
        arriving = graph.op("Concat", graph.op("Transpose", before, perm=time_first), arriving, axis=0)
        first, end = graph.constant([0], np.int64), graph.constant([2**62], np.int64)
        line = graph.op("Slice", arriving, self.time_steps, end, first)
        line = graph.op("Transpose", line, perm=time_first)
        self.output(line, f"next.{node.name}.line", TensorProto.FLOAT, ["batch", longest, *shape])
        length = graph.reshape(self.time_steps, graph.constant([], np.int64))
        steps = graph.op("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))
        if node.shared:
            places = graph.op("Unsqueeze", steps, graph.constant([1], np.int64))
            places = places + graph.constant(longest - np.array(node.shared), np.int64)  # (time_steps, taps)
            taps = graph.op("Gather", arriving, places, axis=0)  # (time_steps, taps, batch, *shape)
            taps = graph.op("Transpose", taps, perm=[0, 2, 1, *range(3, 3 + len(shape))])
            return self.reshaped(taps, self.spec.output_shapes[node.name])
        steps = graph.reshape(steps, graph.constant([-1, 1, *(1 for _ in shape)], np.int64))
        source = steps + graph.constant(longest - self.network.parameter(node, "delay"), np.int64)
        source = graph.op("Expand", source, self.sized(self.time_steps, self.batch, shape))
        return graph.op("GatherElements", arriving, source, axis=0)

    def neuron(self, node: nodes.Neuron, current: Value) -> Value:
        """Scan one neuron layer over time and return its output (time_steps, batch, *shape)."""
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        current = graph.op("Expand", current, self.sized(self.time_steps, self.batch, shape))
        rest = at_rest(node, program_of(node), partial(self.network.parameter, node), np.zeros(shape, np.float32))
        states = {name: self.carried(name, array) for name, array in neuron_arrays(node, rest).items()}
        before = list(states.values())
        if counts_steps(node):
            before.append(self.begun)
        traced = ["raster", "membrane"] if isinstance(node, nodes.Spiking) else ["membrane"]
        outputs = [*(f"next.{name}" for name in states), *(f"{node.name}.{trace}" for trace in traced)]
        scanned = [*outputs[: len(states)], *[None] * counts_steps(node), *outputs[len(states) :]]
        values = graph.ops("Scan", *before, current, outputs=scanned, body=self.body(node), num_scan_inputs=1)
        by_name = {value.name: value for value in values}
        for name in outputs:
            axes: list[int | str] = ["batch", *shape] if name.startswith("next.") else ["time_steps", "batch", *shape]
            self.output(by_name[name], name, TensorProto.FLOAT, axes)
        if isinstance(node, nodes.Spiking):
            self.count_spikes(node, by_name[f"{node.name}.raster"], states.get(f"{node.name}.spikes"))
        return by_name[f"{node.name}.{traced[0]}"]

    @cached_property
    def begun(self) -> Value:
        """Whether there has been a step since rest, 0 or 1."""
        return self.optional_input("state.begun", np.zeros((), np.float32), [])

    def count_spikes(self, node: nodes.Spiking, raster: Value, before: Value | None) -> None:
        """Add the layer's spikes, and the cost of its recurrent spikes, which are those of the previous steps."""
        graph, shape = self.graph, self.spec.input_shapes[node.name]
        neurons = range(1, len(shape) + 1)

        def per_sample(values: Value) -> Value:
            return graph.cast(graph.sum(graph.cast(values, TensorProto.DOUBLE), neurons), TensorProto.INT64)

        def sent(spikes: Value) -> Value:
            return graph.cast(graph.cast(spikes, TensorProto.BOOL), TensorProto.FLOAT)

        self.output(per_sample(self.over_steps(node, raster)), f"{node.name}.spikes", TensorProto.INT64, ["batch"])
        if node.several:
            axes = graph.constant([0, *(axis + 1 for axis in neurons)], np.int64)
            most = graph.op("ReduceMax", raster, axes, keepdims=0)
            self.output(most, f"{node.name}.most", TensorProto.FLOAT, ["batch"])
        if before is not None:
            last = graph.op("Gather", raster, graph.constant(-1, np.int64), axis=0)
            heard = graph.sum(sent(raster), [0]) - sent(last) + sent(before)
            self.operations.append(per_sample(heard) * graph.constant(recurrent_fan_out(shape), np.int64))

    def body(self, node: nodes.Neuron) -> onnx.GraphProto:
        """Return one step of a layer as the body of its Scan: (state, current) to (state, recorded values)."""
        body = GraphBuilder(self.graph.numbers, keeps_signs=program_of(node).sees_signs)
        before = {name: body.fresh(name) for name in state_names(node)}
        begun = body.fresh("begun") if counts_steps(node) else None
        current = body.fresh("current")

        def parameter(name: str) -> Value:
            # An author may call a parameter what an output of the graph is called, such as raster.
            unique = body.fresh(f"{node.name}.{name}").name
            return body.constant(self.network.parameter(node, name), name=unique)

        recur = partial(self.recur, body, node) if node.recurrent is not None else None
        layer = NeuronLayer[Value](program_of(node), parameter, operations(body), body.float, recur, counts_steps(node))
        leaving, membrane, after = layer.step(before, current, begun)
        arguments, kept = [*before.values()], [after[name] for name in before]
        if begun is not None:
            arguments.append(begun)
            kept.append(body.constant(1, np.float32))
        traces = [leaving, membrane] if isinstance(node, nodes.Spiking) else [membrane]
        # A body may not output one of its inputs, or a value twice: those are copied.
        results = [body.op("Identity", value) for value in (*kept, *traces)]
        infos = [
            [helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None) for value in values]
            for values in ([*arguments, current], results)
        ]
        return helper.make_graph(body.nodes, "step", *infos, body.constants)

    def recur(self, body: GraphBuilder, node: nodes.Neuron, spikes: Value, biased: Value | bool) -> Value:
        """Return the recurrent current of a layer's spikes of the previous step, (batch, *shape)."""
        flat = body.op("Flatten", spikes, axis=1)
        current = self.product(body, f"{node.name}.recurrent", flat, biased)
        return body.reshape(current, body.op("Shape", spikes))


def _window(windows: tuple[Window, ...]) -> dict[str, Any]:
    return {
        "kernel_shape": [window.extent for window in windows],
        "strides": [window.stride for window in windows],
        "pads": [window.before for window in windows] + [window.after for window in windows],
    }


def _transposed_window(windows: tuple[TransposedWindow, ...]) -> dict[str, Any]:
    return {
        "kernel_shape": [window.extent for window in windows],
        "strides": [window.stride for window in windows],
        "pads": [window.padding for window in windows] * 2,
        "output_padding": [window.output_padding for window in windows],
    }
