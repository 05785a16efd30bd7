"""PyTorch's own layers, which networks of all frameworks hold, as nodes: connections, pools, and what only trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from spikeserve.models.spec.nodes import AvgPool1d, AvgPool2d, Flatten, MaxPool1d, MaxPool2d, Permute, Reshape
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.frameworks.framework import Framework, Layer, Rule, folded
from spikeserve.plugins.frameworks.function_modules import BATCH_NORMS, FUNCTIONS
from spikeserve.plugins.frameworks.own_neuron import OwnNeuron, own_neuron
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Draft

AVERAGES: Mapping[type[nn.Module], type[AvgPool1d | AvgPool2d]] = {nn.AvgPool1d: AvgPool1d, nn.AvgPool2d: AvgPool2d}
MAXIMA: Mapping[type[nn.Module], type[MaxPool1d | MaxPool2d]] = {nn.MaxPool1d: MaxPool1d, nn.MaxPool2d: MaxPool2d}
ONLY_TRAINING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)


def linear(layer: Layer) -> None:
    """Convert nn.Linear; along the last of several axes, it is a convolution that sees one element at a time."""
    weight, bias = layer.weights(layer.module)
    shape, name, add = layer.builder.shape, layer.name, layer.builder.add
    if shape is None or len(shape) < 2 or shape[-1] != weight.shape[1]:
        add(connections.linear(name, weight, bias))
        return
    if len(shape) > 2:
        add(Draft(f"{name}_rows", Reshape, {"shape": (math.prod(shape[:-1]), shape[-1])}))
    add(Draft(f"{name}_columns", Permute, {"order": (1, 0)}))
    add(connections.convolution(name, 1, weight[:, :, None], bias))
    add(Draft(f"{name}_back", Permute, {"order": (1, 0)}))
    if len(shape) > 2:
        add(Draft(f"{name}_shaped", Reshape, {"shape": (*shape[:-1], weight.shape[0])}))


def convolution(layer: Layer) -> None:
    """Convert nn.Conv1d and nn.Conv2d, and nn.ConvTranspose1d and 2d."""
    module = layer.module
    layer.refuse_unless(
        module.padding_mode == "zeros", f"padding_mode is '{module.padding_mode}'", "only zeros pad a convolution"
    )
    draft = connections.convolution(
        layer.name,
        len(module.kernel_size),
        *layer.weights(module),
        stride=module.stride,
        padding=None if module.padding == "valid" else module.padding,
        dilation=module.dilation,
        groups=module.groups,
        transposed=module.transposed,
        output_padding=module.output_padding,
    )
    layer.builder.add(draft)


def average_pool(layer: Layer) -> None:
    """Convert nn.AvgPool1d and 2d."""
    module = layer.module
    divisor = getattr(module, "divisor_override", None)
    layer.refuse_unless(divisor is None, f"divisor_override is {divisor}", "an average divides by its window's size")
    kind = next(kind for of, kind in AVERAGES.items() if isinstance(module, of))
    edges = {"overhang": module.ceil_mode, "count_padding": module.count_include_pad}
    layer.builder.add(connections.pool(layer.name, kind, *_windows(module, len(kind.axes)), **edges))


def max_pool(layer: Layer) -> None:
    """Convert nn.MaxPool1d and 2d."""
    module = layer.module
    kind = next(kind for of, kind in MAXIMA.items() if isinstance(module, of))
    gaps = set(_along(module.dilation, 2)) != {1}
    layer.refuse_unless(not gaps, f"dilation is {module.dilation}", "a pool has no gaps")
    layer.refuse_unless(not module.return_indices, "return_indices is True", "a layer gives one thing")
    layer.builder.add(connections.pool(layer.name, kind, *_windows(module, len(kind.axes)), overhang=module.ceil_mode))


def sum_pool(layer: Layer) -> None:
    """Convert nn.LPPool2d of norm 1, the sum pool of sinabs and Norse."""
    module = layer.module
    layer.refuse_unless(not module.ceil_mode, "ceil_mode is True", "windows that overhang are left out of a sum")
    layer.refuse_unless(module.norm_type == 1, f"norm_type is {module.norm_type}", "only 1, a sum, has a node")
    kernel, stride = (_along(size, 2) for size in (module.kernel_size, module.stride or module.kernel_size))
    for draft in connections.sum_by_averaging(layer.name, kernel, stride):
        layer.builder.add(draft)


def adaptive_average(layer: Layer) -> None:
    """Convert nn.AdaptiveAvgPool1d and 2d, whose windows have to be of one size, or of one value each."""
    shape, size = layer.builder.shape, layer.module.output_size
    if shape is None:
        return
    sizes = shape[1:]
    outputs = _along(size, len(sizes))
    if len(outputs) != len(sizes) or len(sizes) not in connections.AVERAGES:
        layer.refuse(f"output_size is {size}", f"its input has shape {show(shape)}")
        return
    targets = [length if output is None else output for length, output in zip(sizes, outputs, strict=True)]
    repeats = tuple(max(1, output // length) for length, output in zip(sizes, targets, strict=True))
    pooled = [output // times for output, times in zip(targets, repeats, strict=True)]
    even = all(output * times == whole for output, times, whole in zip(pooled, repeats, targets, strict=True))
    if not even or any(output < 1 or length % output for length, output in zip(sizes, pooled, strict=True)):
        layer.refuse(f"output_size is {size}", f"windows of several sizes would cover an input of shape {show(shape)}")
        return
    if tuple(pooled) != sizes or max(repeats) == 1:
        kernel = tuple(length // output for length, output in zip(sizes, pooled, strict=True))
        layer.builder.add(connections.pool(layer.name, connections.AVERAGES[len(sizes)], kernel, kernel))
    if max(repeats) > 1:  # more outputs than inputs: each window holds one value
        _repeat(layer, shape[0], repeats)


def adaptive_maximum(layer: Layer) -> None:
    """Convert nn.AdaptiveMaxPool1d and 2d, whose windows have to be of one size."""
    before = len(layer.builder.nodes)
    adaptive_average(layer)
    for place, node in enumerate(layer.builder.nodes[before:], before):
        if isinstance(node, AvgPool1d | AvgPool2d):
            kind = MaxPool1d if isinstance(node, AvgPool1d) else MaxPool2d
            fields = {name: getattr(node, name) for name in kind.model_fields if name != "type"}
            layer.builder.nodes[place] = kind(**fields)


def zero_pad(layer: Layer) -> None:
    """Convert nn.ConstantPad1d and 2d of zeros: a convolution of each channel whose one weight of 1 moves it."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    padding = module.padding
    pairs = list(zip(padding[::2], padding[1::2], strict=True))[::-1]  # the last axis comes first in PyTorch
    pairs = [(0, 0)] * (len(shape) - 1 - len(pairs)) + pairs
    layer.refuse_unless(getattr(module, "value", 0) == 0, f"value is {module.value}", "only zeros are padded")
    if len(shape) not in (2, 3) or len(pairs) != len(shape) - 1 or min(min(pairs)) < 0:
        layer.refuse(f"padding is {padding}", f"its input has shape {show(shape)}, expected channels and 1 or 2 axes")
        return
    kernel = tuple(abs(before - after) + 1 for before, after in pairs)
    around = tuple(max(pair) for pair in pairs)
    weight = np.zeros((shape[0], 1, *kernel), np.float32)
    weight[(slice(None), 0, *(most - before for most, (before, _) in zip(around, pairs, strict=True)))] = 1
    draft = connections.convolution(layer.name, len(pairs), weight, None, padding=around, groups=shape[0])
    layer.builder.add(draft)


