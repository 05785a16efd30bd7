"""From the layers of a `.net` file to a network of ours, of the kinds that Lava's `netx.hdf5.Network` runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Delay, Flatten
from spikeserve.models.spec.parameters import PER_NEURON, Shape, show
from spikeserve.models.spec.program import CURRENT
from spikeserve.plugins.nir.graph import Array, GraphNode
from spikeserve.plugins.nir.lava.file import Layer
from spikeserve.plugins.nir.lava.neuron import MAX_THRESHOLD, MAX_WEIGHTS, UNIT, neuron, sigma_delta, whole
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Builder, Draft
from spikeserve.training.importers.options import Options

LEAST_WEIGHT, MOST_WEIGHT = -256, 254  # of Loihi's 8 bits, with an exponent for each layer
MAX_AXES = 4  # of an input
MAX_DELAY = 62  # of an axon; Lava takes a longer one for that
LIF, SIGMA_DELTA = ("CUBA", "LOIHI"), "SDNN"
LEFT_OUT = {"refDelay": 1, "wgtExp": 0, "weight_exp": 0, "gradedSpike": 0}  # by netx, and what changes nothing
SUM = {"iDecay": 0, "vDecay": 4096, "vThMant": 2**17}  # netx's layer without neurons: the sum of all that arrived


def convert(layers: tuple[Layer, ...], options: Options, *, latency: bool) -> Network:
    """Return the network that the layers are; with `latency`, each connection takes a step.

    Raises InvalidGraph, or InvalidSpec, with a sentence that names the layer where one cannot be served.
    """
    encodes = layers[0].block.type == "input" and layers[0].neuron is not None
    builder = Builder(options.input_shape or _input_shape(layers[0].block))
    converter = _Converter(builder, latency=latency)
    for place, layer in enumerate(layers):
        add = converter.adders.get(layer.block.type)
        if add is None or (layer.block.type == "input" and place):
            raise InvalidGraph(
                f"node '{layer.block.name}': a layer of type '{layer.block.type}' is not one that Lava's netx runs "
                f"there, expected {', '.join(converter.adders)}, of which input comes first"
            )
        _require_neurons(layer)
        add(layer)
    chosen = options.model_copy(update={"coding": options.coding or (Coding.DIRECT if encodes else Coding.SPIKES)})
    return builder.network(chosen, dt=None, readout=converter.readout)


def _input_shape(first: GraphNode) -> Shape:
    """Return the shape of a sample at one step."""
    if first.type == "conv":
        raise InvalidGraph(f"node '{first.name}': the file does not say the input's shape: give --input-shape")
    shape = first.sizes("shape") if first.type == "input" else _weight(first, "weight").shape[1:]
    if not shape or min(shape) < 1 or len(shape) > MAX_AXES:
        raise InvalidGraph(f"node '{first.name}': the input's shape is not 1 to {MAX_AXES} sizes of at least 1")
    return shape


def _require_neurons(layer: Layer) -> None:
    """Raise InvalidGraph for neurons of another kind, and for what Lava's netx would leave out."""
    neurons, name = layer.neuron, layer.block.name
    if neurons is None:
        return
    if neurons.type not in (*LIF, SIGMA_DELTA):
        raise InvalidGraph(
            f"node '{name}': its neurons are of type '{neurons.type}', expected {', '.join(LIF)} or {SIGMA_DELTA}"
        )
    activation = np.asarray(neurons.parameters.get("activation")).ravel().tolist()
    if neurons.type == SIGMA_DELTA and (layer.block.type == "dense_rec" or activation != ["relu"]):
        raise InvalidGraph(
            f"node '{name}': {SIGMA_DELTA} neurons are served with activation relu, and not in dense_rec"
        )
    for key, usual in LEFT_OUT.items():
        if neurons.has(key) and np.any(np.asarray(neurons.parameters[key]) != usual):
            raise InvalidGraph(f"node '{name}': {key} is not {usual}, which Lava's netx does not simulate")


