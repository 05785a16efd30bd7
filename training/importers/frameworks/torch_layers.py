"""Rules for PyTorch's pools over a length, adaptive averages, transposed convolutions and Unflatten."""

from __future__ import annotations

import math
from typing import Any

from models.spec.nodes import AvgPool1d, MaxPool1d
from models.spec.parameters import Shape, show
from training.errors import InvalidGraph
from training.importers import connections
from training.importers.frameworks.layer import Layer


def average_pool1d(layer: Layer) -> None:
    """Convert nn.AvgPool1d."""
    module = layer.module
    edges = {"overhang": module.ceil_mode, "count_padding": module.count_include_pad}
    layer.builder.add(connections.pool(layer.name, AvgPool1d, *_windows(module), **edges))


def max_pool1d(layer: Layer) -> None:
    """Convert nn.MaxPool1d."""
    module = layer.module
    layer.refuse_unless(_single(module.dilation) == (1,), f"dilation is {module.dilation}", "a pool has no gaps")
    layer.refuse_unless(not module.return_indices, "return_indices is True", "a layer gives one thing")
    layer.builder.add(connections.pool(layer.name, MaxPool1d, *_windows(module), overhang=module.ceil_mode))


def adaptive_average(layer: Layer) -> None:
    """Convert nn.AdaptiveAvgPool1d and 2d, whose windows have to be of one size."""
    shape, size = layer.builder.shape, layer.module.output_size
    if shape is None:
        return
    outputs = size if isinstance(size, tuple) else (size,) * (len(shape) - 1)
    if len(outputs) != len(shape) - 1:
        layer.refuse(f"output_size is {size}", f"its input has shape {show(shape)}")
        return
    try:
        layer.builder.add(connections.adaptive_average(layer.name, shape, outputs))
    except InvalidGraph:
        layer.refuse(f"output_size is {size}", f"windows of several sizes would cover an input of shape {show(shape)}")


def transposed_convolution(layer: Layer) -> None:
    """Convert nn.ConvTranspose1d and 2d."""
    module = layer.module
    draft = connections.transposed_convolution(
        layer.name,
        len(module.kernel_size),
        *layer.weights(module),
        stride=module.stride,
        padding=module.padding,
        output_padding=module.output_padding,
        dilation=module.dilation,
        groups=module.groups,
    )
    layer.builder.add(draft)


def unflatten(layer: Layer) -> None:
    """Convert nn.Unflatten of an axis of a sample."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    axis = module.dim if module.dim >= 0 else 1 + len(shape) + module.dim
    if not 1 <= axis <= len(shape):
        layer.refuse(f"dim is {module.dim}", f"it is no axis of a sample of shape {show(shape)}")
        return
    sizes = tuple(int(size) for size in module.unflattened_size)
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes = tuple(shape[axis - 1] // known if size == -1 and known > 0 else size for size in sizes)
    layer.builder.add(connections.reshape(layer.name, (*shape[: axis - 1], *sizes, *shape[axis:])))


def _windows(pool: Any) -> tuple[Shape, Shape, Shape]:
    """Return a pool's window, stride and padding; the stride is as wide as the window where it has none."""
    return _single(pool.kernel_size), _single(pool.stride or pool.kernel_size), _single(pool.padding)


def _single(value: Any) -> Shape:
    return (value,) if isinstance(value, int) else tuple(value)
