"""A NIR node in its layer: its parameters, and those that remember nothing, and Delay, as nodes of ours.

These are the same under every dialect; what a neuron is, `dialects` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from spikeserve.models.spec.nodes import AvgPool2d, Delay, Flatten, Scale, SumPool2d
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.nir.graph import Array, GraphNode
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Draft


@dataclass(frozen=True)
class Cell:
    """A neuron node in a layer of `shape`; `warn` is called with each repair."""

    node: GraphNode
    shape: Shape
    warn: Callable[[str], None]

    @property
    def type(self) -> str:
        """NIR's name for the node's type."""
        return self.node.type

    @property
    def has_synapse(self) -> bool:
        """Whether a synaptic current stands before its membrane."""
        return self.type in ("CubaLIF", "CubaLI")

    @property
    def tau(self) -> str:
        """NIR's name for the membrane's time constant."""
        return "tau_mem" if self.has_synapse else "tau"

    def array(self, parameter: str, default: float | None = None) -> Array:
        """Return a parameter in the file's float type; `default` where the file does not give it."""
        if default is not None and not self.node.has(parameter):
            return np.array(default)
        return self._fitted(parameter, self.node.array(parameter))

    def positive(self, parameter: str) -> Array:
        """Return a parameter that must be more than 0."""
        return self._fitted(parameter, self.node.positive(parameter))

    def _fitted(self, parameter: str, value: Array) -> Array:
        """Return an array without axes, or of the layer's shape.

        Sizes of 1 stretch as in NumPy. An array of one value per channel, or of the right size in another shape, is
        repaired.
        """
        if value.size == 1:
            return value.reshape(())
        if value.shape == self.shape:
            return value
        squeezed = value.reshape(value.shape[next(i for i, size in enumerate(value.shape) if size != 1) :])
        where = f"node '{self.node.name}': {parameter} has shape {show(value.shape)} in a layer of {show(self.shape)}"
        channels = squeezed.shape[:1] == self.shape[:1] and squeezed.ndim == 1 < len(self.shape)
        if channels and self.shape[-1] != self.shape[0]:
            self.warn(f"{where}; it is taken as one value per channel")
            return np.broadcast_to(squeezed.reshape(-1, *(1 for _ in self.shape[1:])), self.shape)
        try:
            fitted = np.broadcast_to(squeezed, self.shape)
        except ValueError:
            if value.size != math.prod(self.shape):
                raise InvalidGraph(f"{where}, which do not fit") from None
            self.warn(f"{where}; its values are taken in order")
            return value.reshape(self.shape)
        if channels:
            self.warn(f"{where}; it is taken along the last axis, as PyTorch does, not as one value per channel")
        return fitted


Convert: TypeAlias = Callable[[Cell, float], Draft]  # a node, and the seconds of a step: 1 where the file counts steps


def dense(node: GraphNode) -> Draft:
    """Return the Linear that a Linear or Affine is."""
    return _without_zeros(connections.linear(node.name, node.array("weight"), _bias(node)))


def _bias(node: GraphNode) -> Array | None:
    return node.array("bias") if node.type != "Linear" and node.has("bias") else None


def _without_zeros(draft: Draft) -> Draft:
    """Leave out a bias of zeros, which changes nothing."""
    if "bias" not in draft.tensors or draft.tensors["bias"].any():
        return draft
    return replace(draft, fields=draft.fields | {"bias": False}, tensors={"weight": draft.tensors["weight"]})


def _convolution(cell: Cell, _: float) -> Draft:
    node, axes = cell.node, 1 if cell.type == "Conv1d" else 2
    draft = connections.convolution(
        node.name,
        axes,
        node.array("weight"),
        _bias(node),
        stride=_sizes(node, "stride", axes, 1),
        padding=_padding(node, axes),
        dilation=_sizes(node, "dilation", axes, 1),
        groups=(node.sizes("groups") or (1,))[0],
    )
    return _without_zeros(draft)


def _padding(node: GraphNode, axes: int) -> Shape | Literal["same"]:
    padding: Any = node.parameters.get("padding")
    if not isinstance(padding, str):
        return _sizes(node, "padding", axes, 0)
    if padding not in ("same", "valid"):
        raise InvalidGraph(f"node '{node.name}': padding is '{padding}', expected numbers, 'same' or 'valid'")
    return "same" if padding == "same" else (0,) * axes


def _sizes(node: GraphNode, parameter: str, axes: int, default: int) -> Any:
    sizes = node.sizes(parameter) or (default,)
    if len(sizes) not in (1, axes):
        raise InvalidGraph(f"node '{node.name}': {parameter} has {len(sizes)} values, expected {axes}")
    return sizes * axes if len(sizes) == 1 else sizes


def _pool(cell: Cell, _: float) -> Draft:
    node = cell.node
    if not node.has("kernel_size"):
        raise InvalidGraph(f"node '{node.name}': {node.type} lacks kernel_size")
    kernel = _sizes(node, "kernel_size", 2, 1)
    stride = _sizes(node, "stride", 2, 1) if node.has("stride") else kernel
    kind = SumPool2d if cell.type == "SumPool2d" else AvgPool2d
    return connections.pool(node.name, kind, kernel, stride, _sizes(node, "padding", 2, 0))


def _flatten(cell: Cell, _: float) -> Draft:
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
                cell.warn(f"node '{cell.node.name}': its axes {start} to {end} count a batch's axis; all are flattened")
            return Draft(cell.node.name, Flatten)
    raise InvalidGraph(
        f"node '{cell.node.name}': flattens the axes {start} to {end} of {show(cell.shape)}, expected all of them"
    )


def _scale(cell: Cell, _: float) -> Draft:
    return Draft(cell.node.name, Scale, {"scale": cell.array("scale")})


def _delay(cell: Cell, step: float) -> Draft:
    exact = cell.array("delay").astype(np.float64) / step
    steps = np.round(exact)
    if np.any(np.abs(exact - steps) > 1e-3):
        worst = float(exact.flat[np.abs(exact - steps).argmax()])
        cell.warn(f"node '{cell.node.name}': a delay of {worst:g} steps is rounded to a whole number of them")
    return Draft(cell.node.name, Delay, {"delay": steps})


WITHOUT_MEMBRANE: Mapping[str, Convert] = {
    "Linear": lambda cell, _: dense(cell.node),
    "Affine": lambda cell, _: dense(cell.node),
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Scale": _scale,
    "Delay": _delay,
}
