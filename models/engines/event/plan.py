"""What is computed from a network once, at load: layouts, tables and parameters, so that a run only calls kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.carried import CarriedLayout
from spikeserve.models.engines.event.connections import (
    FLOATS,
    GATHER,
    INTEGERS,
    SUMMED,
    as_integers,
    feed_of,
    panels,
    summed_by,
    windows_of,
)
from spikeserve.models.engines.event.cores import ADDED, STEPPED
from spikeserve.models.engines.event.joins import moves_of
from spikeserve.models.engines.event.kernels import room_for
from spikeserve.models.engines.event.layouts import Layout, aligned
from spikeserve.models.engines.event.planned import (
    Connection,
    Delaying,
    Layer,
    Moving,
    Neurons,
    Planned,
    Pooling,
    Scaling,
)
from spikeserve.models.engines.event.steps import rows_at, scalars, step_of
from spikeserve.models.engines.event.tables import Tables
from spikeserve.models.engines.fan_out import fan_out, recurrent_fan_out
from spikeserve.models.engines.repeated import constant_nodes
from spikeserve.models.neurons import at_rest, program_of
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import (
    AvgPool,
    Concatenate,
    Delay,
    JoinBase,
    MaxPool,
    Moved,
    Neuron,
    Node,
    Permute,
    Pool,
    Scale,
    Spiking,
    SumPool,
    Weighted,
)
from spikeserve.models.spec.program import Program
from spikeserve.models.spec.sums import Sum, Summation, Sums, sums_of

USUAL = 0.05  # share of inputs that are not 0
NO_FLOATS: FloatArray = np.empty(0, np.float32)


@dataclass(frozen=True)
class Plan:
    """A network made ready: what each of its nodes needs, by name.

    Whatever a node's fields decide is decided here: asking a pydantic model for its type takes as long as a small
    kernel does.
    """

    spec: Spec
    layouts: dict[str, Layout]
    nodes: dict[str, Planned]  # those that kernels run
    joined: dict[str, list[NDArray[np.int32]]]  # of a Concatenate, where each place of each of its inputs goes
    plain: dict[str, int]  # the nodes for which there is no kernel, and how many places come and go there
    arriving: dict[str, Layout]
    carried: CarriedLayout
    traced: str | None  # the layer whose membrane is the answer
    constant: frozenset[str]  # the nodes whose output is the same at every step, where the input is
    kept: frozenset[str]  # those of them that feed any other node

    @classmethod
    def of(cls, network: Network) -> Plan:
        """Return the plan of a network; a node without tables here is run by its plain function."""
        spec, sums = network.spec, sums_of(network)
        network = Network(spec, {**network.tensors, **sums.weights})
        layouts = {name: Layout.of(shape) for name, shape in spec.output_shapes.items()}
        arriving = {
            node.name: layouts[node.name if isinstance(node, JoinBase) else spec.sources[node.name][0]]
            for node in spec.nodes
        }
        plain = {
            node.name: sum(layouts[name].size for name in (node.name, *spec.sources[node.name]))
            for node in spec.nodes
            if not has_kernel(node)
        }
        carried, constant = CarriedLayout.of(network, layouts), constant_nodes(spec)
        kept = frozenset(
            name for node in spec.nodes if node.name not in constant for name in constant & {*spec.sources[node.name]}
        )
        traced = spec.readout_node.name if spec.readout.of_membrane else None
        plan = cls(spec, layouts, {}, {}, plain, arriving, carried, traced, constant, kept)
        for node in spec.nodes:
            if isinstance(node, Concatenate):
                sources = [layouts[name] for name in spec.sources[node.name]]
                plan.joined[node.name] = moves_of(node, sources, layouts[node.name])
            if node.name not in plain:
                plan.nodes[node.name] = plan._planned(node, network, sums)
        assert plan.tables.rows.size  # noqa: S101  (they are made here)
        return plan

    @cached_property
    def tables(self) -> Tables:
        """The tables that a run's native functions read."""
        return Tables.of(self)

    def _planned(self, node: Node, network: Network, sums: Sums) -> Planned:
        before, after = self.arriving[node.name], self.layouts[node.name]
        if isinstance(node, Weighted):
            return _connection(node, network, sums[node.name], before, after)
        if isinstance(node, Neuron):
            return self._layer(node, network, sums[f"{node.name}.recurrent"], after)
        if isinstance(node, Pool):
            windows, largest = windows_of(node, before, after), isinstance(node, MaxPool)
            divisor = 1.0 if isinstance(node, MaxPool | SumPool) else windows.area
            dense = largest or sums[node.name].by is not Summation.FLOAT32
            return Pooling(after, windows, largest, divisor, dense)
        if isinstance(node, Scale):
            return Scaling(_by_place(network.parameter(node, "scale"), after))
        if isinstance(node, Moved):
            return Moving(after, _moves(node, before, after))
        if isinstance(node, Delay):
            return Delaying(node.name, _by_place(network.parameter(node, "delay"), after).astype(np.int64))
        raise TypeError(f"no kernel for a {type(node).__name__}")  # a fault of `has_kernel`

    def _layer(self, node: Neuron, network: Network, rule: Sum, layout: Layout) -> Layer:
        program = program_of(node)
        values = {name: network.parameter(node, name) for name in program.parameters}
        arrays = frozenset(name for name, value in values.items() if value.ndim)
        inside = np.packbits(np.isin(np.arange(layout.size), layout.places), bitorder="little").view(np.uint16)
        code = step_of(program, arrays, padded=layout.places.size < layout.size)
        neurons = Neurons(
            layout.size,
            code.address,
            len(program.states),
            _parameters(program, values, arrays, layout),
            _rest(node, program, values, layout),
            inside,
            *_recurrent(node, network, rule, layout),
            self.carried.begins[node.name],
        )
        (source, *_) = network.spec.sources[node.name]
        connection = self.nodes.get(source)
        spiking = isinstance(node, Spiking)
        gathers = isinstance(connection, Connection) and connection.feed.kind == GATHER
        units = self.arriving[source].size if gathers else 0
        return Layer(
            node.name,
            layout,
            neurons,
            code,
            spiking=spiking,
            several=isinstance(node, Spiking) and node.several,
            traced=node.name == self.traced or not spiking,
            fan_out=recurrent_fan_out(layout.shape) if neurons.recurrent_weight.size else 0,
            room=room_for(layout.size, units),
        )

    @cached_property
    def bytes_per_step(self) -> int:
        """The most that a run allocates for one step of one sample.

        An index, a value and a float of a row at each place; an index and a value for each place that a pool takes to a
        window; four floats for each place on both sides of a node without a kernel, whose values are dense; and once
        more an index and a value at each place of the largest layer, whose tiles' events are merged.
        """
        places = sum(layout.size for layout in self.layouts.values())
        pooled = sum(each.windows.outputs.size for each in self.nodes.values() if isinstance(each, Pooling))
        merged = max(layout.size for layout in self.layouts.values())
        return 12 * places + 8 * pooled + 16 * sum(self.plain.values()) + 8 * merged

    @cached_property
    def work_per_step(self) -> float:
        """About how many microseconds a step of one sample takes, where as few inputs are not 0 as is usual."""
        added = stepped = 0.0
        for name, each in self.nodes.items():
            if isinstance(each, Connection):
                added += each.feed.fan_out * self.arriving[name].size
            elif isinstance(each, Layer):
                stepped += each.layout.size
        return ADDED * USUAL * added + STEPPED * stepped


