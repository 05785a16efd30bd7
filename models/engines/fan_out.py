"""How many weights each input of a connection meets: what one spike there costs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.nodes import Conv2d, Linear, Weighted
from models.parameters import Shape


def fan_out(node: Weighted, shape: Shape) -> NDArray[np.int64]:
    """Return the number of weights that each element of an input of `shape` meets, an array of that shape.

    At the border of a convolution an input lies under fewer windows, and those fewer are counted.
    """
    if isinstance(node, Linear):
        return np.full(shape, node.out_features, np.int64)
    return _conv_fan_out(node, shape)


def _conv_fan_out(node: Conv2d, shape: Shape) -> NDArray[np.int64]:
    # A window of height × width is the product of an interval of rows and one of columns, so the axes count apart.
    rows, columns = (
        _windows_over(size, extent, hop, pad, step)
        for size, extent, hop, pad, step in zip(
            shape[1:], node.kernel_size, node.stride, node.padding, node.dilation, strict=True
        )
    )
    per_position = np.outer(rows, columns) * (node.out_channels // node.groups)
    return np.broadcast_to(per_position, shape).copy()


def _windows_over(size: int, extent: int, hop: int, pad: int, step: int) -> NDArray[np.int64]:
    """Count, for each position of one axis, the (window, tap) pairs that read it."""
    windows = (size + 2 * pad - step * (extent - 1) - 1) // hop + 1
    read = np.add.outer(np.arange(windows) * hop, np.arange(extent) * step).ravel() - pad
    return np.bincount(read[(read >= 0) & (read < size)], minlength=size).astype(np.int64)


def recurrent_fan_out(shape: Shape) -> int:
    """Return the number of weights that one spike of a recurrent layer of `shape` meets in its own layer."""
    return math.prod(shape)
