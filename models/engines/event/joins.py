"""How a node's inputs are joined: products and concatenations of events by events, and everything else by values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines import plain
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.signals import ONES, Signal, Sparse, add, of_values, values_at, values_of
from spikeserve.models.engines.event.table import Events
from spikeserve.models.spec.nodes import Concatenate, JoinBase, Multiply, Node

FEW_EVENTS = 0.05  # share of places with an event up to which following events is faster than all values


def join(node: Node, inputs: Sequence[Signal], layout: Layout, moves: Sequence[NDArray[np.int32]]) -> Signal:
    """Return the one input that a node's several become: their sum, or what the node makes of them.

    `layout` is that of the joined input, and `moves` are those of a Concatenate, see `moves_of`.
    """
    if not isinstance(node, JoinBase):
        return reduce(add, inputs)
    events = [signal for signal in inputs if isinstance(signal, Sparse)]
    if len(events) == len(inputs) and len({signal.steps for signal in events}) == 1:
        found = sum(signal.events.index.size for signal in events)
        if found <= FEW_EVENTS * layout.size * (events[0].events.offset.size - 1):
            if isinstance(node, Multiply):
                return reduce(_product, events)
            if isinstance(node, Concatenate):
                return _concatenation(events, layout, moves)
    # Samples and steps have changed places here, which nothing in a join depends on.
    return of_values(layout, plain.join(node, [values_of(signal) for signal in inputs]))


def moves_of(node: Concatenate, before: Sequence[Layout], after: Layout) -> list[NDArray[np.int32]]:
    """Return, for each input of a Concatenate, where each of its places lies in the output."""
    ends = np.cumsum([layout.shape[node.axis] for layout in before])
    elements = np.split(np.arange(after.places.size).reshape(after.shape), ends[:-1], axis=node.axis)
    return [after.places[part.ravel()[layout.elements]] for part, layout in zip(elements, before, strict=True)]


def _product(first: Sparse, second: Sparse) -> Sparse:
    """Multiply two signals of one layout, which are not 0 only where both have an event."""
    size = first.layout.size
    one, other = (signal.row * size + signal.events.index for signal in (first, second))
    common, a, b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    value = ONES
    if first.events.value.size or second.events.value.size:
        value = values_at(first.events)[a] * values_at(second.events)[b]
        common, value = common[value != 0], value[value != 0]  # a small product may have become 0
    rows = len(first.events.offset)
    offset = np.searchsorted(common, np.arange(rows, dtype=np.int64) * size)
    return Sparse(first.layout, first.steps, Events((common % size).astype(np.int32), value, offset))


def _concatenation(inputs: Sequence[Sparse], layout: Layout, moves: Sequence[NDArray[np.int32]]) -> Sparse:
    """Merge the events of each row, moved to their places in the output."""
    rows = np.concatenate([signal.row for signal in inputs])
    order = np.argsort(rows, kind="stable")
    index = np.concatenate([move[signal.events.index] for signal, move in zip(inputs, moves, strict=True)])[order]
    value = ONES
    if any(signal.events.value.size for signal in inputs):
        value = np.concatenate([values_at(signal.events) for signal in inputs])[order]
    offset = np.stack([signal.events.offset for signal in inputs]).sum(axis=0)
    return Sparse(layout, inputs[0].steps, Events(index, value, offset))
