"""Connections and joins as plain NumPy functions: their definition, which the reference engine runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce, singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.state import longest_delay
from spikeserve.models.spec import nodes
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.sums import sums_of


class Connections:
    """The connections of a network, with the weights that count (`models.spec.sums`), held in float64.

    Each sum is taken in float64, where it is exact, and rounded once to float32.
    """

    def __init__(self, network: Network) -> None:
        counted = sums_of(network).weights
        self.network = network.counted(counted)
        self.weights = {name: tensor.astype(np.float64) for name, tensor in counted.items()}

    def steps(self, node: nodes.Node, x: FloatArray, begun: NDArray[np.int64], time_steps: int) -> FloatArray:
        """Apply a connection to (time_steps, batch, *shape), or to (1, batch, *shape) where every step is the same.

        `begun` (batch,) is the number of steps since rest before these. The output has one step where every step is the
        same.
        """
        if isinstance(node, nodes.Scale):
            return _scaled(node, self.network, x, begun, time_steps)
        flat = self.connect(node, x.reshape(-1, *x.shape[2:]))
        return flat.reshape(*x.shape[:2], *flat.shape[1:])

    def product(
        self, connection: str, x: FloatArray, *, biased: NDArray[np.bool_] | bool = True
    ) -> NDArray[np.float64]:
        """Return the sums of (samples, inputs), each over a row of a connection's weights, and its bias if `biased`."""
        product = matmul(x.astype(np.float64), self.weights[f"{connection}.weight"].T)
        bias = self.weights.get(f"{connection}.bias")
        return product if bias is None else np.where(biased, product + bias, product)

    @singledispatchmethod
    def connect(self, node: nodes.Node, _: FloatArray) -> FloatArray:
        """Apply a connection to (samples, *shape), where the samples are all steps of all samples of a batch."""
        raise TypeError(f"no plain function for a {type(node).__name__}")

    @connect.register
    def _(self, node: nodes.Linear, x: FloatArray) -> FloatArray:
        return rounded(self.product(node.name, x))

    @connect.register
    def _(self, node: nodes.Conv | nodes.ConvTranspose, x: FloatArray) -> FloatArray:
        weight, axes = self.weights[f"{node.name}.weight"], node.spread(x.shape[1:])
        kernels = weight.reshape(node.groups, -1, *weight.shape[1:])  # (groups, outputs, inputs, *taps)
        grouped = x.reshape(len(x), node.groups, kernels.shape[2], *x.shape[2:]).astype(np.float64)
        sums = np.zeros((len(x), *kernels.shape[:2], *(axis.outputs for axis in axes)))
        for taps, inputs, outputs in reached(axes):
            sent = grouped[inputs]
            product = matmul(kernels[taps], sent.reshape(*sent.shape[:3], math.prod(sent.shape[3:])))
            sums[outputs] += product.reshape(*product.shape[:3], *sent.shape[3:])
        sums = sums.reshape(len(x), node.out_channels, *sums.shape[3:])
        bias = self.weights.get(f"{node.name}.bias")
        return rounded(sums if bias is None else sums + bias.reshape(-1, *(1 for _ in axes)))

    @connect.register
    def _(self, node: nodes.SumPool | nodes.AvgPool, x: FloatArray) -> FloatArray:
        axes = node.spread(x.shape[1:])
        sums = np.zeros((*x.shape[:2], *(axis.outputs for axis in axes)))
        for _, inputs, outputs in reached(axes):
            sums[outputs] += x[inputs]
        if isinstance(node, nodes.SumPool):
            return rounded(sums)
        return rounded(sums) / (node.divisors(x.shape[1:]) if node.uneven else np.float32(node.area))

    @connect.register
    def _(self, node: nodes.MaxPool, x: FloatArray) -> FloatArray:
        axes = node.spread(x.shape[1:])
        largest = np.full((*x.shape[:2], *(axis.outputs for axis in axes)), -np.inf, np.float32)
        for _, inputs, outputs in reached(axes):
            largest[outputs] = np.maximum(largest[outputs], x[inputs])
        return largest

    @connect.register
    def _(self, node: nodes.Flatten | nodes.Reshape, x: FloatArray) -> FloatArray:
        return x.reshape(len(x), *self.network.spec.output_shapes[node.name])

    @connect.register
    def _(self, node: nodes.Permute, x: FloatArray) -> FloatArray:
        return x.transpose(0, *(1 + axis for axis in node.order))

    @connect.register
    def _(self, _: nodes.JoinBase, x: FloatArray) -> FloatArray:
        return x  # which `join` has joined


