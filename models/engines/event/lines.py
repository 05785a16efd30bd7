"""The tables of convolutions that run line by line with the neurons behind them; `lines_code` makes the functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeserve.models.engines.event.connections import as_integers
from spikeserve.models.engines.event.layouts import Layout, aligned
from spikeserve.models.engines.event.lines_code import FLOATS, INTEGERS, SHORTS, Lines
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec import nodes
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.sums import Sum, Summation, lowest_bit

MOST_AT_ONCE = 4.0  # spikes of one place that are added one after the other; products are quicker for more
LARGEST = 2.0**15 - 1  # of a sum in 16 bits


def lines_between(
    node: nodes.Node, neuron: nodes.Neuron, network: Network, rule: Sum, before: Layout, after: Layout, pool: int
) -> tuple[Lines, dict[str, Any]] | None:
    """Make the lines of a convolution and the neurons behind it with their tables, or None where they have no such way.

    `pool` is the side of the squares of a pool behind them, see `pooled_by`.
    """
    if not isinstance(node, nodes.Conv) or node.groups > 1 or rule.by is Summation.FLOAT64:
        return None
    down, across = (nodes.ONE_ROW, *node.spread(before.shape))[-2:]
    if not isinstance(neuron, nodes.Spiking) or neuron.several or neuron.recurrent:
        return None
    if any(abs(axis.hop) != 1 or axis.every > axis.taps for axis in (down, across)):
        return None
    if after.image[1] * after.channels % LANES:
        return None
    weight, bias = network.tensors[f"{node.name}.weight"], network.tensor(node, "bias")
    base = np.zeros(len(weight), np.float32) if bias is None else bias
    grid = rule.grid or min(lowest_bit(weight), lowest_bit(base))
    most = min(rule.most, MOST_AT_ONCE) if rule.arriving.step >= 1.0 else 1.0
    kind = FLOATS if rule.by is Summation.FLOAT32 else INTEGERS
    if np.isfinite(grid) and _largest(weight, base, most) <= LARGEST * grid:
        kind = SHORTS
    lines = Lines(
        channels=before.channels,
        depth=after.channels,
        extent=(down.taps, across.taps),
        stride=(down.every, across.every),
        before=(down.shift, across.shift),
        kind=kind,
        pool=pool if after.channels % LANES == 0 else 1,
    )
    tables = {
        "line_sizes": np.array([*before.image, *after.image]),
        "line_weight": arranged(lines, weight, grid),
        "line_base": _in_kind(np.resize(_padded(base, lines.depth), math.lcm(lines.depth, LANES)), kind, grid),
        "line_grid": grid if kind != FLOATS else 1.0,
        "line_most": most,
    }
    return lines, tables


def pooled_by(node: nodes.Node, shape: Sequence[int]) -> int:
    """Tell the side of the squares, one beside the other, of which a node takes the largest; 1 if it does no such."""
    if not isinstance(node, nodes.MaxPool2d):
        return 1
    down, across = node.spread(tuple(shape))
    sides = {down.taps, across.taps, down.every, across.every}
    return down.taps if len(sides) == 1 and down.shift == across.shift == 0 and down.hop**2 == across.hop**2 == 1 else 1


def arranged(lines: Lines, weight: FloatArray, grid: float) -> FloatArray:
    """Arrange the weights (outputs, inputs, *extent) as `lines_code` reads them, in the bits of an array.

    Their axes are the column of the input modulo the stride, its channel, the tap down, and the outputs in a line that
    it reaches: columns, then channels. A weight is 0 where the input does not reach the output.
    """
    outputs, inputs = weight.shape[:2]
    kernels, stride = weight.reshape(outputs, inputs, *lines.extent), lines.stride[1]
    rows = np.zeros((stride, lines.channels, lines.extent[0], lines.across, lines.depth), np.float32)
    for tap in range(lines.extent[1]):
        place = lines.across - 1 - tap // stride
        rows[tap % stride, :inputs, :, place, :outputs] = kernels[..., tap].transpose(1, 2, 0)
    return _in_kind(rows.reshape(-1), lines.kind, grid)


def _largest(weight: FloatArray, base: FloatArray, most: float) -> float:
    """Return the largest that any output's positive terms, or its negative ones, sum to."""
    flat = weight.reshape(len(weight), -1).astype(np.float64) * most
    terms = np.concatenate([flat, base[:, np.newaxis]], axis=1)
    return float(max(np.maximum(terms, 0).sum(axis=1).max(), np.maximum(-terms, 0).sum(axis=1).max()))


def _padded(base: FloatArray, depth: int) -> FloatArray:
    return np.concatenate([base, np.zeros(depth - len(base), np.float32)])


def _in_kind(values: FloatArray, kind: str, grid: float) -> FloatArray:
    """Write values as sums of a kind are held, in the bits of an array that begins with a line of the cache."""
    if kind == SHORTS:
        shorts = np.rint(values / grid).astype(np.int16)
        array = aligned((-(-shorts.size // 2),))
        array.view(np.int16)[: shorts.size] = shorts
        return array
    array = aligned(values.shape, values)
    return as_integers(array, grid) if kind == INTEGERS else array
