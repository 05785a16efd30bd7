"""NIR's nodes that remember nothing, and Delay, as nodes of ours: the same under every dialect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from models.spec.parameters import Shape, show
from training.errors import InvalidGraph
from training.importers.nir.cell import Cell
from training.importers.nir.graph import Array, GraphNode


@dataclass(frozen=True)
class Converted:
    """A node's fields as our spec has them, but for its name and inputs, and its tensors by parameter."""

    fields: dict[str, Any]
    tensors: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a step of time is to a graph: its seconds, or 1 where the file counts in steps."""

    length: float


Convert: TypeAlias = Callable[[Cell, Step], Converted]


def _dense(cell: Cell, _: Step) -> Converted:
    weight = matrix(cell.node)
    bias = _bias(cell.node, weight.shape[0])
    fields = {"type": "Linear", "in_features": weight.shape[1], "out_features": weight.shape[0]}
    return Converted(fields | {"bias": bool(bias)}, {"weight": weight} | bias)


def matrix(node: GraphNode) -> Array:
    """Return the weight (out, in) of a Linear or Affine."""
    weight = node.array("weight")
    if weight.ndim != 2:
        raise InvalidGraph(f"node '{node.name}': weight has shape {show(weight.shape)}, expected (out, in)")
    return weight


def _bias(node: GraphNode, size: int) -> dict[str, Array]:
    """Return the bias by name; a bias of zeros changes nothing, and is left out."""
    if node.type == "Linear" or not node.has("bias"):
        return {}
    bias = node.array("bias")
    if bias.size not in (1, size):
        raise InvalidGraph(f"node '{node.name}': bias has shape {show(bias.shape)}, expected {size} values")
    return {"bias": np.broadcast_to(bias.ravel(), (size,))} if bias.any() else {}


def _convolution(cell: Cell, _: Step) -> Converted:
    node, axes = cell.node, 1 if cell.type == "Conv1d" else 2
    weight = node.array("weight")
    if weight.ndim != 2 + axes:
        kernel = "length" if axes == 1 else "height, width"
        raise InvalidGraph(
            f"node '{node.name}': weight has shape {show(weight.shape)}, expected (out, in / groups, {kernel})"
        )
    groups = (node.sizes("groups") or (1,))[0]
    bias = _bias(node, weight.shape[0])
    fields = {
        "type": cell.type,
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": _along(weight.shape[2:]),
        "stride": _along(_sizes(node, "stride", axes, 1)),
        "padding": _padding(node, axes),
        "dilation": _along(_sizes(node, "dilation", axes, 1)),
        "groups": groups,
        "bias": bool(bias),
    }
    return Converted(fields, {"weight": weight} | bias)


def _padding(node: GraphNode, axes: int) -> Any:
    padding = node.parameters.get("padding")
    if not isinstance(padding, str):
        return _along(_sizes(node, "padding", axes, 0))
    if padding not in ("same", "valid"):
        raise InvalidGraph(f"node '{node.name}': padding is '{padding}', expected numbers, 'same' or 'valid'")
    return "same" if padding == "same" else _along((0,) * axes)


def _sizes(node: GraphNode, parameter: str, axes: int, default: int) -> Shape:
    sizes = node.sizes(parameter) or (default,)
    if len(sizes) not in (1, axes):
        raise InvalidGraph(f"node '{node.name}': {parameter} has {len(sizes)} values, expected {axes}")
    return sizes * axes if len(sizes) == 1 else sizes


def _along(sizes: Shape) -> int | Shape:
    return sizes[0] if len(sizes) == 1 else sizes


def _pool(cell: Cell, _: Step) -> Converted:
    node = cell.node
    if not node.has("kernel_size"):
        raise InvalidGraph(f"node '{node.name}': {node.type} lacks kernel_size")
    kernel = _sizes(node, "kernel_size", 2, 1)
    stride = _sizes(node, "stride", 2, 1) if node.has("stride") else kernel
    return Converted(
        {"type": cell.type, "kernel_size": kernel, "stride": stride, "padding": _sizes(node, "padding", 2, 0)}
    )


def _flatten(cell: Cell, _: Step) -> Converted:
    """Return our Flatten, which flattens all axes: the only one that fits between nodes that read lists of features.

    NIR counts axes without the batch's; a file that was written as PyTorch counts them starts at 1 for the first.
    """
    start = (cell.node.sizes("start_dim") or (1,))[0]
    end = (cell.node.sizes("end_dim") or (-1,))[0]
    axes = len(cell.shape)
    for batch in (0, 1):
        first, last = (index - batch if index >= 0 else index + axes for index in (start, end))
        # Axes of size 1 that are left out make no difference.
        left = [size for axis, size in enumerate(cell.shape) if not first <= axis <= last and size != 1]
        if first >= 0 and last < axes and not left:
            if batch and axes > 1:
                cell.mended(
                    f"node '{cell.node.name}': its axes {start} to {end} count a batch's axis; all are flattened"
                )
            return Converted({"type": "Flatten"})
    raise InvalidGraph(
        f"node '{cell.node.name}': flattens the axes {start} to {end} of {show(cell.shape)}, expected all of them"
    )


def _scale(cell: Cell, _: Step) -> Converted:
    return Converted({"type": "Scale", "scale": cell.array("scale")})


def _delay(cell: Cell, step: Step) -> Converted:
    exact = cell.array("delay").astype(np.float64) / step.length
    steps = np.round(exact)
    if np.any(np.abs(exact - steps) > 1e-3):
        worst = float(exact.flat[np.abs(exact - steps).argmax()])
        cell.mended(f"node '{cell.node.name}': a delay of {worst:g} steps is rounded to a whole number of them")
    return Converted({"type": "Delay", "delay": steps})


CONNECTIONS: Mapping[str, Convert] = {
    "Linear": _dense,
    "Affine": _dense,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Scale": _scale,
    "Delay": _delay,
}


def features(node: GraphNode) -> int:
    """Return how many features a Linear or Affine takes."""
    return int(matrix(node).shape[1])


def size_of(shape: Shape) -> int:
    """Return how many elements a shape has."""
    return math.prod(shape)
