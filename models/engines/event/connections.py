"""The tables of connections and pools that the kernels read; every place in them is checked here, once, at load."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.layouts import Layout, aligned, padded
from spikeserve.models.engines.event.table import Feed, Windows
from spikeserve.models.engines.event.vectors import HALF, LANES
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import ONE_ROW, AvgPool, Axis, Conv, ConvTranspose, Linear, Pool, Weighted
from spikeserve.models.spec.sparse import FEW, MOST_PLACES, Sparse
from spikeserve.models.spec.sums import Sum, Summation

NO_FEED, GATHER, SCATTER, PASS, SPARSE = 0, 1, 2, 3, 4
AT_ONCE = 2**18  # weights that are converted at once, in float64
FLOATS, INTEGERS, DOUBLES, NARROW = 0, 1, 2, 3  # how sums are added up, by `models.spec.sums` and `narrow`
SUMMED = {Summation.FLOAT32: FLOATS, Summation.INTEGER: INTEGERS, Summation.FLOAT64: DOUBLES}
PANEL = 4 * LANES  # neighbouring outputs whose weights are stored as one panel

# The share of a layer's inputs that must spike for reading every weight to beat picking some; measured on one thread,
# with 784 inputs of 1000 neurons over 25 steps.
BUSY = 0.375


NOTHING = Feed(
    kind=NO_FEED,
    weight=np.empty(0, np.float32),
    sender=np.empty((0, 6), np.int32),
    first_weight=np.zeros(1, np.int32),
    receivers=np.empty(0, np.int32),
    channels=0,
    fan_out=0.0,
    output_step=0,
    weight_step=0,
    column_step=0,
    kernel_step=0,
    channel_step=0,
    halves=0,
    summed=FLOATS,
    grid=1.0,
    most=1.0,
    fine=0.0,
    fan_in=0,
    adder=0,
)


def as_integers(values: FloatArray, grid: float) -> FloatArray:
    """Write multiples of `grid` as the integers that they are multiples by, in the array's bits, and return it."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, AT_ONCE):
        piece = flat[start : start + AT_ONCE]
        piece.view(np.int32)[...] = np.rint(piece.astype(np.float64) / grid).astype(np.int32)
    return values


def summed_by(rule: Sum, feed: Feed) -> Feed:
    """Return a connection's tables, just made, for the sums of `rule`."""
    if rule.by is Summation.INTEGER:
        weight = as_integers(feed.weight, rule.grid)
        return feed._replace(weight=weight, summed=INTEGERS, grid=rule.grid, most=rule.most)
    return feed._replace(summed=SUMMED[rule.by], fine=1 / rule.coarse if rule.coarse else 0.0)


@singledispatch
def feed_of(node: Weighted, _: Network, __: Layout, ___: Layout) -> Feed:
    """Return a connection's tables between two layouts."""
    raise TypeError(f"no kernel for a {type(node).__name__}")


@feed_of.register
def _(node: Linear, network: Network, _: Layout, leaving: Layout) -> Feed:
    weight = leaving.to_rows(network.tensors[f"{node.name}.weight"].T)
    return NOTHING._replace(kind=GATHER, weight=panels(weight), fan_in=len(weight), fan_out=float(leaving.size))


def few_weights(weight: FloatArray | Sparse, share: float) -> Sparse | None:
    """Return weights (outputs, inputs) as sparse ones if no larger share of them is not 0."""
    places = math.prod(weight.shape)
    count = weight.size if isinstance(weight, Sparse) else np.count_nonzero(weight)
    if count > share * places or places > MOST_PLACES:
        return None
    return weight if isinstance(weight, Sparse) else Sparse.of(weight)


def sparse_feed(weight: Sparse, leaving: Layout) -> Feed:
    """Return the tables of a Linear of which few weights are stored: a row of them for each input."""
    order = np.argsort(weight.inputs, kind="stable")
    stored = aligned((len(order),), weight.values[order])
    return NOTHING._replace(
        kind=SPARSE,
        weight=stored,
        receivers=weight.outputs[order].astype(np.int32),
        first_weight=np.cumsum([0, *weight.fan_out()], dtype=np.int32),
        channels=leaving.size,
        fan_out=len(order) / weight.shape[1] / FEW,  # as many weights of a row as take as long
    )


def panels(weight: FloatArray) -> FloatArray:
    """Return weights (units, size) as one array of panels: a tile of a product then reads neighbours only."""
    units, size = weight.shape
    flat = aligned((weight.size,))
    for j in range(0, size, PANEL):
        panel = weight[:, j : j + PANEL]
        flat[units * j : units * j + panel.size] = panel.ravel()
    return flat


