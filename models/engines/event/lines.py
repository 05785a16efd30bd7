"""The tables of convolutions, which are added up line by line; `lines_code` makes the functions that read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.connections import LINES, NOTHING, as_integers
from spikeserve.models.engines.event.layouts import Layout, aligned, padded
from spikeserve.models.engines.event.lines_code import COLUMNS, DOUBLES, FLOATS, INTEGERS, LINE, SHORTS, Lines
from spikeserve.models.engines.event.vectors import HALF, LANES
from spikeserve.models.engines.fan_out import fan_out
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import ONE_ROW, Axis, Conv, ConvTranspose, MaxPool2d, Node, Scale, Weighted
from spikeserve.models.spec.sums import Sum, Summation, lowest_bit

MOST_AT_ONCE = 4.0  # spikes of one place that are added one after the other; products are quicker for more
LARGEST = 2.0**15 - 1  # of a sum in 16 bits
NOWHERE = -(2**40)  # the first line of outputs that an input meets where it meets none


class Along(NamedTuple):
    """How the inputs along an axis meet outputs.

    Taps that one input meets are a phase, in the order of the outputs that they reach, `spacing` from one to the next.
    Input i meets the phase `phase[i]`, whose first tap reaches the output `first[i]`; where it meets none, `phase[i]`
    is the number of phases.
    """

    phases: list[list[int]]
    spacing: int
    phase: NDArray[np.int64]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, axis: Axis) -> Along:
        """Work it out; of what reaches an output, what it reaches before the first or behind the last counts too."""
        shared = math.gcd(axis.every, axis.hop)
        apart, ahead = axis.every // shared, 1 if axis.hop > 0 else -1
        phases = [[*range(phase, axis.taps, apart)][::ahead] for phase in range(min(apart, axis.taps))]
        at = np.arange(axis.inputs) * axis.stride + axis.shift
        phase, first = np.full(axis.inputs, len(phases)), np.full(axis.inputs, NOWHERE)
        for number, taps in enumerate(phases):
            reached = at + taps[0] * axis.hop
            output, span = reached // axis.every, (len(taps) - 1) * abs(axis.hop) // shared
            meets = (reached % axis.every == 0) & (output < axis.outputs) & (output + span >= 0)
            phase[meets], first[meets] = number, output[meets]
        return cls(phases, abs(axis.hop) // shared, phase, first)


class Convolution(NamedTuple):
    """A convolution as `lines_code` reads it: its `table`, the taps of its axes, and what an event at each place costs.

    `weight` is (outputs, inputs of a group, down, across), and `bias` (outputs,).
    """

    lines: Lines
    table: NDArray[np.int64]
    down: Along
    across: Along
    weight: FloatArray
    bias: FloatArray
    cost: NDArray[np.int64]

    @classmethod
    def of(cls, node: Weighted, network: Network, before: Layout, after: Layout) -> Convolution:
        """Make it of a node between two layouts."""
        if not isinstance(node, Conv | ConvTranspose):
            raise TypeError(f"no native function for a {type(node).__name__}")
        weight, bias = network.tensors[f"{node.name}.weight"], network.tensor(node, "bias")
        axes = (ONE_ROW, *node.spread(before.shape))[-2:]  # a length is one row
        down, across = map(Along.of, axes)
        (height, width), (rows, columns) = before.image, after.image
        outputs = len(weight) // node.groups
        most = max(map(len, across.phases))
        firsts = across.first[across.first != NOWHERE]
        least = min(0, firsts.min(initial=0))
        reach = max(columns, firsts.max(initial=0) + (most - 1) * across.spacing + 1) - least
        ready, span = _ready(down, rows)
        lines = Lines(
            channels=before.channels,
            depth=after.channels,
            inputs=before.channels if node.groups == 1 else weight.shape[1],
            outputs=outputs,
            block=after.channels if node.groups == 1 else padded(outputs, HALF),
            taps=tuple(map(len, down.phases)),
            across=most,
            spacing=(down.spacing, across.spacing),
            ring=span,
            kind=DOUBLES,
        )
        line = padded(reach * lines.depth + LANES)
        starts = np.where(across.first == NOWHERE, 0, across.first - least) * lines.depth
        sizes = [height, width, rows, columns, line, -least * lines.depth]
        by_row = np.stack([np.minimum(down.phase, len(down.phases) - 1), down.first, ready], axis=1)
        by_column = np.stack([across.phase * lines.channels * lines.unit, starts], axis=1)
        table = np.concatenate([sizes, by_row.ravel(), by_column.ravel()])
        kernels = weight.reshape(*weight.shape[:2], axes[0].taps, axes[1].taps)
        bias = np.zeros(len(weight), np.float32) if bias is None else bias
        cost = fan_out(node, before.shape, network)[0].ravel()  # which all channels have in common
        return cls(lines, table.astype(np.int64), down, across, kernels, bias, cost)

    @property
    def room(self) -> int:
        """How many floats its functions need as room at most."""
        ring, depth = (self.lines.ring + 1) * int(self.table[LINE]), self.lines.depth
        return 2 * ring + int(self.table[COLUMNS]) * depth // LANES + LANES

    def fields(self) -> dict[str, Any]:
        """Return the fields of the connection, see `table`, but the address of its function."""
        feed = NOTHING._replace(kind=LINES, fan_out=float(self.cost.mean()))
        tables = self.tables(DOUBLES, 1.0)
        return {**feed._asdict(), **tables, "cost": np.repeat(self.cost, self.lines.channels)}

    def tables(self, kind: str, grid: float) -> dict[str, Any]:
        """Return the weights and the bias as sums of a kind take them, in the bits of arrays.

        The weights' axes are the phase of the input's column, with zeros for columns that meet none, its channel, the
        taps down, phase after phase, the taps along a line, and the outputs of a group.
        """
        lines, inputs, outputs = self.lines, self.weight.shape[1], self.lines.outputs
        down = [tap for phase in self.down.phases for tap in phase]
        phases = max(len(self.across.phases), self.across.phase.max(initial=0) + 1)
        weight = np.zeros((phases, lines.channels, len(down), lines.across, lines.block), np.float32)
        for channel in range(inputs * (len(self.weight) // outputs)):
            group = channel // inputs
            kernels = self.weight[group * outputs : (group + 1) * outputs, channel % inputs][:, down]
            for phase, taps in enumerate(self.across.phases):
                weight[phase, channel, :, : len(taps), :outputs] = kernels[:, :, taps].transpose(1, 2, 0)
        base = np.zeros(lines.depth, np.float32)
        base[: len(self.bias)] = self.bias
        base = np.resize(base, math.lcm(lines.depth, LANES))
        if kind == DOUBLES:
            values = aligned((weight.size,), weight.ravel()), base.astype(np.float64).view(np.float32)
        else:
            values = _in_bits(weight.ravel(), kind, grid), _in_bits(base, kind, grid)
        return {"line_table": self.table, "line_weight": values[0], "line_base": values[1], "line_grid": grid}

    def with_neurons(self, rule: Sum, pool: int) -> tuple[Lines, dict[str, Any]] | None:
        """Choose as what the sums of spikes are held, or None where they have to be added up in float64."""
        if rule.by is Summation.FLOAT64:
            return None
        grid = rule.grid or min(lowest_bit(self.weight), lowest_bit(self.bias))
        most = min(rule.most, MOST_AT_ONCE) if rule.arriving.step >= 1.0 else 1.0
        kind = FLOATS if rule.by is Summation.FLOAT32 else INTEGERS
        if np.isfinite(grid) and self._largest(most) <= LARGEST * grid:
            kind = SHORTS
        lines = replace(self.lines, kind=kind, pool=pool if padded(len(self.weight), HALF) % LANES == 0 else 1)
        tables = self.tables(kind, 1.0 if kind == FLOATS else grid)
        return lines, {**tables, "line_most": most, "line_cost": self.cost}

    def _largest(self, most: float) -> float:
        """Return the largest that any output's positive terms, or its negative ones, sum to."""
        flat = self.weight.reshape(len(self.weight), -1).astype(np.float64) * most
        terms = np.concatenate([flat, self.bias[:, np.newaxis]], axis=1)
        return float(max(np.maximum(terms, 0).sum(axis=1).max(), np.maximum(-terms, 0).sum(axis=1).max()))


