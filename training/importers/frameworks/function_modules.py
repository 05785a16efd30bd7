"""Modules that stand for functions of a traced forward which no module of torch computes, and what each becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.models.spec.nodes import MaxPool2d, Scale, SumPool1d, SumPool2d
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Draft
from spikeserve.training.importers.frameworks.layer import Layer, Rule


class Affine(nn.Module):
    """Values times a factor plus an offset, each of which spreads over a sample."""

    def __init__(self, factor: Tensor, offset: Tensor | None = None) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, values: Tensor) -> Tensor:
        """Return `factor * values + offset` of values (batch, *shape)."""
        scaled = values * self.factor
        return scaled if self.offset is None else scaled + self.offset


class Reshaped(nn.Module):
    """Samples of another shape, in row-major order."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """Return values (batch, *any shape) as (batch, *shape)."""
        return values.reshape(len(values), *self.shape)


class Permuted(nn.Module):
    """The axes of a sample in another order."""

    def __init__(self, order: Shape) -> None:
        super().__init__()
        self.order = order

    def forward(self, values: Tensor) -> Tensor:
        """Return values (batch, *shape) with axis k of a sample as its axis order[k] was."""
        return values.permute(0, *(1 + axis for axis in self.order))


class Taken(nn.Module):
    """Part of a sample along its first axis."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, values: Tensor) -> Tensor:
        """Return values (batch, axis, *shape) from `start` to before `stop` of the axis."""
        return values[:, self.start : self.stop]


class Summed(nn.Module):
    """The sums over windows of a sample (channels, *axes), each as long as it steps."""

    def __init__(self, kernel: Shape) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, values: Tensor) -> Tensor:
        """Return the sums of values (batch, channels, *axes)."""
        for axis, size in enumerate(self.kernel, start=2):
            values = torch.unflatten(values, axis, (-1, size)).sum(axis + 1)
        return values


class Join(nn.Module):
    """The base of what takes several inputs and does not just sum them."""


class Product(Join):
    """The element-wise product of two inputs."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the product of values (batch, *shape)."""
        return one * other


class Concatenated(Join):
    """Inputs side by side along an axis of a sample."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the inputs (batch, *shape) along the axis."""
        return torch.cat(inputs, 1 + self.axis)


class MatrixProduct(Join):
    """The matrix product of two inputs, for each of the axes before the last two."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return (batch, *heads, rows, columns) of (batch, *heads, rows, inner) and (batch, *heads, inner, columns)."""
        return one @ other


def affine(layer: Layer) -> None:
    """Convert a scaling and a shift by constants."""
    module = layer.module
    offset = None if module.offset is None else layer.array("offset", module.offset)
    fields = {"scale": layer.array("factor", module.factor)} | ({} if offset is None else {"offset": offset})
    layer.builder.add(Draft(layer.name, Scale, fields))


def reshaped(layer: Layer) -> None:
    """Convert a reshape of a sample."""
    layer.builder.add(connections.reshape(layer.name, layer.module.shape))


def permuted(layer: Layer) -> None:
    """Convert a permutation of a sample's axes."""
    layer.builder.add(connections.permute(layer.name, layer.module.order))


def taken(layer: Layer) -> None:
    """Convert a part of a sample: weights of 1 from what is taken, which move it as it is."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    weight = np.eye(shape[0])[module.start : module.stop]
    if len(shape) == 1:
        layer.builder.add(connections.linear(layer.name, weight, None))
        return
    size = math.prod(shape[1:])
    if len(shape) > 2:
        layer.builder.add(connections.reshape(f"{layer.name}_rows", (shape[0], size)))
    along: dict[str, Any] = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
    layer.builder.add(connections.convolution(layer.name, 1, weight[:, :, None], None, **along))
    if len(shape) > 2:
        layer.builder.add(connections.reshape(f"{layer.name}_shaped", (len(weight), *shape[1:])))


def summed(layer: Layer) -> None:
    """Convert sums over windows."""
    kernel = layer.module.kernel
    layer.builder.add(connections.pool(layer.name, SumPool1d if len(kernel) == 1 else SumPool2d, kernel, kernel))


def product(layer: Layer) -> None:
    """Convert a product of two inputs."""
    layer.builder.add(connections.multiply(layer.name))


def concatenated(layer: Layer) -> None:
    """Convert inputs side by side."""
    layer.builder.add(connections.concatenate(layer.name, layer.module.axis))


def rectified(layer: Layer) -> None:
    """Convert a ReLU: the greater of each value and 0, which is a max pool over the two of them."""
    shape, name, builder = layer.builder.shape, layer.name, layer.builder
    if shape is None:
        return
    row = builder.add(connections.reshape(f"{name}_row", (1, 1, math.prod(shape))))
    zeros = builder.add(connections.scale(f"{name}_zeros", np.float64(0.0)))
    builder.follow([row, zeros])
    builder.add(connections.concatenate(f"{name}_both", 1))
    builder.add(connections.pool(f"{name}_greater", MaxPool2d, (2, 1), (2, 1), (0, 0)))
    builder.add(connections.reshape(name, shape))


def matrix_product(layer: Layer) -> None:
    """Convert a matrix product of two inputs."""
    layer.builder.add(connections.matmul(layer.name))


FUNCTIONS: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {
        nn.ReLU: rectified,
        Affine: affine,
        Reshaped: reshaped,
        Permuted: permuted,
        Taken: taken,
        Summed: summed,
        Product: product,
        Concatenated: concatenated,
        MatrixProduct: matrix_product,
    }
)
NOT_NEGATIVE = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.LPPool2d),
    *(nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ConstantPad1d, nn.ConstantPad2d),
    *(nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Unflatten),
    *(Reshaped, Permuted, Taken, Summed, Join),
)


def keeps_sign(module: nn.Module) -> bool:
    """Return whether what a module gives of values that are not negative is not negative."""
    if isinstance(module, Affine):
        return bool((module.factor >= 0).all()) and (module.offset is None or bool((module.offset >= 0).all()))
    return isinstance(module, NOT_NEGATIVE)
