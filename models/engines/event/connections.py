"""Connections and pools as the tables that the kernels walk; here, once, every place is proved to be within bounds."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.event.layouts import Layout, aligned, padded
from models.engines.event.vectors import LANES
from models.network import FloatArray, Network
from models.nodes import Conv2d, Linear, Pool2d, Weighted

Ints = NDArray[np.int64]

NO_FEED, GATHER, SCATTER = 0, 1, 2

_NO_INTS: Ints = np.empty(0, np.int64)
_NO_RUNS: Ints = np.empty((0, 3), np.int64)


class Feed(NamedTuple):
    """A weighted connection for the kernels; see `kernels.gather` and `kernels.scatter` for the fields."""

    kind: int
    weight: FloatArray
    position: Ints
    weights_at: Ints
    group_at: Ints
    first_run: Ints
    runs: Ints


NOTHING = Feed(NO_FEED, np.empty(0, np.float32), _NO_INTS, _NO_INTS, _NO_INTS, _NO_INTS, _NO_RUNS)


@singledispatch
def feed_of(node: Weighted, _: Network, __: Layout, ___: Layout) -> Feed:
    """Return a connection's tables between two layouts."""
    raise TypeError(f"no kernel for a {type(node).__name__}")


@feed_of.register
def _(node: Linear, network: Network, _: Layout, leaving: Layout) -> Feed:
    weight = leaving.laid(network.tensors[f"{node.name}.weight"].T)
    return NOTHING._replace(kind=GATHER, weight=weight.ravel())


@feed_of.register
def _(node: Conv2d, network: Network, arriving: Layout, leaving: Layout) -> Feed:
    weight = network.tensors[f"{node.name}.weight"]
    outputs, inputs, height, width = weight.shape  # of one group: its inputs, and all outputs
    per_group = outputs // node.groups
    block = padded(per_group)
    order = _taps_in_order_of_output(width, node.stride[1])
    slots = np.argsort(order)
    # Input channel c: its group's kernels, a block of output channels for each tap, taps in `order` along a row.
    arranged = aligned((arriving.channels, height, width, block))
    for c in range(node.in_channels):
        first = c // inputs * per_group
        kernels = weight[first : first + per_group, c % inputs]
        arranged[c, ..., :per_group] = kernels[:, :, order].transpose(1, 2, 0)
    first_run, runs = _runs(node, arriving, leaving, slots.tolist(), block)
    places: Ints = np.arange(arriving.size)
    position, channel = places // arriving.channels, places % arriving.channels
    of_channel = height * width * block
    group = np.minimum(channel, node.in_channels - 1) // inputs
    # A block of a group may reach into the channels behind it with its padding, zeros, by less than one vector.
    _require(runs[:, 0] + runs[:, 2] * LANES <= of_channel)
    _require(runs[:, 1] + group.max() * per_group + runs[:, 2] * LANES <= leaving.size + LANES)
    return Feed(SCATTER, arranged.ravel(), position, channel * of_channel, group * per_group, first_run, runs)


def _taps_in_order_of_output(width: int, stride: int) -> list[int]:
    """Return the taps of a kernel's row such that those that one input meets are neighbours, as their outputs are."""
    return [tap for phase in range(stride) for tap in reversed(range(phase, width, stride))]


def _runs(node: Conv2d, arriving: Layout, leaving: Layout, slots: list[int], block: int) -> tuple[Ints, Ints]:
    """Return, for each input position, the runs of neighbouring outputs that it feeds."""
    _, height, width = arriving.shape
    _, rows, columns = leaving.shape
    kernel_height, kernel_width = node.kernel_size
    vectors = block // LANES
    joined = block == leaving.channels  # neighbours of the output are neighbours of the weights only then
    first_run: list[int] = [0]
    runs: list[list[int]] = []
    down = [
        _outputs_of(y, kernel_height, node.stride[0], node.padding[0], node.dilation[0], rows) for y in range(height)
    ]
    across = [
        _outputs_of(x, kernel_width, node.stride[1], node.padding[1], node.dilation[1], columns) for x in range(width)
    ]
    for y in range(height):
        for x in range(width):
            for row, tap_down in down[y]:
                last_slot = last_column = -2
                for column, tap in across[x]:
                    slot = slots[tap]
                    if joined and slot == last_slot + 1 and column == last_column + 1:
                        runs[-1][2] += vectors
                    else:
                        place = (row * columns + column) * leaving.channels
                        runs.append([(tap_down * kernel_width + slot) * block, place, vectors])
                    last_slot, last_column = slot, column
            first_run.append(len(runs))
    return np.array(first_run, np.int64), np.array(runs, np.int64).reshape(-1, 3)


def _outputs_of(
    position: int, extent: int, stride: int, padding: int, dilation: int, outputs: int
) -> list[tuple[int, int]]:
    """Return the (output, tap) pairs along one axis that read an input position, ascending."""
    reached = ((position + padding - tap * dilation, tap) for tap in range(extent))
    return sorted((at // stride, tap) for at, tap in reached if at % stride == 0 and 0 <= at // stride < outputs)


class Windows(NamedTuple):
    """A pool both ways.

    `outputs` (size, overlaps) holds the places that each place counts for, -1 behind the last; `inputs` from
    first_input[q] to first_input[q + 1] are the positions under window q, of `channels` places each.
    """

    overlaps: int
    outputs: NDArray[np.int32]
    channels: int
    first_input: Ints
    inputs: Ints
    area: float


def windows_of(node: Pool2d, arriving: Layout, leaving: Layout) -> Windows:
    """Return the windows of a pool between two layouts."""
    _, height, width = arriving.shape
    _, rows, columns = leaving.shape
    (kernel_height, kernel_width), (hop_y, hop_x), (pad_y, pad_x) = node.kernel_size, node.hop, node.padding
    outputs: list[list[int]] = [[] for _ in range(height * width)]
    inputs: list[list[int]] = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * hop_y - pad_y, column * hop_x - pad_x
            window = [
                y * width + x
                for y in range(max(0, top), min(height, top + kernel_height))
                for x in range(max(0, left), min(width, left + kernel_width))
            ]
            for position in window:
                outputs[position].append(len(inputs))
            inputs.append(window)
    overlaps = max(map(len, outputs))
    table = np.full((height * width, arriving.channels, overlaps), -1, np.int32)
    for position, windows in enumerate(outputs):
        first_places = np.array(windows, np.int32) * leaving.channels
        table[position, :, : len(windows)] = np.arange(arriving.channels)[:, np.newaxis] + first_places
    first_input = np.cumsum([0, *map(len, inputs)], dtype=np.int64)
    flat = np.array([position for window in inputs for position in window], np.int64)
    area = float(kernel_height * kernel_width)
    return Windows(overlaps, table.reshape(arriving.size, overlaps), arriving.channels, first_input, flat, area)


def _require(within: NDArray[np.bool_]) -> None:
    if not within.all():
        raise AssertionError("a convolution's table reaches out of its arrays")  # a fault of this file, never of a spec
