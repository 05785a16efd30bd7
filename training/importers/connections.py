"""Connections, pools and delays of ours from arrays and hyper-parameters: the one place where importers make them.

A torch module and a NIR node are each translated into one call of these. Whether a node fits what arrives at it is
checked where it is added to the builder.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import nodes
from spikeserve.models.spec.parameters import PER_CHANNEL, Shape, show
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import Draft

Array = NDArray[Any]
Pools = nodes.SumPool1d | nodes.SumPool2d | nodes.AvgPool1d | nodes.AvgPool2d | nodes.MaxPool1d | nodes.MaxPool2d
AVERAGES: dict[int, type[nodes.AvgPool1d | nodes.AvgPool2d]] = {1: nodes.AvgPool1d, 2: nodes.AvgPool2d}
CONVOLUTIONS: dict[int, tuple[Any, Any, str]] = {
    1: (nodes.Conv1d, nodes.ConvTranspose1d, "length"),
    2: (nodes.Conv2d, nodes.ConvTranspose2d, "height, width"),
}


def linear(name: str, weight: Array, bias: Array | None) -> Draft:
    """Return a Linear of a weight (out, in) and a bias (out,); raises InvalidGraph for other shapes."""
    _require_axes(name, weight, 2, "(out, in)")
    fields = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    return _weighted(name, nodes.Linear, fields, weight, bias)


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
    transposed: bool = False,
    output_padding: Shape | None = None,
) -> Draft:
    """Return a Conv1d or Conv2d, by its axes, of a weight (out, in / groups, *kernel) and a bias (out,).

    A `transposed` one is a ConvTranspose1d or 2d, of a weight (in, out / groups, *kernel), as PyTorch has it.
    """
    plain, other, kernel = CONVOLUTIONS[axes]
    _require_axes(name, weight, 2 + axes, f"({'in, out' if transposed else 'out, in'} / groups, {kernel})")
    if transposed:
        grouped = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        weight = grouped.reshape(-1, *grouped.shape[2:])
    fields = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": _along(weight.shape[2:]),
        "stride": _along(stride or (1,) * axes),
        "padding": padding if isinstance(padding, str) else _along(padding or (0,) * axes),
        "dilation": _along(dilation or (1,) * axes),
        "groups": groups,
        **({"output_padding": _along(output_padding or (0,) * axes)} if transposed else {}),
    }
    return _weighted(name, other if transposed else plain, fields, weight, bias)


def pool(
    name: str, kind: type[Pools], kernel: Shape, stride: Shape, padding: Shape | None = None, **edges: bool
) -> Draft:
    """Return a pool over windows of (height, width), or of (length,) for one of the pools over a length.

    `edges` are its `overhang`, and an average's `count_padding`.
    """
    fields = {"kernel_size": _along(kernel), "stride": _along(stride), **edges}
    return Draft(name, kind, fields if padding is None else fields | {"padding": _along(padding)})


def sum_by_averaging(name: str, kernel: Shape, stride: Shape) -> list[Draft]:
    """Return the nodes of a sum that is computed as an average times the window's size, as PyTorch's LPPool2d does.

    That rounds unless the size is a power of two; only then is it a SumPool2d.
    """
    size = math.prod(kernel)
    if size & (size - 1) == 0:
        return [pool(name, nodes.SumPool2d, kernel, stride)]
    return [
        pool(f"{name}_average", nodes.AvgPool2d, kernel, stride),
        Draft(name, nodes.Scale, {"scale": np.float64(size)}),
    ]


def affine(name: str, factor: Array, offset: Array) -> Draft:
    """Return a Scale by a factor and an offset of each channel (channels,), or of each step too (steps, channels)."""
    fields = {"scale": PER_CHANNEL, "offset": PER_CHANNEL} | ({"steps": len(factor)} if factor.ndim > 1 else {})
    return Draft(name, nodes.Scale, fields, {"scale": factor, "offset": offset})


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
