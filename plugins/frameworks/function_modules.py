"""Modules for functions that no module of torch computes, for batch norms of steps, and what each becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeserve.models.spec import nodes
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Draft

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.framework import Layer, Rule


class NodeFunction(nn.Module):
    """A function of samples (batch, *shape) that one node computes; most keep their sign."""

    def __init__(
        self, kind: type[nodes.NodeBase], function: Callable[..., Tensor], *, keeps_sign: bool = True, **fields: Any
    ) -> None:
        super().__init__()
        self.kind, self.function, self.keeps_sign, self.fields = kind, function, keeps_sign, fields

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the function of its inputs."""
        return self.function(*inputs)


def reshape(shape: Shape) -> NodeFunction:
    """Return the reshape of samples to `shape`, in row-major order."""
    return NodeFunction(nodes.Reshape, lambda values: values.reshape(len(values), *shape), shape=shape)


def permute(order: Shape) -> NodeFunction:
    """Return the permutation after which axis k of a sample is what axis order[k] was."""
    return NodeFunction(nodes.Permute, lambda values: values.permute(0, *(1 + axis for axis in order)), order=order)


def multiply() -> NodeFunction:
    """Return the element-wise product of two inputs."""
    return NodeFunction(nodes.Multiply, torch.mul)


def concatenate(axis: int) -> NodeFunction:
    """Return the function that puts inputs side by side along an axis of a sample."""
    return NodeFunction(nodes.Concatenate, lambda *inputs: torch.cat(inputs, 1 + axis), axis=axis)


def matmul() -> NodeFunction:
    """Return the matrix product of (batch, *heads, rows, inner) and (batch, *heads, inner, columns)."""
    return NodeFunction(nodes.MatMul, torch.matmul)


def affine(factor: Tensor, offset: Tensor | None = None) -> NodeFunction:
    """Return the product with a factor plus an offset, each of which spreads over a sample."""
    constants = {"scale": factor} | ({} if offset is None else {"offset": offset})

    def function(values: Tensor) -> Tensor:
        return values * factor if offset is None else values * factor + offset

    keeps_sign = all(bool((each >= 0).all()) for each in constants.values())
    return NodeFunction(
        nodes.Scale, function, keeps_sign=keeps_sign, **{key: each.numpy() for key, each in constants.items()}
    )


def sum_pool(kernel: Shape) -> NodeFunction:
    """Return the sums over windows of a sample (channels, *axes), each as long as it steps."""

    def function(values: Tensor) -> Tensor:
        for axis, size in enumerate(kernel, start=2):
            values = torch.unflatten(values, axis, (-1, size)).sum(axis + 1)
        return values

    kind, sizes = (nodes.SumPool1d, kernel[0]) if len(kernel) == 1 else (nodes.SumPool2d, kernel)
    return NodeFunction(kind, function, kernel_size=sizes, stride=sizes)