@feed_of.register
def _(node: Conv | ConvTranspose, network: Network, arriving: Layout, leaving: Layout) -> Feed:
    weight = network.tensors[f"{node.name}.weight"]
    outputs, inputs = weight.shape[:2]  # of one group: its inputs, and all outputs
    down, across = map(_Along.of, (ONE_ROW, *node.spread(arriving.shape))[-2:])  # a length is one row
    height, width = len(down.order), len(across.order)
    per_group = outputs // node.groups
    block = padded(per_group, HALF)
    weight = weight.reshape(outputs, inputs, height, width)
    # Input channel c: its group's kernels, a block of output channels for each tap, taps in the axes' order.
    arranged = aligned((arriving.channels, height, width, block))
    for c in range(node.in_channels):
        first = c // inputs * per_group
        kernels = weight[first : first + per_group, c % inputs]
        arranged[c, ..., :per_group] = kernels[:, down.order][:, :, across.order].transpose(1, 2, 0)
    unit = LANES if block % LANES == 0 else HALF
    joined = block == leaving.channels and across.spacing == 1  # neighbours are neighbours among the weights only then
    weight_step, of_channel = width * block, height * width * block
    output_step, column_step = down.spacing * across.outputs * leaving.channels, across.spacing * leaving.channels
    position, channel = np.divmod(np.arange(arriving.size), arriving.channels)
    # Padding at the end of a row lies behind the last position, and never sends.
    y, x = np.divmod(np.minimum(position, arriving.places.max() // arriving.channels), len(across.reached))
    (row, row_tap, lines), (column, tap, blocks) = (along.firsts()[at].T for along, at in ((down, y), (across, x)))
    vectors = np.full_like(blocks, block // unit)
    if joined:
        blocks, vectors = np.minimum(blocks, 1), vectors * blocks
    group = np.minimum(channel, node.in_channels - 1) // inputs * per_group
    place = (row * across.outputs + column) * leaving.channels + group
    start = (row_tap * width + tap) * block
    # A block of a group may reach into the channels behind it with its padding, zeros, by less than one vector.
    last = place + (lines - 1) * output_step + (blocks - 1) * column_step + vectors * unit
    within = start + (lines - 1) * weight_step + (blocks - 1) * block + vectors * unit <= of_channel
    if last.max() > leaving.size + LANES or not within.all() or arranged.size > np.iinfo(np.int32).max:
        raise AssertionError("a convolution's table reaches out of its arrays")  # a fault of this file, never of a spec
    sender = np.column_stack(
        [position * arriving.channels, place, channel * of_channel + start, lines, blocks, vectors]
    )
    return NOTHING._replace(
        kind=SCATTER,
        weight=arranged.ravel(),
        sender=sender.astype(np.int32),
        channels=arriving.channels,
        fan_out=float((lines * blocks * vectors).mean() * unit),
        output_step=output_step,
        weight_step=weight_step,
        column_step=column_step,
        kernel_step=block,
        channel_step=of_channel if node.groups == 1 and unit == LANES and weight_step >= PANEL else 0,
        halves=int(unit == HALF),
    )


class _Along(NamedTuple):
    """One axis of a convolution or pool.

    `order` has its taps such that those that one input meets are neighbours; `reached` has, for each input position,
    the (output, place of the tap in that order) pairs that it feeds, ascending, each of which lies one place and
    `spacing` outputs further than the one before.
    """

    outputs: int
    order: list[int]
    spacing: int
    reached: list[list[tuple[int, int]]]

    @classmethod
    def of(cls, axis: Axis) -> _Along:
        shared = math.gcd(axis.every, axis.hop)
        phases, ahead = axis.every // shared, 1 if axis.hop > 0 else -1  # taps that one input meets are a phase
        order = [tap for phase in range(phases) for tap in range(phase, axis.taps, phases)[::ahead]]
        reached: list[list[tuple[int, int]]] = [[] for _ in range(axis.inputs)]
        for place, tap in enumerate(order):
            for position, output in zip(*(each.tolist() for each in axis.pairs(tap)), strict=True):
                reached[position].append((output, place))
        return cls(axis.outputs, order, abs(axis.hop) // shared, [sorted(pairs) for pairs in reached])

    def firsts(self) -> NDArray[np.int64]:
        """Return the first of each input position's pairs and their number, (positions, 3); zeros if it has none."""
        return np.array([(*(pairs or [(0, 0)])[0], len(pairs)) for pairs in self.reached], np.int64)


def windows_of(node: Pool, arriving: Layout, leaving: Layout) -> Windows:
    """Return the windows of a pool between two layouts."""
    down, across = map(_Along.of, (ONE_ROW, *node.spread(arriving.shape))[-2:])
    outputs = [
        [row * across.outputs + column for row, _ in rows for column, _ in columns]
        for rows in down.reached
        for columns in across.reached
    ]
    inputs: list[list[int]] = [[] for _ in range(down.outputs * across.outputs)]
    for position, windows in enumerate(outputs):
        for window in windows:
            inputs[window].append(position)
    overlaps = max(map(len, outputs))
    flat_table = np.full((arriving.size, overlaps), -1, np.int32)
    table = flat_table[: len(outputs) * arriving.channels].reshape(len(outputs), arriving.channels, overlaps)
    for position, windows in enumerate(outputs):
        first_places = np.array(windows, np.int32) * leaving.channels
        table[position, :, : len(windows)] = np.arange(arriving.channels)[:, np.newaxis] + first_places
    first_input = np.cumsum([0, *map(len, inputs)], dtype=np.int32)
    flat = np.array([position for window in inputs for position in window], np.int32)
    divisors = np.ones(1, np.float32)
    if isinstance(node, AvgPool):
        divisors *= node.area
        if node.uneven:
            divisors = np.ones(leaving.size, np.float32)
            divisors[leaving.places] = np.broadcast_to(node.divisors(arriving.shape), leaving.shape).ravel()
    return Windows(overlaps, flat_table, arriving.channels, first_input, flat, divisors)
