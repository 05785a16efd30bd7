"""Convolutions and pools whose input is spikes."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv1d_input, conv2d_input

from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.spec.nodes import Conv1d, Conv2d
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.fit.operators import convolution_kernels as kernels
from spikeserve.training.fit.operators.memory import flat
from spikeserve.training.fit.operators.senders import Senders
from spikeserve.training.fit.operators.spikes import NO_FLOATS, Lists, Spikes, carrier
from spikeserve.training.fit.operators.threads import in_parts, parts_of

Node = Conv1d | Conv2d


class Tables(NamedTuple):
    """What is the same for every batch: the senders without weights, and where each weight is in PyTorch's order.

    `order` (weights of the senders,) has places of the weight, flat, and one behind its end for padding.
    """

    senders: Senders
    order: Tensor
    leaving: Layout


@cache
def tables_of(node: Node, shape: Shape) -> Tables:
    """Return the tables of a convolution over inputs of a shape (channels, *size)."""
    shape_of_weight = node.tensor_shapes(shape)["weight"]
    count = math.prod(shape_of_weight)
    numbers = np.arange(1, count + 1, dtype=np.float32).reshape(shape_of_weight)  # exact: below 2**24
    arriving, leaving = Layout.of(shape), Layout.of(node.output_shape(shape))
    senders = Senders.of(node, numbers, arriving, leaving)
    order = torch.from_numpy(senders.weight.astype(np.int64) - 1)
    return Tables(senders, torch.where(order < 0, count, order), leaving)


def node_of(connection: nn.Module, shape: Shape) -> Node | None:
    """Return a convolution as a node of a spec, or None if the kernels cannot run it."""
    kinds: dict[type[nn.Module], type[Conv1d] | type[Conv2d]] = {nn.Conv1d: Conv1d, nn.Conv2d: Conv2d}
    kind = kinds.get(type(connection))
    if kind is None or connection.padding_mode != "zeros" or isinstance(connection.padding, str):
        return None
    if len(shape) != len(cast(Any, connection).kernel_size) + 1 or cast(Tensor, connection.weight).numel() >= 2**24:
        return None
    fields: dict[str, Any] = {
        name: getattr(connection, name) if kind is Conv2d else getattr(connection, name)[0]
        for name in ("kernel_size", "stride", "padding", "dilation")
    }
    channels = {name: getattr(connection, name) for name in ("in_channels", "out_channels", "groups")}
    return kind(name="convolution", bias=False, **channels, **fields)


class Convolve(torch.autograd.Function):
    """A convolution of spikes: (node, spikes, carrier, weight, bias) -> currents (steps, batch, channels, *size)."""

    @staticmethod
    def forward(ctx: Any, node: Node, spikes: Spikes, _: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Run the convolution."""
        spikes.lists.uses += 1
        ctx.node, ctx.spikes, ctx.biased = node, spikes, bias is not None
        ctx.save_for_backward(weight)
        tables = tables_of(node, spikes.shape[2:])
        weights = torch.cat([weight.detach().reshape(-1), torch.zeros(1)])[tables.order]
        currents = torch.empty(*spikes.shape[:2], *tables.leaving.shape)
        in_parts(
            kernels.run_convolution, spikes.lists.rows, *spikes.lists.by_row,
            tables.senders._replace(weight=flat(weights)), *_row(tables, bias), flat(currents),
        )  # fmt: skip
        return currents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of carrier, weight and bias."""
        (weight,) = ctx.saved_tensors
        node, spikes = ctx.node, ctx.spikes
        tables = tables_of(node, spikes.shape[2:])
        errors = gradient.contiguous()
        to_carrier = to_weight = to_bias = None
        if ctx.needs_input_grad[2]:
            to_carrier = input_gradient(node, spikes.shape, weight, errors.flatten(0, 1))
        if ctx.needs_input_grad[3]:
            count = tables.order.numel()
            gradients = torch.empty(parts_of(spikes.lists.rows), count)
            in_parts(
                kernels.convolution_gradient, spikes.lists.rows, flat(errors), *spikes.lists.by_row, tables.senders,
                *_row(tables, None), flat(gradients),
            )  # fmt: skip
            to_weight = torch.zeros(weight.numel() + 1).index_put_((tables.order,), gradients.sum(0))[:-1]
            to_weight = to_weight.view(weight.shape)
        if ctx.biased and ctx.needs_input_grad[4]:
            to_bias = errors.flatten(0, 1).flatten(2).sum((0, 2))
        return None, None, to_carrier, to_weight, to_bias


def _row(tables: Tables, bias: Tensor | None) -> tuple[Any, int, int, int]:
    """Return the start of each row of outputs, with channels last; their stride, their number and the positions."""
    channels, *size = tables.leaving.shape
    values = np.zeros((channels, math.prod(size)), np.float32)
    if bias is not None:
        values += bias.detach().numpy()[:, np.newaxis]
    return tables.leaving.to_rows(values.ravel()), tables.leaving.channels, channels, math.prod(size)


def input_gradient(node: Node, shape: tuple[int, ...], weight: Tensor, errors: Tensor) -> Tensor:
    """Return the gradient (steps, batch, channels, *size) of a convolution's input from its errors (rows, *outputs)."""
    of_input = conv1d_input if isinstance(node, Conv1d) else conv2d_input
    stride, padding, dilation = (
        tuple(getattr(window, name) for window in node.windows) for name in ("stride", "before", "dilation")
    )
    rows = shape[0] * shape[1], *shape[2:]
    gradient: Tensor = of_input(rows, weight, errors, stride, padding, dilation, node.groups)  # type: ignore[no-untyped-call]
    return gradient.view(shape)


