"""Where the events of a convolution send their weights, as training's kernels add them up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.layouts import Layout, aligned, padded
from spikeserve.models.engines.event.lines import Along
from spikeserve.models.engines.event.vectors import HALF, LANES
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import ONE_ROW, Axis, Conv1d, Conv2d


class Senders(NamedTuple):
    """A convolution for the kernels.

    An event at a place adds blocks of weights, side by side, to outputs as its row of `sender` says: the place in a row
    of outputs and that among the weights where the first block begins; the lines of each block, how many blocks there
    are, and the vectors of a line. The next line lies `output_step` and `weight_step` further, the next block
    `column_step` and `kernel_step`. The vectors are half ones if `halves`: where channels do not fill whole ones,
    vectors of neighbouring positions would overlap, and each wait for the one before.
    """

    weight: FloatArray
    sender: NDArray[np.int32]
    output_step: int
    weight_step: int
    column_step: int
    kernel_step: int
    halves: bool

    @classmethod
    def of(cls, node: Conv1d | Conv2d, weight: FloatArray, arriving: Layout, leaving: Layout) -> Senders:
        """Make the tables of weights (outputs, inputs of a group, *extent) between two layouts."""
        axes = (ONE_ROW, *node.spread(arriving.shape))[-2:]  # a length is one row
        down, across = map(Along.of, axes)
        rows, columns = ([tap for phase in along.phases for tap in phase] for along in (down, across))
        outputs, inputs = len(weight) // node.groups, weight.shape[1]
        block, width, of_channel = padded(outputs, HALF), len(columns), len(rows) * len(columns) * padded(outputs, HALF)
        weight = weight.reshape(*weight.shape[:2], len(rows), width)
        # Input channel c: its group's kernels, a block of output channels for each tap, taps in the axes' order.
        arranged = aligned((arriving.channels, len(rows), width, block))
        for c in range(node.in_channels):
            kernels = weight[c // inputs * outputs :][:outputs, c % inputs]
            arranged[c, ..., :outputs] = kernels[:, rows][:, :, columns].transpose(1, 2, 0)
        unit = LANES if block % LANES == 0 else HALF
        output_step, column_step = down.spacing * axes[1].outputs * leaving.channels, across.spacing * leaving.channels
        y, x = np.divmod(arriving.places // arriving.channels, axes[1].inputs)
        channel = arriving.places % arriving.channels
        (row, row_tap, lines), (column, tap, blocks) = _firsts(down, axes[0], y), _firsts(across, axes[1], x)
        vectors = np.full_like(blocks, block // unit)
        if block == leaving.channels and across.spacing == 1:  # neighbours are neighbours among the weights too
            blocks, vectors = np.minimum(blocks, 1), vectors * blocks
        place = (row * axes[1].outputs + column) * leaving.channels + channel // inputs * outputs
        start = channel * of_channel + (row_tap * width + tap) * block
        # A block of a group may reach into the channels behind it with its padding, zeros, by less than one vector.
        last = place + (lines - 1) * output_step + (blocks - 1) * column_step + vectors * unit
        if last.max() > leaving.size + LANES or arranged.size > np.iinfo(np.int32).max:
            raise AssertionError("a convolution's table reaches out of its arrays")  # a fault of this file
        sender = np.column_stack([place, start, lines, blocks, vectors]).astype(np.int32)
        return cls(arranged.ravel(), sender, output_step, width * block, column_step, block, unit == HALF)


def _firsts(along: Along, axis: Axis, at: NDArray[np.int32]) -> tuple[NDArray[np.int64], ...]:
    """Return the first output that inputs reach, the place of its tap among all phases' and how many they reach."""
    lengths = np.array([*map(len, along.phases), 0])
    phase, first = along.phase[at], along.first[at]
    skipped = np.maximum(0, -(first // along.spacing))
    end = np.minimum(lengths[phase], (axis.outputs - 1 - first) // along.spacing + 1)
    count = np.maximum(0, end - skipped)
    reaches = count > 0
    begin = np.append(0, np.cumsum(lengths[:-1]))[phase] + skipped
    return np.where(reaches, first + skipped * along.spacing, 0), np.where(reaches, begin, 0), count
