"""A neuron node as a dialect sees it: each parameter either one number or an array of the layer's shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.spec.parameters import Shape, show
from training.errors import InvalidGraph
from training.importers.nir.graph import Array, GraphNode


@dataclass(frozen=True)
class Cell:
    """A neuron node in a layer of `shape`; what is mended about a parameter is told to `mended`."""

    node: GraphNode
    shape: Shape
    mended: Callable[[str], None]

    @property
    def type(self) -> str:
        """NIR's name for the node's type."""
        return self.node.type

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
        mended.
        """
        if value.size == 1:
            return value.reshape(())
        if value.shape == self.shape:
            return value
        squeezed = value.reshape(value.shape[next(i for i, size in enumerate(value.shape) if size != 1) :])
        where = f"node '{self.node.name}': {parameter} has shape {show(value.shape)} in a layer of {show(self.shape)}"
        channels = squeezed.shape[:1] == self.shape[:1] and squeezed.ndim == 1 < len(self.shape)
        if channels and self.shape[-1] != self.shape[0]:
            self.mended(f"{where}; it is taken as one value per channel")
            return np.broadcast_to(squeezed.reshape(-1, *(1 for _ in self.shape[1:])), self.shape)
        try:
            fitted = np.broadcast_to(squeezed, self.shape)
        except ValueError:
            if value.size != math.prod(self.shape):
                raise InvalidGraph(f"{where}, which do not fit") from None
            self.mended(f"{where}; its values are taken in order")
            return value.reshape(self.shape)
        if channels:
            self.mended(f"{where}; it is taken along the last axis, as PyTorch does, not as one value per channel")
        return fitted
