"""A plan as the tables of a run: a row for each node in the order in which they run, and what Python knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event import node_kernels
from spikeserve.models.engines.event.compiled import Addressed
from spikeserve.models.engines.event.kernels import run_neurons
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.planned import Connection, Delaying, Layer, Moving, Planned, Pooling, Scaling
from spikeserve.models.engines.event.table import NODE, put, put_fields
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec import INPUT
from spikeserve.models.spec.nodes import JoinBase, Node

if TYPE_CHECKING:
    from spikeserve.models.engines.event.plan import Plan


class Step(NamedTuple):
    """A row of the table for Python: its node, None for the inputs; the signals that it takes and gives.

    A node that Python runs joins its inputs, and is `applied` unless a row of its own follows.
    """

    node: Node
    planned: Planned | None
    sources: tuple[int, ...]
    target: int
    applied: bool = True


@dataclass(frozen=True, slots=True)
class Tables:
    """What a run needs beside its inputs.

    `rows` is the table of `table.NODE`; its last two rows make a signal's rows, and its events. `slots` has the layout
    of each signal. `layers` has the signal and the layer of each neuron layer, `spiking` the place of each that fires
    in what is counted, and `kept` the signal of each of the plan's kept nodes; `output` is the last node's. Of `units`
    neurons the spikes are read. The tables are `native` where Python runs no node, and `room` is what the largest layer
    wants as its room, in floats.
    """

    rows: NDArray[Any]
    steps: tuple[Step, ...]
    slots: tuple[Layout, ...]
    layers: dict[str, tuple[int, Layer]]
    spiking: dict[str, int]
    kept: dict[str, int]
    output: int
    units: int
    native: bool
    room: int

    @classmethod
    def of(cls, plan: Plan) -> Tables:
        """Return the tables of a plan, whose arrays the plan holds."""
        spec = plan.spec
        slots, steps, functions = [plan.layouts[INPUT]], list[Step](), list[Addressed | None]()
        at, layers, spiking = {INPUT: 0}, dict[str, tuple[int, Layer]](), dict[str, int]()

        def add(step: Step, function: Addressed | None) -> None:
            steps.append(step)
            functions.append(function)

        def slot(layout: Layout) -> int:
            slots.append(layout)
            return len(slots) - 1

        add(Step(spec.nodes[0], None, (), 0), node_kernels.find_inputs)
        for node in spec.nodes:
            sources = tuple(at[name] for name in spec.sources[node.name])
            planned = plan.nodes.get(node.name)
            native = FUNCTIONS.get(type(planned))
            if isinstance(node, JoinBase) and len(sources) == 1:
                at[node.name] = sources[0]
                continue
            if native is not None and len(sources) > 1:
                joined = slot(plan.arriving[node.name])
                add(Step(node, planned, sources, joined, applied=False), None)
                sources = (joined,)
            target = at[node.name] = slot(plan.layouts[node.name])
            add(Step(node, planned, sources, target), native)
            if isinstance(planned, Layer):
                layers[node.name] = target, planned
                if planned.spiking:
                    spiking[node.name] = 1 + len(spiking)
                    add(Step(node, planned, sources, target), node_kernels.count_spikes)
        rows = np.zeros(len(steps) + 2, NODE)
        read = spec.readout_node.name
        for row, step, function in zip(rows, steps, functions, strict=False):
            layout = slots[step.target]
            source = step.sources[0] if step.sources else 0
            put(row, source=source, target=step.target, size=layout.size, step=LANES, units=layout.places.size)
            put(row, function=0 if function is None else function.address, constant=step.node.name in plan.constant)
            _fill(step.planned, row)
            if step.node.name in spiking:
                put(row, row=spiking[step.node.name], read=step.node.name == read)
            if isinstance(step.planned, Moving):
                put(row, places=slots[source].places)
        readers = [node.name for node in spec.nodes if INPUT in spec.sources[node.name]]
        put(rows[0], constant=plan.constant.issuperset(readers))
        if not slots[0].is_flat:
            put(rows[0], places=slots[0].places)
        put(rows[-2], function=node_kernels.make_rows.address)
        put(rows[-1], function=node_kernels.make_events.address)
        units = plan.layouts[read].places.size if read in spiking else 0
        return cls(
            rows,
            tuple(steps),
            tuple(slots),
            layers,
            spiking,
            {name: at[name] for name in plan.kept},
            at[spec.nodes[-1].name],
            units,
            None not in functions,
            max([layer.room for _, layer in layers.values()], default=0),
        )


FUNCTIONS: dict[type[Planned] | type[None], Addressed] = {
    Connection: node_kernels.connect_later,
    Layer: node_kernels.fire,
    Pooling: node_kernels.pool,
    Scaling: node_kernels.scale,
    Moving: node_kernels.move,
}


@singledispatch
def _fill(planned: Planned | None, _: Any) -> None:
    """Write what a node's function reads of its plan into its row."""
    assert planned is None or isinstance(planned, Delaying)  # noqa: S101  (which no row is for)


@_fill.register
def _(planned: Connection, row: Any) -> None:
    put_fields(row, planned.feed, but=("reach",))
    put(row, reach=planned.feed.reach, units=planned.feed.reach.shape[1], bias=planned.bias, cost=planned.cost)


@_fill.register
def _(planned: Layer, row: Any) -> None:
    put_fields(row, planned.neurons, but=("step",))
    put(row, code=planned.neurons.step, spiking=planned.spiking, several=planned.several, traced=planned.traced)
    put(row, runner=run_neurons.address, fan_back=planned.fan_out, elements=planned.layout.elements)


@_fill.register
def _(planned: Pooling, row: Any) -> None:
    put_fields(row, planned.windows, but=("channels",))
    put(row, area_channels=planned.windows.channels)
    put(row, largest=planned.largest, divisor=planned.divisor, dense=planned.dense)


@_fill.register
def _(planned: Scaling, row: Any) -> None:
    put(row, scale=planned.scale)


@_fill.register
def _(planned: Moving, row: Any) -> None:
    put(row, moves=planned.moves)