def _ready(down: Along, rows: int) -> tuple[NDArray[np.int64], int]:
    """Return how many lines of outputs have ended after each line of the image, and how many lie between at most."""
    lengths = np.array([len(taps) for taps in (*down.phases, [])])
    offsets = np.arange(lengths.max()) * down.spacing
    reached = down.first[:, np.newaxis] + offsets
    meets = (offsets < lengths[down.phase][:, np.newaxis] * down.spacing) & (reached >= 0) & (reached < rows)
    reached = np.where(meets, reached, -1)
    first = np.where(reached >= 0, reached, rows).min(axis=1)
    ready = np.append(np.minimum.accumulate(first[::-1])[::-1][1:], rows)
    ended = np.append(0, ready[:-1])  # before each line of the image
    return ready, int(max(1, (np.maximum(reached.max(axis=1), ready - 1) - ended + 1).max()))


def needs_order(spec: Spec, name: str) -> bool:
    """Tell whether a convolution reads what leaves a node."""
    readers = [node for node in spec.nodes if name in spec.sources[node.name]]
    return any(
        isinstance(node, Conv | ConvTranspose) or (isinstance(node, Scale) and needs_order(spec, node.name))
        for node in readers
    )


def pooled_by(node: Node, shape: Sequence[int]) -> int:
    """Tell the side of the squares, one beside the other, of which a node takes the largest; 1 if it does no such."""
    if not isinstance(node, MaxPool2d):
        return 1
    down, across = node.spread(tuple(shape))
    sides = {down.taps, across.taps, down.every, across.every}
    is_plain = down.shift == across.shift == 0 and down.hop**2 == across.hop**2 == 1
    return down.taps if len(sides) == 1 and is_plain else 1


def _in_bits(values: FloatArray, kind: str, grid: float) -> FloatArray:
    """Write values as sums of a kind take them, in the bits of an array that begins with a line of the cache."""
    if kind == SHORTS:
        array = aligned((-(-values.size // 2),))
        array.view(np.int16)[: values.size] = np.rint(values / grid)
        return array
    array = aligned(values.shape, values)
    return as_integers(array, grid) if kind == INTEGERS else array