def has_kernel(node: Node) -> bool:
    """Return whether kernels run a node, or NumPy moves its events; any other is run by its plain function."""
    if isinstance(node, Scale):
        return node.offset == 0 and not node.by_step
    if isinstance(node, AvgPool):
        return not node.uneven
    return isinstance(node, Weighted | Neuron | Pool | Moved | Delay)


def _moves(node: Moved, before: Layout, after: Layout) -> NDArray[np.int32]:
    """Return where each place of `before` lies in `after`."""
    elements = np.arange(before.places.size)
    if isinstance(node, Permute):
        elements = np.argsort(elements.reshape(before.shape).transpose(node.order).ravel())
    return after.places[elements[before.elements]]


def _by_place(values: FloatArray, layout: Layout) -> FloatArray:
    """Return a parameter at each place of a layout, or (1,) where it is one number."""
    return layout.to_rows(np.broadcast_to(values, layout.shape).reshape(-1)) if values.ndim else values.reshape(1)


def _connection(node: Weighted, network: Network, rule: Sum, before: Layout, after: Layout) -> Connection:
    bias = network.tensor(node, "bias")
    per_channel = np.zeros(after.shape[0], np.float32) if bias is None else bias
    spread = np.broadcast_to(per_channel.reshape(-1, *(1 for _ in after.shape[1:])), after.shape)
    by_element = fan_out(node, before.shape).ravel()
    if (by_element == by_element[0]).all():
        cost = by_element[:1]
    else:
        cost = np.zeros(before.size, np.int64)
        cost[before.places] = by_element
    feed, row = summed_by(rule, feed_of(node, network, before, after)), after.to_rows(spread.reshape(-1))
    return Connection(after, feed, as_integers(row, rule.grid) if feed.summed == INTEGERS else row, cost)


def _parameters(
    program: Program, values: Mapping[str, FloatArray], arrays: frozenset[str], layout: Layout
) -> FloatArray:
    """Lay out the parameters as `Neurons` says."""
    begins = rows_at(program, arrays)
    parameters = aligned((begins + len(arrays) * layout.size,))
    numbers = [values[name] for name in scalars(program, arrays)]
    parameters[: len(numbers)] = numbers
    for k, name in enumerate(sorted(arrays)):
        parameters[begins + k * layout.size :][: layout.size] = _by_place(values[name], layout)
    return parameters


def _rest(node: Neuron, program: Program, values: Mapping[str, FloatArray], layout: Layout) -> FloatArray:
    """Lay out the states before the first step, a row for each."""
    state = at_rest(node, program, values.__getitem__, np.zeros(layout.shape, np.float32))
    rows = [layout.to_rows(np.asarray(state[name], np.float32).reshape(-1)) for name in program.states]
    return np.concatenate([*rows, NO_FLOATS])


def _recurrent(node: Neuron, network: Network, rule: Sum, layout: Layout) -> tuple[FloatArray, FloatArray, int, float]:
    if node.recurrent is None:
        return NO_FLOATS, NO_FLOATS, FLOATS, 1.0
    weight = aligned((layout.size, layout.size))
    weight[np.ix_(layout.places, layout.places)] = network.tensors[f"{node.name}.recurrent.weight"].T
    by_panel, summed = panels(weight), SUMMED[rule.by]
    bias = network.tensor(node, "recurrent.bias")
    later = layout.to_rows(np.zeros(layout.places.size, np.float32) if bias is None else bias)
    start = later if node.recurrent.bias_at_start else np.zeros_like(later)
    biases = np.concatenate([start, later])
    if summed == INTEGERS:
        by_panel, biases = as_integers(by_panel, rule.grid), as_integers(biases, rule.grid)
    return by_panel, biases, summed, rule.grid if summed == INTEGERS else 1.0