@cache
def _windows(shape: Shape, kernel: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int32], Shape]:
    """Return the window of each place, or -1, the first place of each window, and the shape of the windows."""
    channels, height, width = shape
    rows, columns = height // kernel[0], width // kernel[1]
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    c, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    within = (y < rows * kernel[0]) & (x < columns * kernel[1])
    windows = np.where(within, (c * rows + y // kernel[0]) * columns + x // kernel[1], -1).astype(np.int32)
    starts = places[:, : rows * kernel[0] : kernel[0], : columns * kernel[1] : kernel[1]]
    return windows.ravel(), np.ascontiguousarray(starts).ravel(), (channels, rows, columns)


class _Pool(torch.autograd.Function):
    """A pool of spikes into `lists`: their sum divided by `divisor`, or where that is None their maximum."""

    @staticmethod
    def forward(
        ctx: Any, spikes: Spikes, _: Tensor, lists: Lists, kernel: tuple[int, int], divisor: float | None
    ) -> Tensor:
        spikes.lists.uses += 1
        ctx.spikes, ctx.kernel, ctx.divisor = spikes, kernel, divisor
        windows, _starts, shape = _windows(spikes.shape[2:], kernel)
        index, _value, offset = spikes.lists.by_row
        lists.raster = None if divisor is None else torch.empty(lists.rows, lists.units)
        in_parts(
            kernels.pool_spikes, lists.rows, index, offset, windows, lists.units, lists.vectors, float(divisor or 1),
            lists.bits, NO_FLOATS if lists.raster is None else flat(lists.raster),
        )  # fmt: skip
        return carrier((*spikes.shape[:2], *shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        spikes = ctx.spikes
        windows, starts, _ = _windows(spikes.shape[2:], ctx.kernel)
        to_spikes, pooled = torch.empty(*spikes.shape), flat(gradient.contiguous())
        if ctx.divisor is None:
            index, _value, offset = spikes.lists.by_row
            in_parts(
                kernels.pool_gradient, spikes.lists.rows, index, offset, windows, starts, pooled, flat(to_spikes)
            )  # fmt: skip
        else:
            in_parts(
                kernels.spread_gradient, spikes.lists.rows, windows, starts.size, ctx.divisor, pooled, flat(to_spikes)
            )  # fmt: skip
        return None, to_spikes, None, None, None


def pool(spikes: Spikes, kernel: tuple[int, int], divisor: float | None) -> Spikes:
    """Return the sum over each window of (time_steps, batch, channels, height, width), divided by `divisor`.

    Without a divisor it is the maximum, whose gradient goes, as in PyTorch, to a window's first spike, or to its first
    place. Windows touch and do not overlap.
    """
    _, starts, shape = _windows(spikes.shape[2:], kernel)
    lists = Lists.empty(spikes.lists.rows, starts.size)
    edge: Tensor = _Pool.apply(spikes, spikes.carrier, lists, kernel, divisor)  # type: ignore[no-untyped-call]
    return Spikes((*spikes.shape[:2], *shape), lists, edge)
