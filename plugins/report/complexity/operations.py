"""The operations of each weighted connection in a recorded run, step by step and sample by sample.

What enters a connection is worked out from what was recorded: the network's input, the spikes of its neurons, and the
membranes of those that do not spike. The nodes between those and the connection (pools, joins, delays) are run by
their plain functions on some steps at a time, so that the arrays stay small; no neuron is run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import plain
from spikeserve.models.engines.base import Counts, RunResult
from spikeserve.models.engines.state import longest_delay
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Delay, Neuron, Node, Spiking, Weighted
from spikeserve.plugins.report.complexity.connections import Connection

BLOCK_VALUES = 2**20  # of the widest layer that are there at once, unless one step of a batch has more

Signal: TypeAlias = FloatArray | None  # (1 or steps, batch, *shape); None where no connection needs it


@dataclass(frozen=True)
class Operations:
    """The operations of one connection in some steps.

    `count` (steps, batch) int64: the weights other than 0 that are met by inputs other than 0. `valued` (steps, batch):
    whether an input is none of 0, 1 and -1, so that the step multiplies.
    """

    connection: str
    count: Counts
    valued: NDArray[np.bool_]


@dataclass(frozen=True)
class Replay:
    """Works out the operations of recorded runs of a network from rest."""

    network: Network
    connections: Mapping[str, Connection]

    @cached_property
    def needed(self) -> frozenset[str]:
        """The nodes whose output a connection takes, or a node takes that works out what a connection takes."""
        needed: set[str] = set()
        for node in reversed(self.network.spec.nodes):
            if isinstance(node, Weighted) or (node.name in needed and not isinstance(node, Neuron)):
                needed.update(self.network.spec.sources[node.name])
        return frozenset(needed)

    @cached_property
    def plain(self) -> plain.Connections:
        """The connections, of which one may send its output into another, without a neuron between."""
        return plain.Connections(self.network)

    def operations(self, inputs: Inputs, result: RunResult) -> Iterator[Operations]:
        """Yield the operations of each connection, some steps after the others.

        `result` is that of a run of `inputs` from rest which recorded rasters and membranes.
        """
        fit = max(1, BLOCK_VALUES // max(1, inputs.batch * self.network.spec.widest))
        lines: dict[str, FloatArray] = {}
        for first in range(0, inputs.time_steps, fit):
            block = _Block(self, inputs, result, first, min(first + fit, inputs.time_steps), lines)
            yield from block.operations()


class _Block:
    """The steps of a run from `first` up to `end`; `lines` are what its delays hold, from the block before."""

    def __init__(
        self, replay: Replay, inputs: Inputs, result: RunResult, first: int, end: int, lines: dict[str, FloatArray]
    ) -> None:
        self.replay, self.network, self.inputs, self.result = replay, replay.network, inputs, result
        self.first, self.end, self.lines = first, end, lines

    def operations(self) -> Iterator[Operations]:
        """Yield the operations of each connection in these steps."""
        inputs: Signal = self.inputs.between(self.first, self.end).dense().steps
        for node, arriving, _ in self.network.spec.propagate(inputs, self.leaving, self.joined):
            if isinstance(node, Weighted):
                assert arriving is not None  # noqa: S101  (its sources are needed)
                yield self.counted(node.name, arriving)
            elif isinstance(node, Spiking) and node.recurrent is not None:
                yield self.counted(f"{node.name}.recurrent", self.returning(node.name))

    def leaving(self, node: Node, arriving: Signal) -> Signal:
        """Return the output of a node in these steps, where it is needed."""
        if node.name not in self.replay.needed:
            return None
        if isinstance(node, Neuron):
            recorded = self.result.rasters if isinstance(node, Spiking) else self.result.membranes
            return recorded[node.name][self.first : self.end].astype(np.float32)
        assert arriving is not None  # noqa: S101  (its sources are needed)
        steps = self.end - self.first
        if isinstance(node, Delay):
            line = self.lines.get(node.name)
            if line is None:
                line = np.zeros((longest_delay(self.network, node), *arriving.shape[1:]), np.float32)
            later, self.lines[node.name] = plain.delayed(node, self.network, arriving, line, steps)
            return later
        return self.replay.plain.steps(node, arriving, np.full(arriving.shape[1], self.first, np.int64), steps)

    def joined(self, node: Node, inputs: Sequence[Signal]) -> Signal:
        """Return the inputs of a node as one, where it is needed."""
        arrays = [each for each in inputs if each is not None]
        return plain.join(node, arrays) if len(arrays) == len(inputs) else None

    def returning(self, name: str) -> FloatArray:
        """Return the spikes that come back to a recurrent layer, of the step before each of these."""
        raster = self.result.rasters[name]
        before = raster[self.first - 1 : self.end - 1] if self.first else raster[: self.end - 1]
        rest = np.zeros((self.end - self.first - len(before), *raster.shape[1:]), np.float32)
        return np.concatenate([rest, before.astype(np.float32)])

    def counted(self, name: str, arriving: FloatArray) -> Operations:
        """Count the operations of a connection on (1 or steps, batch, *shape); one step stands for all."""
        fan_out, shape = self.replay.connections[name].fan_out, arriving.shape[:2]
        rows = arriving.reshape(math.prod(shape), fan_out.size)
        row, unit = rows.nonzero()
        # Sums of whole numbers in float64, which are exact up to 2**53.
        count = np.bincount(row, fan_out[unit], len(rows)).astype(np.int64).reshape(shape)
        valued = np.zeros(len(rows), np.bool_)
        valued[row[np.abs(rows[row, unit]) != 1]] = True
        whole = (self.end - self.first, shape[1])
        return Operations(name, np.broadcast_to(count, whole), np.broadcast_to(valued.reshape(shape), whole))
