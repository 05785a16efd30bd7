"""The weighted connections of a network, and the weights that are not 0 which each of their inputs meets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.fan_out import fan_out
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Conv, ConvTranspose, Linear, Spiking, Weighted
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.sparse import Sparse


@dataclass(frozen=True)
class Connection:
    """A weighted connection; the recurrent one of a neuron is a connection of its own, named "<neuron>.recurrent".

    `fan_out` (inputs,) int64 is how many weights that are not 0 each element of its flattened input meets. `dense` is
    how many operations one step takes where every input and every stored weight counts; padding is no input. `weights`
    and `zeros` are numbers: of its stored weights, and of those of them that are 0.
    """

    name: str
    fan_out: NDArray[np.int64]
    dense: int
    weights: int
    zeros: int


def connections_of(network: Network) -> dict[str, Connection]:
    """Return the weighted connections of a network by name, in the order of its nodes."""
    return {each.name: each for each in _connections(network)}


def _connections(network: Network) -> Iterator[Connection]:
    spec = network.spec
    for node in spec.nodes:
        before = spec.input_shapes[node.name]
        if isinstance(node, Weighted):
            weight, dense = network.stored[f"{node.name}.weight"], int(fan_out(node, before, network).sum())
            there = (weight.values if isinstance(weight, Sparse) else weight) != 0
            if isinstance(weight, Sparse):
                met = np.bincount(weight.inputs[there], minlength=weight.shape[1])
            else:
                met = there.sum(axis=0, dtype=np.int64) if isinstance(node, Linear) else _met(node, there, before)
            yield _connection(node.name, there, met, dense)
        elif isinstance(node, Spiking) and node.recurrent is not None:
            there = network.tensors[f"{node.name}.recurrent.weight"] != 0
            met = there.sum(axis=0, dtype=np.int64)
            yield _connection(f"{node.name}.recurrent", there, met, there.size)


def _connection(name: str, there: NDArray[np.bool_], met: NDArray[np.int64], dense: int) -> Connection:
    zeros = there.size - int(np.count_nonzero(there))
    return Connection(name, met.reshape(-1), dense, there.size, zeros)


def _met(node: Conv | ConvTranspose, there: NDArray[np.bool_], shape: Shape) -> NDArray[np.int64]:
    """Return how many weights that are not 0 each element of a convolution's input meets, an array of `shape`.

    For each channel and tap, the weights to all outputs of its group; for each place of an axis and tap, whether an
    output reads the place by that tap. Their products, summed over the taps, are the numbers.
    """
    groups = node.groups
    kernels = there.reshape(groups, node.out_channels // groups, *there.shape[1:])
    met = kernels.sum(axis=1, dtype=np.int64).reshape(node.in_channels, *there.shape[2:])
    for axis in node.spread(shape):
        met = np.tensordot(met, axis.meets(), axes=(1, 0))  # the axis of its taps becomes the last, of places
    return met
