"""The tables of connections and pools that the kernels read; every place in them is checked here, once, at load."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.layouts import FLOAT_BYTES, Layout, aligned
from spikeserve.models.engines.event.table import Feed, Ints, Windows
from spikeserve.models.engines.event.vectors import BYTE_PANEL, LANES
from spikeserve.models.spec.narrow import MOST_BITS, Narrow, narrow_of
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import ONE_ROW, AvgPool, Axis, Pool
from spikeserve.models.spec.sparse import FEW, MOST_PLACES, Sparse
from spikeserve.models.spec.sums import Multiples, Sum, Summation

NO_FEED, GATHER, LINES, PASS, SPARSE = 0, 1, 2, 3, 4
AT_ONCE = 2**18  # weights that are converted at once, in float64
FLOATS, INTEGERS, DOUBLES, NARROW = 0, 1, 2, 3  # how sums are added up, by `models.spec.sums` and `narrow_weights`
SUMMED = {Summation.FLOAT32: FLOATS, Summation.INTEGER: INTEGERS, Summation.FLOAT64: DOUBLES}
PANEL = 4 * LANES  # neighbouring outputs whose weights are stored as one panel
MOST_COUNTED = 4.0  # the largest input of a sum of bytes
MOST_EXPONENT = 100  # of its weights: float32 holds its terms

# The share of a layer's inputs that must spike for reading every weight to beat picking some; measured on one thread,
# with 784 inputs of 1000 neurons over 25 steps.
BUSY = 0.375


NOTHING = Feed(
    kind=NO_FEED,
    weight=np.empty(0, np.float32),
    first_weight=np.zeros(1, np.int32),
    receivers=np.empty(0, np.int32),
    channels=0,
    fan_out=0.0,
    summed=FLOATS,
    grid=1.0,
    most=1.0,
    fine=0.0,
    fan_in=0,
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


def gather_feed(weight: FloatArray, leaving: Layout) -> Feed:
    """Return the tables of a Linear with weights (outputs, inputs)."""
    rows = leaving.to_rows(weight.T)
    return NOTHING._replace(kind=GATHER, weight=panels(rows), fan_in=len(rows), fan_out=float(leaving.size))


def narrow_weights(rule: Sum, weight: FloatArray) -> Narrow | None:
    """Return weights (outputs, inputs) as narrow ones, if float32 holds what any events add up to without the bias."""
    sums = Multiples(1.0, 2.0 ** (MOST_BITS - 1) * MOST_COUNTED * weight.shape[1])
    few = rule.arriving.step >= 1.0 and rule.arriving.bound <= MOST_COUNTED and sums.fit
    narrow = narrow_of(weight) if few and rule.by is not Summation.FLOAT64 else None
    return None if narrow is None or narrow.exponents.max() > MOST_EXPONENT else narrow


def byte_tables(
    narrow: Narrow, units: int, places: Ints, biases: FloatArray, leaving: Layout
) -> tuple[FloatArray, FloatArray]:
    """Return the panels of narrow weights, and `biases` (rows * size,) with the outputs' powers of two behind them.

    The inputs lie at these `places` (inputs,) of so many `units`, the outputs as `leaving` says.
    """
    weight = np.zeros((units, leaving.size), np.int8)
    weight[np.ix_(places, leaving.places)] = narrow.values.T
    powers = leaving.to_rows(np.ldexp(np.float32(1), narrow.exponents))
    return panels(weight, BYTE_PANEL), np.concatenate([biases, powers])


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


def panels(weight: NDArray[Any], width: int = PANEL) -> FloatArray:
    """Return weights (units, size) as one array of panels: a tile of a product then reads neighbours only.

    Weights that are no floats are in the array's bits.
    """
    units, size = weight.shape
    flat = aligned((weight.nbytes // FLOAT_BYTES + LANES,))  # behind a row of bytes a vector may reach into the next
    for j in range(0, size, width):
        panel = weight[:, j : j + width]
        flat.view(weight.dtype)[units * j : units * j + panel.size] = panel.ravel()
    return flat


def windows_of(node: Pool, arriving: Layout, leaving: Layout) -> Windows:
    """Return the windows of a pool between two layouts."""
    down, across = (ONE_ROW, *node.spread(arriving.shape))[-2:]
    outputs = [
        [row * across.outputs + column for row in rows for column in columns]
        for rows in _reached(down)
        for columns in _reached(across)
    ]
    inputs: list[list[int]] = [[] for _ in range(down.outputs * across.outputs)]
    for position, windows in enumerate(outputs):
        for window in windows:
            inputs[window].append(position)
    overlaps, depth = max(map(len, outputs)), min(arriving.channels, leaving.channels)
    flat_table = np.full((arriving.size, overlaps), -1, np.int32)
    table = flat_table[: len(outputs) * arriving.channels].reshape(len(outputs), arriving.channels, overlaps)
    for position, windows in enumerate(outputs):
        first_places = np.array(windows, np.int32) * leaving.channels
        table[position, :depth, : len(windows)] = np.arange(depth)[:, np.newaxis] + first_places
    first_input = np.cumsum([0, *map(len, inputs)], dtype=np.int32)
    flat = np.array([position for window in inputs for position in window], np.int32)
    divisors = np.ones(1, np.float32)
    if isinstance(node, AvgPool):
        divisors *= node.area
        if node.uneven:
            divisors = np.ones(leaving.size, np.float32)
            divisors[leaving.places] = np.broadcast_to(node.divisors(arriving.shape), leaving.shape).ravel()
    return Windows(overlaps, flat_table.ravel(), arriving.channels, leaving.channels, first_input, flat, divisors)


def _reached(axis: Axis) -> list[list[int]]:
    """List the outputs that each input of an axis reaches, ascending."""
    reached: list[list[int]] = [[] for _ in range(axis.inputs)]
    for tap in range(axis.taps):
        for position, output in zip(*(each.tolist() for each in axis.pairs(tap)), strict=True):
            reached[position].append(output)
    return [sorted(outputs) for outputs in reached]
