"""The fan-out: how many weights each input of a connection meets, the cost of one spike there; and their sum."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from models.spec import Coding, Spec
from models.spec.nodes import Conv, ConvTranspose, Delay, Linear, Neuron, Node, Spiking, Spread, Weighted, Window
from models.spec.parameters import Shape


def fan_out(node: Weighted, shape: Shape) -> NDArray[np.int64]:
    """Return the number of weights that each element of an input of `shape` meets, an array of that shape.

    An input at the border of a convolution is covered by fewer windows, and so meets fewer weights.
    """
    if isinstance(node, Linear):
        return np.full(shape, node.out_features, np.int64)
    return _conv_fan_out(node, shape)


def _conv_fan_out(node: Conv | ConvTranspose, shape: Shape) -> NDArray[np.int64]:
    # A window is the product of one interval along each axis, so the counts of the axes multiply.
    windows: tuple[Window | Spread, ...] = node.windows
    read = [_windows_over(size, window) for size, window in zip(shape[1:], windows, strict=True)]
    per_position = functools.reduce(np.multiply.outer, read) * (node.out_channels // node.groups)
    return np.broadcast_to(per_position, shape).copy()


def _windows_over(size: int, window: Window | Spread) -> NDArray[np.int64]:
    """Count, for each position of one axis, the (output, tap) pairs that read it."""
    if isinstance(window, Spread):
        outputs = window.outputs(size)
        reached = np.add.outer(np.arange(size) * window.stride, np.arange(window.extent) * window.dilation)
        reached -= window.padding
        return ((reached >= 0) & (reached < outputs)).sum(axis=1, dtype=np.int64)
    starts, taps = np.arange(window.outputs(size)) * window.stride, np.arange(window.extent) * window.dilation
    read = np.add.outer(starts, taps).ravel() - window.before
    return np.bincount(read[(read >= 0) & (read < size)], minlength=size).astype(np.int64)


def recurrent_fan_out(shape: Shape) -> int:
    """Return the number of recurrent weights that one spike of a layer of `shape` meets."""
    return math.prod(shape)


def dense_operations(spec: Spec) -> tuple[int, int]:
    """Return a sample's synaptic operations if no input of any connection were zero, as (once, per step).

    It is what a network does that multiplies by every weight, recurrent weights included. Connections whose input is
    the same at every step, which are those before the first neurons of `direct` coding, count once.
    """
    totals = {True: 0, False: 0}

    def apply(node: Node, constant: bool) -> bool:
        if isinstance(node, Weighted):
            totals[constant] += int(fan_out(node, spec.input_shapes[node.name]).sum())
        if isinstance(node, Spiking) and node.recurrent:
            shape = spec.output_shapes[node.name]
            totals[False] += math.prod(shape) * recurrent_fan_out(shape)
        return constant and not (isinstance(node, Neuron | Delay) or node.by_step)

    for _ in spec.propagate(spec.coding is Coding.DIRECT, apply, lambda _, inputs: all(inputs)):
        pass
    return totals[True], totals[False]