def upsample(layer: Layer) -> None:
    """Convert nn.Upsample of the nearest value by whole factors: a transposed convolution whose weights are 1."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    sizes, axes = shape[1:], len(shape) - 1
    factors = _along(module.scale_factor, axes)
    if module.size is not None:
        factors = tuple(out / size for out, size in zip(_along(module.size, axes), sizes, strict=True))
    whole = all(factor == int(factor) >= 1 for factor in factors)
    nearest = module.mode in ("nearest", "nearest-exact")
    layer.refuse_unless(nearest, f"mode is '{module.mode}'", "expected 'nearest', or a ConvTranspose2d in its place")
    layer.refuse_unless(whole and axes in (1, 2), f"it scales {show(sizes)} by {factors}", "expected whole factors")
    if whole and nearest and axes in (1, 2):
        _repeat(layer, shape[0], tuple(int(factor) for factor in factors))


def _repeat(layer: Layer, channels: int, times: Shape) -> None:
    """Repeat each value along its axes, by a transposed convolution of each channel whose weights are 1."""
    weight = np.ones((channels, 1, *times), np.float32)
    draft = connections.convolution(
        layer.name, len(times), weight, None, stride=times, groups=channels, transposed=True
    )
    layer.builder.add(draft)


def flatten(layer: Layer) -> None:
    """Convert nn.Flatten of a whole sample; one of some axes is traced, for its input says which those are."""
    module, shape = layer.module, layer.builder.shape
    layer.refuse_unless(module.start_dim > 0, f"start_dim is {module.start_dim}", "it would flatten the batch")
    if shape is None or len(shape) > 1:
        layer.builder.add(Draft(layer.name, Flatten))


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
    layer.builder.add(Draft(layer.name, Reshape, {"shape": (*shape[: axis - 1], *sizes, *shape[axis:])}))


def nothing(_: Layer) -> None:
    """Convert what passes its input on in evaluation: nn.Identity, nn.Dropout."""


def probabilities(layer: Layer) -> None:
    """Refuse nn.Softmax, nn.LogSoftmax and nn.Sigmoid of each step."""
    layer.refuse(
        "its class",
        "it makes probabilities of each step, and they are made of what is read: leave a last one out of your network",
    )


def _windows(pool: Any, axes: int) -> tuple[Shape, Shape, Shape]:
    """Return a pool's window, stride and padding; the stride is as wide as the window where it has none."""
    kernel, stride, padding = pool.kernel_size, pool.stride or pool.kernel_size, pool.padding
    return _along(kernel, axes), _along(stride, axes), _along(padding, axes)


def _along(value: Any, axes: int) -> tuple[Any, ...]:
    """Return a size for each axis: all the same where a module says one."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes


MODULES: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {nn.Linear: linear, nn.Flatten: flatten, nn.Unflatten: unflatten, nn.LPPool2d: sum_pool, OwnNeuron: own_neuron}
    | dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d), convolution)
    | dict.fromkeys(AVERAGES, average_pool)
    | dict.fromkeys(MAXIMA, max_pool)
    | dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), adaptive_average)
    | dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), adaptive_maximum)
    | dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d), zero_pad)
    | dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d), upsample)
    | dict.fromkeys(ONLY_TRAINING, nothing)
    | dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Sigmoid), probabilities)
    | dict(BATCH_NORMS)
    | dict(FUNCTIONS)
)

FRAMEWORK = Framework(
    name="torch",
    rule="computes each step as its author's code does, in float32 and in the same order",
    containers=frozenset({nn.Sequential}),
    rules=MODULES,
    run=folded,
)
