"""Connections and joins as plain NumPy functions: their definition, which the reference engine runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce, singledispatchmethod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from spikeserve.models.engines.state import longest_delay
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import (
    AvgPool,
    Concatenate,
    Conv,
    ConvTranspose,
    Delay,
    Flatten,
    JoinBase,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Node,
    Permute,
    Reshape,
    Scale,
    Spread,
    SumPool,
    Window,
)
from spikeserve.models.spec.sums import sums_of


class Connections:
    """The connections of a network, with the weights that count (`models.spec.sums`), held in float64.

    Each sum is taken in float64, where it is exact, and rounded once to float32.
    """

    def __init__(self, network: Network) -> None:
        counted = sums_of(network).weights
        self.network = network.counted(counted)
        self.weights = {name: tensor.astype(np.float64) for name, tensor in counted.items()}

    def steps(self, node: Node, x: FloatArray, begun: NDArray[np.int64], time_steps: int) -> FloatArray:
        """Apply a connection to (time_steps, batch, *shape), or to (1, batch, *shape) where every step is the same.

        `begun` (batch,) is the number of steps since rest before these. The output has one step where every step is the
        same.
        """
        if isinstance(node, Scale):
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
    def connect(self, node: Node, _: FloatArray) -> FloatArray:
        """Apply a connection to (samples, *shape), where the samples are all steps of all samples of a batch."""
        raise TypeError(f"no plain function for a {type(node).__name__}")

    @connect.register
    def _(self, node: Linear, x: FloatArray) -> FloatArray:
        return rounded(self.product(node.name, x))

    @connect.register
    def _(self, node: Conv, x: FloatArray) -> FloatArray:
        weight = self.weights[f"{node.name}.weight"]
        groups, axes = node.groups, len(node.windows)
        # For each group and each position of the window: a product over (channels of the group, taps).
        every = swept(x.astype(np.float64), node.windows, fill=0.0)
        grouped = every.reshape(len(x), groups, node.in_channels // groups, *every.shape[2:])
        kernels = weight.reshape(groups, node.out_channels // groups, *weight.shape[1:])
        places, taps = "hw"[:axes], "kl"[:axes]
        current = np.einsum(f"ngc{places}{taps},goc{taps}->ngo{places}", grouped, kernels, optimize=True)
        return self._biased(node, current.reshape(len(x), node.out_channels, *current.shape[3:]))

    @connect.register
    def _(self, node: ConvTranspose, x: FloatArray) -> FloatArray:
        weight, windows, sizes = self.weights[f"{node.name}.weight"], node.windows, x.shape[2:]
        grouped = x.reshape(len(x), node.groups, node.in_channels // node.groups, math.prod(sizes)).astype(np.float64)
        kernels = weight.reshape(node.groups, node.out_channels // node.groups, *weight.shape[1:])
        # All outputs, with those that the padding takes away on both sides.
        every = [window.outputs(size) + 2 * window.padding for window, size in zip(windows, sizes, strict=True)]
        spread = np.zeros((len(x), node.out_channels, *every), np.float64)
        for taps in np.ndindex(*(window.extent for window in windows)):
            sent = matmul(kernels[(..., *taps)], grouped).reshape(len(x), node.out_channels, *sizes)
            spread[(slice(None), slice(None), *map(_places, windows, taps, sizes))] += sent
        kept = (slice(window.padding, size - window.padding) for window, size in zip(windows, every, strict=True))
        return self._biased(node, spread[(slice(None), slice(None), *kept)])

    def _biased(self, node: Conv | ConvTranspose, current: NDArray[np.float64]) -> FloatArray:
        bias = self.weights.get(f"{node.name}.bias")
        return rounded(current if bias is None else current + bias.reshape(-1, *(1 for _ in node.windows)))

    @connect.register
    def _(self, node: SumPool | AvgPool, x: FloatArray) -> FloatArray:
        summed = rounded(swept(x, node.fitted(x.shape[1:]), fill=0.0).sum(axis=_taps(node), dtype=np.float64))
        if isinstance(node, SumPool):
            return summed
        return summed / (node.divisors(x.shape[1:]) if node.uneven else np.float32(node.area))

    @connect.register
    def _(self, node: MaxPool, x: FloatArray) -> FloatArray:
        return swept(x, node.fitted(x.shape[1:]), fill=-np.inf).max(axis=_taps(node))

    @connect.register
    def _(self, node: Flatten | Reshape, x: FloatArray) -> FloatArray:
        return x.reshape(len(x), *self.network.spec.output_shapes[node.name])

    @connect.register
    def _(self, node: Permute, x: FloatArray) -> FloatArray:
        return x.transpose(0, *(1 + axis for axis in node.order))

    @connect.register
    def _(self, _: JoinBase, x: FloatArray) -> FloatArray:
        return x  # which `join` has joined


def _places(window: Spread, tap: int, size: int) -> slice:
    """Return where the inputs along one axis go by one tap."""
    first = tap * window.dilation
    return slice(first, first + (size - 1) * window.stride + 1, window.stride)


def _scaled(node: Scale, network: Network, x: FloatArray, begun: NDArray[np.int64], time_steps: int) -> FloatArray:
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
    node: Delay, network: Network, x: FloatArray, line: FloatArray, time_steps: int
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


def join(node: Node, inputs: Sequence[FloatArray]) -> FloatArray:
    """Join the inputs of a node, each (time_steps, batch, *shape), or with 1 for both where all steps are the same."""
    if isinstance(node, Multiply):
        return reduce(np.multiply, inputs)
    if isinstance(node, Concatenate):
        leading = np.broadcast_shapes(*(x.shape[:2] for x in inputs))
        return np.concatenate([np.broadcast_to(x, (*leading, *x.shape[2:])) for x in inputs], axis=2 + node.axis)
    if isinstance(node, MatMul):
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


def swept(x: NDArray[Any], windows: tuple[Window, ...], fill: float) -> NDArray[Any]:
    """Return every window of x (samples, channels, *axes) as (samples, channels, *places, *taps)."""
    margins = [(window.before, window.after) for window in windows]
    padded = np.pad(x, ((0, 0), (0, 0), *margins), constant_values=fill)
    reach = tuple(window.dilation * (window.extent - 1) + 1 for window in windows)
    every = sliding_window_view(padded, reach, axis=tuple(range(2, x.ndim)))
    hops, taps = (tuple(slice(None, None, step) for step in steps) for steps in (
        [window.stride for window in windows], [window.dilation for window in windows]
    ))  # fmt: skip
    return every[(slice(None), slice(None), *hops, *taps)]


def _taps(node: SumPool | AvgPool | MaxPool) -> tuple[int, ...]:
    """Return the axes of the taps in what `swept` returns."""
    return tuple(range(-len(node.windows), 0))
