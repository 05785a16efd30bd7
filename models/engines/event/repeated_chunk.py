"""Chunks of a slice of constant inputs, whose currents into the first neurons are computed in the first slice alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.event.chunk import Chunk
from spikeserve.models.engines.event.signals import Dense, Signal
from spikeserve.models.engines.repeated import RepeatedInputs
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import Node


class KeepingChunk(Chunk):
    """A chunk of the first slice: it keeps what leaves the last nodes before the first neurons."""

    inputs: RepeatedInputs

    def apply(self, node: Node, arriving: Signal) -> Signal:
        """Return what leaves `node`."""
        leaving = super().apply(node, arriving)
        if node.name not in self.plan.kept:
            return leaving
        dense = leaving.dense()
        if self.samples == self.inputs.batch:
            self.inputs.kept[node.name] = dense.rows
            return dense
        room: FloatArray = np.empty((self.inputs.batch, dense.layout.size), np.float32)
        self.inputs.kept.setdefault(node.name, room)[self.part] = dense.rows  # in the room of the chunk that came first
        return dense


class KnownChunk(Chunk):
    """A chunk of a later slice: the nodes before the first neurons are not run, and so not counted."""

    inputs: RepeatedInputs

    def apply(self, node: Node, arriving: Signal) -> Signal:
        """Return what leaves `node`, or what was kept of it."""
        if node.name in self.plan.kept:
            return Dense(self.plan.layouts[node.name], 1, self.inputs.kept[node.name][self.part])
        return arriving if node.name in self.plan.constant else super().apply(node, arriving)

    def join(self, node: Node, inputs: Sequence[Signal]) -> Signal:
        """Return the one input that a node's several become."""
        return inputs[0] if node.name in self.plan.constant else super().join(node, inputs)


def chunk_type(inputs: Inputs) -> type[Chunk]:
    """Return the kind of chunk that runs these inputs."""
    if not isinstance(inputs, RepeatedInputs):
        return Chunk
    return KnownChunk if inputs.kept else KeepingChunk