class Slice(nn.Module):
    """Part of a sample along its first axis."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, values: Tensor) -> Tensor:
        """Return values (batch, axis, *shape) from `start` to before `stop` of the axis."""
        return values[:, self.start : self.stop]


class ConvOverTime(nn.Module):
    """An nn.Conv1d over steps, of which each place of its kernel takes the input of so many `delays` ago."""

    def __init__(self, conv: nn.Conv1d, delays: Sequence[int]) -> None:
        super().__init__()
        self.conv, self.delays = conv, tuple(delays)

    def forward(self, steps: Tensor) -> Tensor:
        """Return the output (time_steps, batch, out) of inputs (time_steps, batch, in) from rest."""
        padded = nn.functional.pad(steps.permute(1, 2, 0), (self.delays[0], 0))
        conv = self.conv
        over = nn.functional.conv1d(padded, conv.weight, conv.bias, dilation=conv.dilation, groups=conv.groups)
        return over[..., : len(steps)].permute(2, 0, 1)


def add_conv_over_time(layer: Layer) -> None:
    """Convert a convolution over time: the inputs of so many steps ago side by side, and a Linear of them."""
    conv = layer.module.conv
    kernel, bias = layer.weights(conv)
    weight = np.zeros((conv.out_channels, conv.in_channels, *kernel.shape[2:]), kernel.dtype)
    rows, inputs = (np.split(np.arange(size), conv.groups) for size in weight.shape[:2])
    for own, seen in zip(rows, inputs, strict=True):  # an output sees none of another group's inputs
        weight[own, seen[0] : seen[-1] + 1] = kernel[own]
    used = (weight != 0).reshape(-1, weight.shape[2]).max(axis=0)
    used[-1] |= not used.any()  # a layer without any weight has an input nevertheless
    delays = tuple(np.array(layer.module.delays)[used][::-1].tolist())
    if delays != (0,):
        layer.builder.add(Draft(f"{layer.name}_taps", nodes.Delay, {"taps": delays}))
    newest_first = weight[:, :, used][:, :, ::-1].transpose(0, 2, 1).reshape(len(weight), -1)
    layer.builder.add(connections.linear(layer.name, newest_first, bias))


def add_node_function(layer: Layer) -> None:
    """Convert a function that is one node."""
    layer.builder.add(Draft(layer.name, layer.module.kind, layer.module.fields))


def add_slice(layer: Layer) -> None:
    """Convert a part of a sample: weights of 1 from what is taken, which move it as it is."""
    shape, module = layer.builder.shape, layer.module
    if shape is None:
        return
    weight = np.eye(shape[0])[module.start : module.stop]
    if len(shape) == 1:
        layer.builder.add(connections.linear(layer.name, weight, None))
        return
    if len(shape) > 2:
        layer.builder.add(Draft(f"{layer.name}_rows", nodes.Reshape, {"shape": (shape[0], math.prod(shape[1:]))}))
    layer.builder.add(connections.convolution(layer.name, 1, weight[:, :, None], None))
    if len(shape) > 2:
        layer.builder.add(Draft(f"{layer.name}_shaped", nodes.Reshape, {"shape": (len(weight), *shape[1:])}))


def add_relu(layer: Layer) -> None:
    """Convert a ReLU: the greater of each value and 0, which is a max pool over the two of them."""
    shape, name, builder = layer.builder.shape, layer.name, layer.builder
    if shape is None:
        return
    row = builder.add(Draft(f"{name}_row", nodes.Reshape, {"shape": (1, 1, math.prod(shape))}))
    zeros = builder.add(Draft(f"{name}_zeros", nodes.Scale, {"scale": np.float64(0.0)}))
    builder.follow([row, zeros])
    builder.add(Draft(f"{name}_both", nodes.Concatenate, {"axis": 1}))
    builder.add(connections.pool(f"{name}_greater", nodes.MaxPool2d, (2, 1), (2, 1), (0, 0)))
    builder.add(Draft(name, nodes.Reshape, {"shape": shape}))


FUNCTIONS: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {nn.ReLU: add_relu, NodeFunction: add_node_function, Slice: add_slice, ConvOverTime: add_conv_over_time}
)
NOT_NEGATIVE = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.MaxPool1d, nn.MaxPool2d, nn.LPPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ConstantPad1d, nn.ConstantPad2d),
    *(nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Unflatten),
    Slice,
)


def keeps_sign(module: nn.Module) -> bool:
    """Return whether a module makes no negative values of values that are not negative."""
    return module.keeps_sign if isinstance(module, NodeFunction) else isinstance(module, NOT_NEGATIVE)


KINDS = (nn.BatchNorm1d, nn.BatchNorm2d)


class BatchNormOfSteps(nn.Module):
    """Batch norms of which each is for one step."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, steps: Tensor) -> Tensor:
        """Return each step of (time_steps, batch, *shape), of at most as many steps as there are, under its own."""
        return torch.stack([norm(step) for norm, step in zip(self.norms, steps, strict=False)])


