"""Rules for PyTorch's pools over a length, adaptive pools, transposed convolutions, paddings, Upsample, Unflatten."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spikeserve.models.spec.nodes import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.training.importers import connections
from spikeserve.training.importers.frameworks.layer import Layer


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
    """Convert nn.AdaptiveAvgPool1d and 2d, whose windows have to be of one size, or of one value each."""
    shape, size = layer.builder.shape, layer.module.output_size
    if shape is None:
        return
    outputs = size if isinstance(size, tuple) else (size,) * (len(shape) - 1)
    if len(outputs) != len(shape) - 1:
        layer.refuse(f"output_size is {size}", f"its input has shape {show(shape)}")
        return
    sizes = shape[1:]
    wanted = [given if output is None else output for given, output in zip(sizes, outputs, strict=True)]
    repeats = tuple(max(1, output // given) for given, output in zip(sizes, wanted, strict=True))
    pooled = [output // times for output, times in zip(wanted, repeats, strict=True)]
    even = all(output * times == whole for output, times, whole in zip(pooled, repeats, wanted, strict=True))
    even = even and all(given % output == 0 for given, output in zip(sizes, pooled, strict=True))
    if not even:
        layer.refuse(f"output_size is {size}", f"windows of several sizes would cover an input of shape {show(shape)}")
        return
    if tuple(pooled) != sizes or max(repeats) == 1:
        layer.builder.add(connections.adaptive_average(layer.name, shape, pooled))
    if max(repeats) > 1:  # more outputs than inputs: each window holds one value
        _repeat(layer, shape[0], repeats)


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


def adaptive_maximum(layer: Layer) -> None:
    """Convert nn.AdaptiveMaxPool1d and 2d, whose windows have to be of one size."""
    before = len(layer.builder.nodes)
    adaptive_average(layer)
    for place, node in enumerate(layer.builder.nodes[before:], before):
        if not isinstance(node, AvgPool1d | AvgPool2d):
            continue
        kind = MaxPool1d if isinstance(node, AvgPool1d) else MaxPool2d
        layer.builder.nodes[place] = kind(**{name: getattr(node, name) for name in kind.model_fields if name != "type"})


def zero_pad(layer: Layer) -> None:
    """Convert nn.ConstantPad1d and 2d of zeros: a convolution of each channel whose one weight of 1 moves it."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    given = module.padding
    pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]  # the last axis comes first in PyTorch
    pairs = [(0, 0)] * (len(shape) - 1 - len(pairs)) + pairs
    layer.refuse_unless(getattr(module, "value", 0) == 0, f"value is {module.value}", "only zeros are padded")
    if len(shape) not in (2, 3) or len(pairs) != len(shape) - 1 or min(min(pairs)) < 0:
        layer.refuse(f"padding is {given}", f"its input has shape {show(shape)}, expected channels and 1 or 2 axes")
        return
    kernel = tuple(abs(before - after) + 1 for before, after in pairs)
    around = tuple(max(pair) for pair in pairs)
    weight = np.zeros((shape[0], 1, *kernel), np.float32)
    weight[(slice(None), 0, *(most - before for most, (before, _) in zip(around, pairs, strict=True)))] = 1
    ones = (1,) * len(pairs)
    along: dict[str, Any] = {"stride": ones, "padding": around, "dilation": ones, "groups": shape[0]}
    layer.builder.add(connections.convolution(layer.name, len(pairs), weight, None, **along))


def upsample(layer: Layer) -> None:
    """Convert nn.Upsample of the nearest value by whole factors: a transposed convolution whose weights are 1."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    sizes, axes = shape[1:], len(shape) - 1
    factors = _each(module.scale_factor, axes)
    if module.size is not None:
        factors = tuple(out / size for out, size in zip(_each(module.size, axes), sizes, strict=True))
    whole = all(factor == int(factor) >= 1 for factor in factors)
    nearest = module.mode in ("nearest", "nearest-exact")
    layer.refuse_unless(nearest, f"mode is '{module.mode}'", "expected 'nearest', or a ConvTranspose2d in its place")
    layer.refuse_unless(whole and axes in (1, 2), f"it scales {show(sizes)} by {factors}", "expected whole factors")
    if not (whole and nearest and axes in (1, 2)):
        return
    _repeat(layer, shape[0], tuple(int(factor) for factor in factors))


def _repeat(layer: Layer, channels: int, times: Shape) -> None:
    """Repeat each value along its axes, by a transposed convolution of each channel whose weights are 1."""
    none, ones = (0,) * len(times), (1,) * len(times)
    along: dict[str, Any] = {"stride": times, "padding": none, "output_padding": none, "dilation": ones}
    weight = np.ones((channels, 1, *times), np.float32)
    draft = connections.transposed_convolution(layer.name, len(times), weight, None, **along, groups=channels)
    layer.builder.add(draft)


def _each(value: Any, axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes


def _windows(pool: Any) -> tuple[Shape, Shape, Shape]:
    """Return a pool's window, stride and padding; the stride is as wide as the window where it has none."""
    return _single(pool.kernel_size), _single(pool.stride or pool.kernel_size), _single(pool.padding)


def _single(value: Any) -> Shape:
    return (value,) if isinstance(value, int) else tuple(value)
