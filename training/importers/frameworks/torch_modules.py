"""PyTorch's own layers, which all frameworks share: connections, pools, and what does nothing in evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from spikeserve.models.spec.nodes import AvgPool2d, MaxPool2d
from spikeserve.training.importers import connections
from spikeserve.training.importers.frameworks import torch_layers
from spikeserve.training.importers.frameworks.batch_norms import BATCH_NORMS
from spikeserve.training.importers.frameworks.function_modules import FUNCTIONS
from spikeserve.training.importers.frameworks.layer import Layer, Rule
from spikeserve.training.importers.frameworks.own_neuron import OwnNeuron
from spikeserve.training.importers.frameworks.programs import own_neuron


def linear(layer: Layer) -> None:
    """Convert nn.Linear; along the last of several axes, it is a convolution that sees one element at a time."""
    weight, bias = layer.weights(layer.module)
    shape, name = layer.builder.shape, layer.name
    if shape is None or len(shape) < 2 or shape[-1] != weight.shape[1]:
        layer.builder.add(connections.linear(name, weight, bias))
        return
    if len(shape) > 2:
        layer.builder.add(connections.reshape(f"{name}_rows", (math.prod(shape[:-1]), shape[-1])))
    layer.builder.add(connections.permute(f"{name}_columns", (1, 0)))
    along: dict[str, Any] = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
    layer.builder.add(connections.convolution(name, 1, weight[:, :, None], bias, **along))
    layer.builder.add(connections.permute(f"{name}_back", (1, 0)))
    if len(shape) > 2:
        layer.builder.add(connections.reshape(f"{name}_shaped", (*shape[:-1], weight.shape[0])))


def convolution(layer: Layer) -> None:
    """Convert nn.Conv1d and nn.Conv2d."""
    module = layer.module
    layer.refuse_unless(
        module.padding_mode == "zeros", f"padding_mode is '{module.padding_mode}'", "only zeros pad a convolution"
    )
    axes = len(module.kernel_size)
    layer.builder.add(
        connections.convolution(
            layer.name,
            axes,
            *layer.weights(module),
            stride=module.stride,
            padding=(0,) * axes if module.padding == "valid" else module.padding,
            dilation=module.dilation,
            groups=module.groups,
        )
    )


def average_pool(layer: Layer) -> None:
    """Convert nn.AvgPool2d."""
    module = layer.module
    layer.refuse_unless(
        module.divisor_override is None,
        f"divisor_override is {module.divisor_override}",
        "an average divides by its window's size",
    )
    edges = {"overhang": module.ceil_mode, "count_padding": module.count_include_pad}
    layer.builder.add(connections.pool(layer.name, AvgPool2d, *_windows(module), _pair(module.padding), **edges))


def max_pool(layer: Layer) -> None:
    """Convert nn.MaxPool2d."""
    module = layer.module
    layer.refuse_unless(_pair(module.dilation) == (1, 1), f"dilation is {module.dilation}", "a pool has no gaps")
    layer.refuse_unless(not module.return_indices, "return_indices is True", "a layer gives one thing")
    edges = {"overhang": module.ceil_mode}
    layer.builder.add(connections.pool(layer.name, MaxPool2d, *_windows(module), _pair(module.padding), **edges))


def max_pool3d(layer: Layer) -> None:
    """Convert nn.MaxPool3d of one depth, which takes (time, batch, channels, height, width) as it is."""
    module, shape = layer.module, layer.builder.shape
    if shape is None:
        return
    depths = [_triple(value)[0] for value in (module.kernel_size, module.stride, module.padding, module.dilation)]
    if depths != [1, 1, 0, 1] or len(shape) != 3:
        layer.refuse(f"kernel_size is {module.kernel_size}", "a pool is over height and width, or over a length")
        return
    flat = {name: _triple(getattr(module, name))[1:] for name in ("kernel_size", "stride", "padding", "dilation")}
    pool = nn.MaxPool2d(**flat, ceil_mode=module.ceil_mode, return_indices=module.return_indices)
    max_pool(replace(layer, module=pool))


def sum_pool(layer: Layer) -> None:
    """Convert nn.LPPool2d of norm 1, the sum pool of sinabs and Norse."""
    module = layer.module
    layer.refuse_unless(not module.ceil_mode, "ceil_mode is True", "windows that overhang are left out of a sum")
    layer.refuse_unless(module.norm_type == 1, f"norm_type is {module.norm_type}", "only 1, a sum, has a node")
    for draft in connections.sum_by_averaging(layer.name, *_windows(module)):
        layer.builder.add(draft)


def flatten(layer: Layer) -> None:
    """Convert nn.Flatten of a whole sample; one of some axes is traced, for its input says which those are."""
    module = layer.module
    layer.refuse_unless(module.start_dim > 0, f"start_dim is {module.start_dim}", "it would flatten the batch")
    flatten_whole(layer, layer.name)


def flatten_whole(layer: Layer, name: str) -> None:
    """Append a node that flattens what arrives, unless it is flat."""
    shape = layer.builder.shape
    if shape is None or len(shape) > 1:
        layer.builder.add(connections.flatten(name))


def nothing(_: Layer) -> None:
    """Convert what passes its input on in evaluation: nn.Identity, nn.Dropout."""


def probabilities(layer: Layer) -> None:
    """Refuse nn.Softmax and nn.LogSoftmax of each step."""
    layer.refuse(
        "its class",
        "it makes probabilities of each step, and they are made of what is read: leave it out of your network",
    )


def _windows(pool: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a pool's windows and strides, which are as wide as the windows where it has none."""
    return _pair(pool.kernel_size), _pair(pool.stride or pool.kernel_size)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _triple(value: Any) -> tuple[int, int, int]:
    return (value, value, value) if isinstance(value, int) else tuple(value)


PASSED_ON = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)

MODULES: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {
        nn.Linear: linear,
        nn.Conv1d: convolution,
        nn.Conv2d: convolution,
        nn.AvgPool2d: average_pool,
        nn.MaxPool2d: max_pool,
        nn.MaxPool3d: max_pool3d,
        nn.LPPool2d: sum_pool,
        nn.Flatten: flatten,
        nn.AvgPool1d: torch_layers.average_pool1d,
        nn.MaxPool1d: torch_layers.max_pool1d,
        nn.AdaptiveAvgPool1d: torch_layers.adaptive_average,
        nn.AdaptiveAvgPool2d: torch_layers.adaptive_average,
        nn.AdaptiveMaxPool1d: torch_layers.adaptive_maximum,
        nn.AdaptiveMaxPool2d: torch_layers.adaptive_maximum,
        nn.ConstantPad1d: torch_layers.zero_pad,
        nn.ConstantPad2d: torch_layers.zero_pad,
        nn.ZeroPad1d: torch_layers.zero_pad,
        nn.ZeroPad2d: torch_layers.zero_pad,
        nn.Upsample: torch_layers.upsample,
        nn.UpsamplingNearest2d: torch_layers.upsample,
        nn.ConvTranspose1d: torch_layers.transposed_convolution,
        nn.ConvTranspose2d: torch_layers.transposed_convolution,
        nn.Unflatten: torch_layers.unflatten,
    }
    | dict.fromkeys(PASSED_ON, nothing)
    | dict.fromkeys((nn.Softmax, nn.LogSoftmax), probabilities)
    | dict(BATCH_NORMS)
    | dict(FUNCTIONS)
    | {OwnNeuron: own_neuron}
)