def extended(norms: nn.Module | None, step: int, norm: nn.Module | None) -> BatchNormOfSteps | None:
    """Return the batch norms of the steps before `step` with that of `step` too, None where they are not such."""
    each = [*(norms.norms if isinstance(norms, BatchNormOfSteps) else [norms]), norm]
    known = [norm for norm in each if isinstance(norm, KINDS) and type(norm) in KINDS]
    return BatchNormOfSteps(known) if len(known) == len(each) == step + 1 else None


def batch_norm(layer: Layer) -> None:
    """StepGraph a batch norm in evaluation into the connection before it, in float64, rounded once to float32.

    Where no connection comes right before it, or others take what that gives, it becomes a Scale.
    """
    module, builder = layer.module, layer.builder
    if _uses_statistics_of_its_batch(layer, module):
        return
    place = next((place for place, node in enumerate(builder.nodes) if [node.name] == builder.sources), -1)
    before: Any = builder.nodes[place] if place >= 0 else None
    scale, shift = _affine(module)
    if not isinstance(before, nodes.Weighted) or not layer.alone:
        _add(layer, scale, shift)
        return
    weight, bias = (builder.tensors.get(f"{before.name}.{parameter}") for parameter in ("weight", "bias"))
    if weight is None or len(weight) != module.num_features:
        layer.refuse(f"num_features is {module.num_features}", f"'{before.name}' before it has another number")
        return
    folded = weight.astype(np.float64) * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    builder.tensors[f"{before.name}.weight"] = folded.astype(np.float32)
    moved = shift if bias is None else shift + bias.astype(np.float64) * scale
    builder.tensors[f"{before.name}.bias"] = moved.astype(np.float32)
    builder.nodes[place] = before.model_copy(update={"bias": True})
    layer.findings.notes.append(
        f"The batch norm `{layer.path}` is folded into `{before.name}`: computed in float64 and rounded once, where "
        "the framework rounds after each layer, so that a membrane within rounding of its threshold may fall otherwise."
    )


def by_step(layer: Layer) -> None:
    """Convert a batch norm for each step: a Scale whose factors and offsets are those of the step.

    SpikingJelly's BatchNormThroughTime (BNTT) holds them in `bn_list`.
    """
    norms = layer.module.norms if isinstance(layer.module, BatchNormOfSteps) else layer.module.bn_list
    if any(_uses_statistics_of_its_batch(layer, norm) for norm in norms):
        return
    scales, shifts = zip(*map(_affine, norms), strict=True)
    _add(layer, np.stack(scales), np.stack(shifts))


def temporal(layer: Layer) -> None:
    """Convert SpikingJelly's TemporalEffectiveBatchNorm: a batch norm times a factor of each step, `scale` (T,).

    TEBN: https://openreview.net/forum?id=fLIgyyQiJqz.
    """
    if _uses_statistics_of_its_batch(layer, layer.module):
        return
    with torch.no_grad():
        of_steps = layer.module.scale.double().numpy()
    scale, shift = _affine(layer.module)
    _add(layer, np.outer(of_steps, scale), np.outer(of_steps, shift))


def _uses_statistics_of_its_batch(layer: Layer, norm: Any) -> bool:
    if norm.running_mean is not None:
        return False
    layer.refuse("track_running_stats is False", "it needs each batch's own statistics")
    return True


def _affine(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor and the offset of each channel, (channels,) each, in float64."""
    with torch.no_grad():
        precise = {name: value.double().numpy() for name, value in norm.state_dict().items()}
    scale = precise.get("weight", 1.0) / np.sqrt(precise["running_var"] + norm.eps)
    return scale, precise.get("bias", 0.0) - precise["running_mean"] * scale


def _add(layer: Layer, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    layer.builder.add(connections.affine(layer.name, scale, shift))
    layer.findings.notes.append(
        f"The batch norm `{layer.path}` is a factor and an offset of each channel: computed in float64 and rounded "
        "once, where the framework may round otherwise."
    )


BATCH_NORMS: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {**dict.fromkeys(KINDS, batch_norm), BatchNormOfSteps: by_step}
)