class _Converter:
    """Adds one layer after the other; `readout` is what the last one's answer is read from."""

    def __init__(self, builder: Builder, *, latency: bool) -> None:
        self.builder, self.latency, self.readout = builder, latency, Readout.SPIKE_COUNT
        self.adders: Mapping[str, Callable[[Layer], None]] = {
            "input": self.input,
            "dense": self.dense,
            "dense_rec": self.dense,
            "conv": self.conv,
            "flatten": lambda _: None,  # a dense layer takes what arrives as a list
        }

    def input(self, layer: Layer) -> None:
        """Add neurons whose membrane is driven by `weight * value + bias`, cut to whole numbers."""
        if layer.neuron is not None:
            factor, offset = _number(layer.block, "weight", 64.0), _number(layer.block, "bias", 0.0)
            driven = replace(layer.neuron, parameters={**layer.neuron.parameters, "iDecay": UNIT})  # by no current
            self._neuron(replace(layer, neuron=driven), np.zeros(1), f"trunc({factor} * current + {offset})")

    def dense(self, layer: Layer) -> None:
        """Add a full connection, and in `dense_rec` one from the layer's own spikes."""
        block, weight = layer.block, _weight(layer.block, "weight")
        feedback = _weight(block, "weight_rec") if block.type == "dense_rec" else None
        if feedback is not None and feedback.shape != (len(weight),) * 2:
            raise InvalidGraph(
                f"node '{block.name}': weight_rec has shape {show(feedback.shape)}, expected {show((len(weight),) * 2)}"
            )
        _require_exact(block, [weight] if feedback is None else [weight, feedback], packed=True)
        if len(self.builder.shape or ()) > 1:
            self.builder.add(Draft(f"{block.name}_flatten", Flatten))
        before, after = self._delays(block, weight.shape)
        self._delay(block, before + self.latency)
        self.builder.add(connections.linear(f"{block.name}_weight", weight, None))
        self._delay(block, after)
        self._neuron(layer, _bias(block), feedback=feedback)

    def conv(self, layer: Layer) -> None:
        """Add a convolution over (channels, height, width)."""
        block = layer.block
        weight = whole(block, "weight", LEAST_WEIGHT, MOST_WEIGHT)
        weight = weight[..., 0] if weight.ndim == 5 and weight.shape[-1] == 1 else weight  # without the axis of time
        if block.has("delay"):
            raise InvalidGraph(f"node '{block.name}': has a delay, which Lava's netx simulates for dense layers only")
        self._delay(block, np.array(self.latency))
        fields: dict[str, Any] = {"groups": (block.sizes("groups") or (1,))[0]}
        fields |= {key: _pair(block, key, usual) for key, usual in (("stride", 1), ("padding", 0), ("dilation", 1))}
        self.builder.add(connections.convolution(f"{block.name}_weight", 2, weight, None, **fields))
        _require_exact(block, [weight])
        self._neuron(layer, _bias(block))

    def _neuron(self, layer: Layer, bias: Array, stimulus: str = CURRENT, feedback: Array | None = None) -> None:
        neurons, shape = layer.neuron or GraphNode(layer.block.name, LIF[0], SUM), self.builder.shape or ()
        if neurons.type == SIGMA_DELTA:
            self.builder.add(sigma_delta(neurons, bias, shape, stimulus))
            self.readout = Readout.LAST if neurons.has("sigma_output") else Readout.SUM  # of changes
            return
        self.builder.add(neuron(neurons, bias, shape, stimulus, feedback))
        silent = whole(neurons, "vThMant", 0, 2**17).min() >= MAX_THRESHOLD
        self.readout = Readout.LAST_MEMBRANE if silent else Readout.SPIKE_COUNT

    def _delay(self, block: GraphNode, steps: Array) -> None:
        """Delay what leaves so far by so many steps: one number, or one for each element."""
        if steps.ndim:
            self.builder.add(Draft(f"{block.name}_delay", Delay, {"delay": PER_NEURON}, {"delay": steps}))
        elif steps > 0:
            self.builder.add(Draft(f"{block.name}_delay", Delay, {"delay": int(steps)}))

    def _delays(self, block: GraphNode, shape: Shape) -> tuple[Array, Array]:
        """Return the steps before the weights (out, in), one number or of each input, and after them of each output."""
        none, (outputs, inputs) = np.array(0), shape
        if not block.has("delay"):
            return none, none
        delay = np.minimum(np.trunc(block.array("delay")), MAX_DELAY).ravel()
        if block.type == "dense_rec" or delay.size not in (1, outputs, inputs) or delay.min() < 0:
            raise InvalidGraph(
                f"node '{block.name}': a {block.type} layer has {delay.size} delays from {delay.min():g} on, expected "
                f"of a dense layer 1, {outputs} or {inputs}, from 0 on"
            )
        if delay.size == 1:
            return delay[0], none
        return (none, delay) if delay.size == outputs else (delay, none)


