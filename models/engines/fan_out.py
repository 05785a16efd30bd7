"""The fan-out: how many weights each input of a connection meets, the cost of one spike there; and their sum."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.plain import Connections, join
from spikeserve.models.spec import INPUT, Coding, Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Delay, Linear, Neuron, Spiking, Weighted
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.sparse import Sparse


def fan_out(node: Weighted, shape: Shape, network: Network | None = None) -> NDArray[np.int64]:
    """Return the number of weights that each element of an input of `shape` meets, an array of that shape.

    An input at the border of a convolution is covered by fewer windows, and so meets fewer weights. Of a Linear of
    which few weights are stored only these count, which are those of a `network`.
    """
    if isinstance(node, Linear):
        weight = None if network is None else network.stored[f"{node.name}.weight"]
        return weight.fan_out() if isinstance(weight, Sparse) else np.full(shape, node.out_features, np.int64)
    # A window is the product of one interval along each axis, so the counts of the axes multiply.
    read = [axis.meets().sum(axis=0) for axis in node.spread(shape)]
    per_position = functools.reduce(np.multiply.outer, read) * (node.out_channels // node.groups)
    return np.broadcast_to(per_position, shape).copy()


class DenseOperations(NamedTuple):
    """What `synaptic_operations` of one sample would be if no input were 0: counted once, and at each step."""

    once: int
    per_step: int


def dense_operations(spec: Spec) -> DenseOperations:
    """Return the operations of a network whose every input and neuron is other than 0 at every step."""
    constant = constant_nodes(spec) if spec.coding is Coding.DIRECT else frozenset()
    once = per_step = 0
    for node in spec.nodes:
        shape = spec.input_shapes[node.name]
        if isinstance(node, Weighted):
            stored = node.nonzero if isinstance(node, Linear) else None
            operations = int(fan_out(node, shape).sum()) if stored is None else stored
            once, per_step = (once + operations, per_step) if node.name in constant else (once, per_step + operations)
        elif isinstance(node, Spiking) and node.recurrent is not None:
            per_step += math.prod(shape) * recurrent_fan_out(shape)
    return DenseOperations(once, per_step)


def operations(node: Weighted, arriving: FloatArray, network: Network) -> NDArray[np.int64]:
    """Return the weights that the inputs (steps, batch, *shape) of a connection meet, (batch,)."""
    met = (arriving != 0) * fan_out(node, arriving.shape[2:], network)
    return met.sum(axis=(0, *range(2, met.ndim)), dtype=np.int64)


def constant_operations(network: Network, inputs: FloatArray) -> NDArray[np.int64]:
    """Return the operations before any neuron of inputs (1, batch, *shape) that all steps share, (batch,).

    Each run counts them once.
    """
    spec, constant, outputs = network.spec, constant_nodes(network.spec), {INPUT: inputs}
    total, begun = np.zeros((2, inputs.shape[1]), np.int64)
    counted = [node for node in spec.nodes if node.name in constant and isinstance(node, Weighted)]
    for node in (each for each in spec.nodes if counted and each.name in constant):
        arriving = join(node, [outputs[name] for name in spec.sources[node.name]])
        total += operations(node, arriving, network) if isinstance(node, Weighted) else 0
        if node is counted[-1]:
            break
        outputs[node.name] = Connections(network).steps(node, arriving, begun, 1)
    return total


def recurrent_fan_out(shape: Shape) -> int:
    """Return the number of recurrent weights that one spike of a layer of `shape` meets."""
    return math.prod(shape)


def constant_nodes(spec: Spec) -> frozenset[str]:
    """Return the nodes whose output is the same at every step, if the network's input is: those before any neuron."""
    constant = {INPUT}
    for node in spec.nodes:
        if constant.issuperset(spec.sources[node.name]) and not (isinstance(node, Neuron | Delay) or node.by_step):
            constant.add(node.name)
    return frozenset(constant - {INPUT})
