"""Connections, pools and delays of ours from arrays and hyper-parameters: the one place where importers make them.

A torch module and a NIR node are each translated into one call of these. Whether a node fits what arrives at it is
checked where it is added to the builder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.nodes import (
    AvgPool1d,
    AvgPool2d,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Linear,
    MaxPool1d,
    MaxPool2d,
    Scale,
    SumPool1d,
    SumPool2d,
)
from spikeserve.models.spec.parameters import PER_CHANNEL, Shape, show
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import Draft

Array = NDArray[Any]
Pools = SumPool1d | SumPool2d | AvgPool1d | AvgPool2d | MaxPool1d | MaxPool2d
TRANSPOSED: dict[int, type[ConvTranspose1d | ConvTranspose2d]] = {1: ConvTranspose1d, 2: ConvTranspose2d}
AVERAGES: dict[int, type[AvgPool1d | AvgPool2d]] = {1: AvgPool1d, 2: AvgPool2d}
CONVOLUTIONS: dict[int, tuple[type[Conv1d | Conv2d], str]] = {1: (Conv1d, "length"), 2: (Conv2d, "height, width")}


def linear(name: str, weight: Array, bias: Array | None) -> Draft:
    """Return a Linear of a weight (out, in) and a bias (out,); raises InvalidGraph for other shapes."""
    _require_axes(name, weight, 2, "(out, in)")
    fields = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    return _weighted(name, Linear, fields, weight, bias)


def convolution(
    name: str,
    axes: int,
    weight: Array,
    bias: Array | None,
    *,
    stride: Shape | None = None,
    padding: Shape | Literal["same"] | None = None,
    dilation: Shape | None = None,
    groups: int = 1,
) -> Draft:
    """Return a Conv1d or Conv2d, by its axes, of a weight (out, in / groups, *kernel) and a bias (out,)."""
    kind, kernel = CONVOLUTIONS[axes]
    _require_axes(name, weight, 2 + axes, f"(out, in / groups, {kernel})")
    fields = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": _along(weight.shape[2:]),
        "stride": _along(stride or (1,) * axes),
        "padding": padding if isinstance(padding, str) else _along(padding or (0,) * axes),
        "dilation": _along(dilation or (1,) * axes),
        "groups": groups,
    }
    return _weighted(name, kind, fields, weight, bias)


def transposed_convolution(
    name: str,
    axes: int,
    weight: Array,
    bias: Array | None,
    *,
    stride: Shape,
    padding: Shape | None = None,
    output_padding: Shape | None = None,
    dilation: Shape | None = None,
    groups: int,
) -> Draft:
    """Return a ConvTranspose1d or 2d, by its axes, of a weight (in, out / groups, *kernel), as PyTorch has it."""
    _require_axes(name, weight, 2 + axes, f"(in, out / groups, {CONVOLUTIONS[axes][1]})")
    if groups < 1 or weight.shape[0] % groups:
        raise InvalidGraph(f"node '{name}': groups is {groups}, which must divide its {weight.shape[0]} inputs")
    fields = {
        "in_channels": weight.shape[0],
        "out_channels": weight.shape[1] * groups,
        "kernel_size": _along(weight.shape[2:]),
        "stride": _along(stride),
        "padding": _along(padding or (0,) * axes),
        "output_padding": _along(output_padding or (0,) * axes),
        "dilation": _along(dilation or (1,) * axes),
        "groups": groups,
    }
    grouped = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    outputs_first = grouped.reshape(-1, *grouped.shape[2:])
    return _weighted(name, TRANSPOSED[axes], fields, outputs_first, bias)


def pool(
    name: str, kind: type[Pools], kernel: Shape, stride: Shape, padding: Shape | None = None, **edges: bool
) -> Draft:
    """Return a pool over windows of (height, width), or of (length,) for one of the pools over a length.

    `edges` are its `overhang`, and an average's `count_padding`.
    """
    fields = {"kernel_size": _along(kernel), "stride": _along(stride), **edges}
    return Draft(name, kind, fields if padding is None else fields | {"padding": _along(padding)})


def adaptive_average(name: str, arriving: Shape, outputs: Sequence[int | None]) -> Draft:
    """Return the average over windows that divide an input (channels, *axes) into so many outputs along each axis.

    One output is a global average, and None keeps an axis. Raises InvalidGraph where the windows would differ in size.
    """
    sizes = arriving[1:]
    targets = tuple(size if output is None else output for size, output in zip(sizes, outputs, strict=True))
    divides = all(output > 0 and size % output == 0 for size, output in zip(sizes, targets, strict=True))
    if len(sizes) not in AVERAGES or not divides:
        raise InvalidGraph(
            f"node '{name}': averages an input of shape {show(arriving)} into {show(targets)}, expected outputs that "
            "divide its one or two axes, so that all windows are of one size"
        )
    kernel = tuple(size // output for size, output in zip(sizes, targets, strict=True))
    return pool(name, AVERAGES[len(sizes)], kernel, kernel)


def sum_by_averaging(name: str, kernel: Shape, stride: Shape) -> list[Draft]:
    """Return the nodes of a sum that is computed as an average times the window's size, as PyTorch's LPPool2d does.

    That rounds unless the size is a power of two; only then is it a SumPool2d.
    """
    size = math.prod(kernel)
    if size & (size - 1) == 0:
        return [pool(name, SumPool2d, kernel, stride)]
    return [pool(f"{name}_average", AvgPool2d, kernel, stride), Draft(name, Scale, {"scale": np.float64(size)})]


def affine(name: str, factor: Array, offset: Array) -> Draft:
    """Return a Scale by a factor and an offset of each channel (channels,), or of each step too (steps, channels)."""
    fields = {"scale": PER_CHANNEL, "offset": PER_CHANNEL} | ({"steps": len(factor)} if factor.ndim > 1 else {})
    return Draft(name, Scale, fields, {"scale": factor, "offset": offset})


def _weighted(name: str, kind: Any, fields: dict[str, Any], weight: Array, bias: Array | None) -> Draft:
    outputs = weight.shape[0]
    if bias is not None and bias.size not in (1, outputs):
        raise InvalidGraph(f"node '{name}': bias has shape {show(bias.shape)}, expected {outputs} values")
    tensors = {"weight": weight} | ({} if bias is None else {"bias": np.broadcast_to(bias.ravel(), (outputs,))})
    return Draft(name, kind, fields | {"bias": bias is not None}, tensors)


def _require_axes(name: str, weight: Array, axes: int, expected: str) -> None:
    if weight.ndim != axes:
        raise InvalidGraph(f"node '{name}': weight has shape {show(weight.shape)}, expected {expected}")


def _along(sizes: Shape) -> int | Shape:
    """Return the sizes along the axes as a spec has them: a plain number along one axis."""
    return sizes[0] if len(sizes) == 1 else tuple(sizes)