def _scaled(
    node: nodes.Scale, network: Network, x: FloatArray, begun: NDArray[np.int64], time_steps: int
) -> FloatArray:
    """Scale each element, or each step by what is its own, of arrays (steps, *shape)."""
    if (begun == begun[:1]).all():  # all samples are of one age
        begun = begun[:1] if begun.size else np.zeros(1, np.int64)
    steps = begun + np.arange(time_steps)[:, np.newaxis]  # (time_steps, batch or 1)

    def own(name: str) -> FloatArray:
        values = network.parameter(node, name)
        return values[steps] if node.by_step and values.ndim else values

    scaled = own("scale") * x
    return scaled if node.offset == 0 else scaled + own("offset")


def delayed(
    node: nodes.Delay, network: Network, x: FloatArray, line: FloatArray, time_steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return the output of a Delay (time_steps, batch, *output shape), and the line after these steps.

    `x` is (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same; `line` (longest delay,
    batch, *shape) are the inputs before it, the oldest first.
    """
    x = np.concatenate([line, np.broadcast_to(x, (time_steps, *x.shape[1:]))])
    longest, line = longest_delay(network, node), x[time_steps:]
    if node.shared:
        taps = [x[longest - steps : longest - steps + time_steps] for steps in node.shared]
        return np.concatenate(taps, axis=2), line
    delays, later = network.parameter(node, "delay"), np.empty((time_steps, *x.shape[1:]), np.float32)
    for delay in np.unique(delays).astype(int):
        start = longest - delay
        later[:, :, delays == delay] = x[start : start + time_steps][:, :, delays == delay]
    return later, line


def join(node: nodes.Node, inputs: Sequence[FloatArray]) -> FloatArray:
    """Join the inputs of a node, each (time_steps, batch, *shape), or with 1 for both where all steps are the same."""
    if isinstance(node, nodes.Multiply):
        return reduce(np.multiply, inputs)
    if isinstance(node, nodes.Concatenate):
        leading = np.broadcast_shapes(*(x.shape[:2] for x in inputs))
        return np.concatenate([np.broadcast_to(x, (*leading, *x.shape[2:])) for x in inputs], axis=2 + node.axis)
    if isinstance(node, nodes.MatMul):
        return rounded(matmul(*(x.astype(np.float64) for x in inputs)))
    return reduce(np.add, inputs)


def rounded(sums: NDArray[np.float64]) -> FloatArray:
    """Return sums in float32, rounded once; what does not fit becomes infinite."""
    with np.errstate(over="ignore"):
        return sums.astype(np.float32)


def matmul(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix product over the last two axes.

    A BLAS may compute lanes that are no part of the product, on whatever lies there, and so set a floating-point flag
    that NumPy reports as an invalid value, once in thousands of products of small finite numbers.
    """
    with np.errstate(invalid="ignore"):
        product: NDArray[np.float64] = left @ right
    return product


def reached(axes: Sequence[nodes.Axis]) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]]:
    """Yield each tap, the inputs that reach an output by it, and these outputs, all as indices of the last axes."""
    for taps in np.ndindex(*(axis.taps for axis in axes)):
        inputs, outputs = zip(*(axis.pairs(tap) for axis, tap in zip(axes, taps, strict=True)), strict=True)
        yield (..., *taps), (..., *np.ix_(*inputs)), (..., *np.ix_(*outputs))
