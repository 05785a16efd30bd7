"""Connections, pools and delays of ours from arrays and hyper-parameters: the one place where importers make them.

A torch module and a NIR node are each translated into one call of these. Whether a node fits what arrives at it is
checked where it is added to the builder.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.spec.nodes import AvgPool2d, Conv1d, Conv2d, Delay, Flatten, Linear, MaxPool2d, Scale, SumPool2d
from models.spec.parameters import Shape, show
from training.errors import InvalidGraph
from training.importers.builder import Draft

Array = NDArray[Any]
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
    stride: Shape,
    padding: Shape | Literal["same"],
    dilation: Shape,
    groups: int,
) -> Draft:
    """Return a Conv1d or Conv2d, by its axes, of a weight (out, in / groups, *kernel) and a bias (out,)."""
    kind, kernel = CONVOLUTIONS[axes]
    _require_axes(name, weight, 2 + axes, f"(out, in / groups, {kernel})")
    fields = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": _along(weight.shape[2:]),
        "stride": _along(stride),
        "padding": padding if isinstance(padding, str) else _along(padding),
        "dilation": _along(dilation),
        "groups": groups,
    }
    return _weighted(name, kind, fields, weight, bias)


def pool(
    name: str, kind: type[SumPool2d | AvgPool2d | MaxPool2d], kernel: Shape, stride: Shape, padding: Shape = (0, 0)
) -> Draft:
    """Return a pool over windows of (height, width)."""
    return Draft(name, kind, {"kernel_size": kernel, "stride": stride, "padding": padding})


def sum_by_averaging(name: str, kernel: Shape, stride: Shape) -> list[Draft]:
    """Return the nodes of a sum that is computed as an average times the window's size, as PyTorch's LPPool2d does.

    That rounds unless the size is a power of two; only then is it a SumPool2d.
    """
    size = math.prod(kernel)
    if size & (size - 1) == 0:
        return [pool(name, SumPool2d, kernel, stride)]
    return [pool(f"{name}_average", AvgPool2d, kernel, stride), scale(name, np.float64(size))]


def flatten(name: str) -> Draft:
    """Return a Flatten of a whole sample."""
    return Draft(name, Flatten)


def scale(name: str, factor: Array | np.float64) -> Draft:
    """Return a Scale by one factor, or one for each value."""
    return Draft(name, Scale, {"scale": factor})


def delay(name: str, steps: Array) -> Draft:
    """Return a Delay by whole steps, one for all values or one for each."""
    return Draft(name, Delay, {"delay": steps})


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