def _weight(block: GraphNode, key: str) -> Array:
    """Return the weights (out, in) of a dense layer, which may be written as a list; raises InvalidGraph."""
    weight = whole(block, key, LEAST_WEIGHT, MOST_WEIGHT)
    outputs = math.prod(block.sizes("shape") or (0,))
    if weight.ndim == 1 and outputs > 0 and weight.size % outputs == 0:
        weight = weight.reshape(outputs, -1)
    if weight.ndim != 2:
        raise InvalidGraph(f"node '{block.name}': {key} has shape {show(weight.shape)}, expected (out, in)")
    return weight


def _bias(block: GraphNode) -> Array:
    return whole(block, "bias", -MAX_WEIGHTS, MAX_WEIGHTS) if block.has("bias") else np.zeros(1)


def _require_exact(block: GraphNode, weights: list[Array], *, packed: bool = False) -> None:
    """Raise InvalidGraph where the sum of weights (out, …) needs more bits, or Lava packs them into others."""
    rows = np.hstack([weight.reshape(len(weight), -1) for weight in weights])
    most = max(np.maximum(rows, 0).sum(1).max(), np.maximum(-rows, 0).sum(1).max())
    if most >= MAX_WEIGHTS:
        raise InvalidGraph(
            f"node '{block.name}': a neuron's weights add up to {most:,.0f}, expected less than {MAX_WEIGHTS:,}, so "
            "that a current has at most 24 bits"
        )
    if packed and rows.any() and not _packs(rows, weights):
        raise InvalidGraph(
            f"node '{block.name}': has weights of one sign alone that Lava changes when it packs them into 8 bits"
        )


def _packs(rows: Array, weights: list[Array]) -> bool:
    """Tell whether netx's `optimize_weight_bits` and Lava's `truncate_weights` leave weights as they are.

    The first shifts all `rows` of a layer as far as 8 bits allow, the second cuts each matrix by its own signs.
    """
    low, high = rows.min(), rows.max()
    signed = bool(low < 0 <= high)
    room = min((127 if signed else 255) / high if high > 0 else math.inf, (128 if signed else 256) / max(-low, 0.5))
    shift = math.floor(math.log2(room)) + signed
    odd = signed and shift == 0 and bool((rows % 2).any())  # a bit is missing without the one of the sign
    return not any(
        weight.any()
        and ((weight.min() >= 0 and odd) or (weight.max() <= 0 and (odd or weight.min() * 2**shift <= -256)))
        for weight in weights
    )


def _number(block: GraphNode, key: str, default: float) -> float:
    values = block.array(key) if block.has(key) else np.array(default)
    if values.size != 1:
        raise InvalidGraph(f"node '{block.name}': {key} has {values.size} values, expected one")
    return float(values.item())


def _pair(block: GraphNode, key: str, default: int) -> Shape:
    """Return a size along height and width, which may be written as one number."""
    sizes = block.sizes(key) or (default,)
    if len(sizes) not in (1, 2):
        raise InvalidGraph(f"node '{block.name}': {key} has {len(sizes)} values, expected one, or height and width")
    return sizes * 2 if len(sizes) == 1 else sizes
