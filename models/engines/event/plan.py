"""What is computed from a network once, at load: the table of its nodes, so that a run only calls native functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event import node_kernels, table
from spikeserve.models.engines.event.carried import CarriedLayout
from spikeserve.models.engines.event.compiled import FunctionPointer
from spikeserve.models.engines.event.connections import (
    GATHER,
    INTEGERS,
    MOST_COUNTED,
    NARROW,
    NOTHING,
    PANEL,
    SUMMED,
    as_integers,
    byte_tables,
    few_weights,
    gather_feed,
    narrow_weights,
    panels,
    sparse_feed,
    summed_by,
    windows_of,
)
from spikeserve.models.engines.event.cores import ADDED, STEPPED
from spikeserve.models.engines.event.kernels import room_for, run_neurons
from spikeserve.models.engines.event.layers import GATHERED, layer_of
from spikeserve.models.engines.event.layouts import Layout, aligned
from spikeserve.models.engines.event.lines import Convolution, needs_order, pooled_by
from spikeserve.models.engines.event.lines_code import lines_of
from spikeserve.models.engines.event.steps import rows_at, scalars
from spikeserve.models.engines.fan_out import constant_nodes, fan_out, recurrent_fan_out
from spikeserve.models.engines.state import longest_delay
from spikeserve.models.neurons import at_rest, program_of
from spikeserve.models.spec import INPUT, Readout, Spec, nodes
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.program import Program
from spikeserve.models.spec.readouts import Reduction
from spikeserve.models.spec.sparse import FEW, FEW_BYTES, Sparse
from spikeserve.models.spec.sums import Sum, Summation, Sums, sums_of

USUAL = 0.05  # share of inputs that are not 0
LOOK = 0.06  # microseconds that a node takes to begin a run of few steps
NO_FLOATS: FloatArray = np.empty(0, np.float32)
READS = {
    Reduction.SUM: table.SUM,
    Reduction.MEAN: table.MEAN,
    Reduction.MAX: table.GREATEST,
    Reduction.LAST: table.LAST,
}


class Plan:
    """A network made ready.

    `rows` is the table of `table.NODE` in the order in which its nodes run; the last three read the answer, make a
    signal's rows, and make its events. `names` has the name of each row's node. `layers` has the signal and the layout
    of each neuron layer, and `columns` those that fire, with the column of the results in which their spikes are
    counted. `room` is what the largest layer or convolution wants as its room, in floats. `bytes_per_step` is the most
    that a run allocates for one step of one sample, and `work_per_step` about how many microseconds one takes. Where
    the looks at a sample that runs by itself, each `look_time`, take longer than all its steps, samples that may end
    early run together: that is twice what a look takes, as some half of the steps are saved. It is 0 where a neuron
    may fire too often to be counted, in steps that a sample does not take by itself. The results have `width` columns,
    and the answer `classes`.
    """

    def __init__(self, network: Network) -> None:
        spec, sums = network.spec, sums_of(network)
        network = network.counted(sums.weights)
        layouts = {name: Layout.of(shape) for name, shape in spec.output_shapes.items()}
        self.spec: Spec = spec
        self.carried, self._constant = CarriedLayout.of(network, layouts), constant_nodes(spec)
        self.slots, self.names = [layouts[INPUT]], list[str]()
        self.layers, self.columns = dict[str, tuple[int, Layout]](), dict[str, int]()
        self._convolutions = dict[str, Convolution]()
        self.arrays: list[Any] = []  # what the table has the addresses of
        self.rows = np.zeros(3 * len(spec.nodes) + 4, table.NODE)  # a node has three rows at most
        at, self.room = {INPUT: 0}, 0
        self._add(INPUT, node_kernels.find_inputs, 0, 0)
        for node in spec.nodes:
            sources = [at[name] for name in spec.sources[node.name]]
            after, before, arriving = layouts[node.name], [self.slots[source] for source in sources], sources[0]
            if len(sources) > 1:
                arriving = self._slot(after if isinstance(node, nodes.JoinBase) else before[0])
                fields = _joined(node, before, after)
                self._add(node.name, node_kernels.join, sources[0], arriving, others=np.array(sources), **fields)
            if isinstance(node, nodes.JoinBase):
                at[node.name] = arriving
                continue
            target = at[node.name] = self._slot(after)
            if isinstance(node, nodes.Neuron):
                self._add_layer(node, network, sums, arriving, target)
                continue
            function, fields = self._planned(node, network, sums, before[0], after)
            self._add(node.name, function, arriving, target, **fields)
        readers = [node.name for node in spec.nodes if INPUT in spec.sources[node.name]]
        constant, sorts = self._constant.issuperset(readers), needs_order(spec, INPUT)
        table.put(self.arrays, self.rows[0], constant=constant, sorts=sorts)
        if not self.slots[0].is_flat:
            table.put(self.arrays, self.rows[0], places=self.slots[0].places)
        read, last = spec.readout_node.name, spec.nodes[-1].name
        source = at[read if spec.readout.of_membrane else last]
        self._add("", node_kernels.read_out, source, source, **_read(spec.readout), places=self.slots[source].places)
        self._add("", node_kernels.make_rows, 0, 0)
        self._add("", node_kernels.make_events, 0, 0)
        self.rows = self.rows[: len(self.names)].copy()
        self._convolutions.clear()  # whose weights the tables have
        sizes = [layout.size for layout in self.slots]
        pooled = int((self.rows["outputs_count"] * self.rows["overlaps"]).sum())
        self.bytes_per_step = 12 * sum(sizes) + 8 * pooled + 8 * max(sizes)
        added = sum(row["fan_out"] * sizes[row["source"]] for row in self.rows)
        stepped = sum(layout.size for _, layout in self.layers.values())
        self.classes, self.width = spec.classes, 1 + len(self.columns)
        self.work_per_step = float(ADDED * USUAL * added + STEPPED * stepped)
        self.look_time = 0.0 if self.rows["several"].any() else 2 * LOOK * len(self.rows)

    def _slot(self, layout: Layout) -> int:
        """Add a signal and return its number."""
        self.slots.append(layout)
        return len(self.slots) - 1

    def _add(self, name: str, function: FunctionPointer, source: int, target: int, **fields: Any) -> None:
        """Add a row to the table."""
        row, layout = self.rows[len(self.names)], self.slots[target]
        self.names.append(name)
        constant = name in self._constant
        table.put(self.arrays, row, function=function.address, source=source, target=target, constant=constant)
        table.put(self.arrays, row, **{"size": layout.size, "units": layout.places.size, **fields})

    def _planned(
        self, node: nodes.Node, network: Network, sums: Sums, before: Layout, after: Layout
    ) -> tuple[FunctionPointer, dict[str, Any]]:
        """Return the function of a node that has one input and is no neuron, and the fields that it reads."""
        if isinstance(node, nodes.Weighted):
            if isinstance(node, nodes.Linear):
                return node_kernels.connect_later, _connection(node, network, sums[node.name], before, after)
            convolution = self._convolutions[node.name] = Convolution.of(node, network, before, after)
            code = lines_of(convolution.lines)
            self.arrays.append(code)
            self.room = max(self.room, convolution.room)
            return node_kernels.connect_later, {**convolution.fields(), "line_code": code.address}
        if isinstance(node, nodes.Pool):
            largest = isinstance(node, nodes.MaxPool)
            dense = largest or sums[node.name].by is not Summation.FLOAT32
            return node_kernels.pool, {"largest": largest, "dense": dense, **windows_of(node, before, after)._asdict()}
        if isinstance(node, nodes.Scale):
            factors, offsets = (_by_step(network.parameter(node, name), node, after) for name in ("scale", "offset"))
            fields = {"scale": factors, "shift": offsets, "by_step": node.by_step}
            return node_kernels.scale if node.offset == 0 else node_kernels.shift, fields
        if isinstance(node, nodes.Moved):
            sorts = needs_order(self.spec, node.name)
            return node_kernels.move, {"moves": _moves(node, before, after), "sorts": sorts}
        if isinstance(node, nodes.Delay):
            delay = np.array(node.shared) if node.shared else _by_place(network.parameter(node, "delay"), after)
            taps = after.places.reshape(max(1, len(node.shared)), -1)
            return node_kernels.delay, {
                "delay": delay.astype(np.int64),
                "longest": longest_delay(network, node),
                "carried_at": self.carried.begins[node.name],
                "moves": taps[:, before.elements].ravel(),
            }
        raise TypeError(f"no native function for a {type(node).__name__}")

    def _add_layer(self, node: nodes.Neuron, network: Network, sums: Sums, source: int, target: int) -> None:
        program, layout, spiking = program_of(node), self.slots[target], isinstance(node, nodes.Spiking)
        values = {name: network.parameter(node, name) for name in program.parameters}
        arrays = frozenset(name for name, value in values.items() if value.ndim)
        inside = np.packbits(np.isin(np.arange(layout.size), layout.places), bitorder="little").view(np.uint16)
        recurrent = _recurrent(node, network, sums[f"{node.name}.recurrent"], layout)
        connection = self.rows[self.rows["target"] == source][0]
        linear = connection["kind"] == GATHER
        gathers = linear and layout.size <= PANEL and connection["summed"] in GATHERED
        summed = int(connection["summed"]) if gathers else None
        code = layer_of(program, arrays, layout, summed, recurrent.get("recurrent_summed"))
        read = node.name == self.spec.readout_node.name
        fields = {"fan_back": recurrent_fan_out(layout.shape) if node.recurrent else 0, "elements": layout.elements}
        self.arrays.append(code)
        self._add(
            node.name,
            node_kernels.fire,
            source,
            target,
            runner=run_neurons.address,
            code=code.address,
            states=len(program.states),
            parameters=_parameters(program, values, arrays, layout),
            rest=_rest(node, program, values, layout),
            inside=inside,
            carried_at=self.carried.begins.get(node.name, 0),  # one without a state remembers nothing
            spiking=spiking,
            several=isinstance(node, nodes.Spiking) and node.several,
            gathers=gathers,
            traced=not spiking or (read and self.spec.readout.of_membrane),
            column=1 + len(self.columns),
            **fields,
            **recurrent,
            **self._lines(node, sums, source, layout, arrays),
        )
        units = self.slots[connection["source"]].size if linear else 0
        self.layers[node.name], self.room = (target, layout), max(self.room, room_for(layout.size, units))
        if spiking:
            self.columns[node.name] = 1 + len(self.columns)
            column = self.columns[node.name]
            self._add(node.name, node_kernels.count_spikes, source, target, column=column, read=read, **fields)

    def _lines(
        self, node: nodes.Neuron, sums: Sums, source: int, layout: Layout, arrays: frozenset[str]
    ) -> dict[str, Any]:
        """Return the fields by which a layer runs line by line with a convolution before it; none if it cannot."""
        spec, (name, *others) = self.spec, self.spec.sources[node.name]
        convolution, program = self._convolutions.get(name), program_of(node)
        if others or convolution is None or not isinstance(node, nodes.Spiking) or node.several or node.recurrent:
            return {}
        readers = [each for each in spec.nodes if node.name in spec.sources[each.name]]
        is_read_once = len(readers) == 1 and node.name != spec.readout_node.name
        chosen = convolution.with_neurons(sums[name], pooled_by(readers[0], layout.shape) if is_read_once else 1)
        if chosen is None:
            return {}
        lines, tables = chosen
        code = lines_of(lines, (program, arrays, layout.places.size < layout.size))
        self.arrays.append(code)
        connection = self.rows[np.flatnonzero(self.rows["target"] == source)[0]]
        connection["line_only"] = sum(name in each for each in spec.sources.values()) == 1
        return {"line_code": code.address, "line_pooled": lines.pool > 1, **tables}


def _read(readout: Readout) -> dict[str, Any]:
    """Return how the last output is read, and whether its membranes are."""
    if readout.of_spikes:
        return {"operation": table.COUNT if readout is Readout.SPIKE_COUNT else table.FIRST}
    return {"operation": READS[readout.reduction], "of_trace": readout.of_membrane}


def _joined(node: nodes.Node, before: Sequence[Layout], after: Layout) -> dict[str, Any]:
    """Return the operation of a node with several inputs, and the places that it needs."""
    if isinstance(node, nodes.Concatenate):
        ends = np.cumsum([layout.shape[node.axis] for layout in before])
        elements = np.split(np.arange(after.places.size).reshape(after.shape), ends[:-1], axis=node.axis)
        moves = np.full(sum(layout.size for layout in before), -1, np.int32)
        begins = np.cumsum([0, *(layout.size for layout in before)])
        for part, layout, begin in zip(elements, before, begins, strict=False):
            moves[begin + layout.places] = after.places[part.ravel()]
        return {"operation": table.CONCATENATE, "moves": moves}
    if isinstance(node, nodes.MatMul):
        *heads, rows, inner = before[0].shape
        sizes = {"heads": math.prod(heads), "rows": rows, "inner": inner, "columns": after.shape[-1]}
        return {"operation": table.MATMUL, "moves": np.concatenate([each.places for each in (*before, after)]), **sizes}
    return {"operation": table.MULTIPLY if isinstance(node, nodes.Multiply) else table.ADD}


def _moves(node: nodes.Moved, before: Layout, after: Layout) -> NDArray[np.int32]:
    """Return where each place of `before` lies in `after`."""
    elements = np.arange(before.places.size)
    if isinstance(node, nodes.Permute):
        elements = np.argsort(elements.reshape(before.shape).transpose(node.order).ravel())
    return after.places[elements[before.elements]]


def _by_place(values: FloatArray, layout: Layout) -> FloatArray:
    """Return a parameter at each place of a layout, or (1,) where it is one number."""
    return layout.to_rows(np.broadcast_to(values, layout.shape).reshape(-1)) if values.ndim else values.reshape(1)


def _by_step(values: FloatArray, node: nodes.Scale, layout: Layout) -> FloatArray:
    """Return a parameter at each place of a layout, one row after the other where each step has its own."""
    shape = (node.steps, *layout.shape) if node.steps is not None and values.ndim else layout.shape
    return layout.to_rows(np.broadcast_to(values, shape).reshape(-1, layout.places.size)).reshape(-1)


def _connection(node: nodes.Linear, network: Network, rule: Sum, before: Layout, after: Layout) -> dict[str, Any]:
    """Return the fields of a connection."""
    bias = network.tensor(node, "bias")
    row = after.to_rows(np.zeros(after.places.size, np.float32) if bias is None else bias)
    cost = fan_out(node, before.shape, network).ravel()
    if (cost == cost[0]).all():
        cost = cost[:1]
    elif not before.is_flat:
        cost = np.bincount(before.places, cost, before.size).astype(np.int64)
    name, narrow = f"{node.name}.weight", None
    stored = network.stored[name]
    few = FEW if isinstance(stored, Sparse) and node.weight_bits is None else FEW_BYTES  # as their price says
    sparse = few_weights(stored, few)
    if sparse is None:
        narrow = narrow_weights(rule, network.tensors[name])
    if narrow is not None:
        units = before.places.size
        weight, row = byte_tables(narrow, units, np.arange(units, dtype=np.int32), row, after)
        feed = NOTHING._replace(
            kind=GATHER, weight=weight, summed=NARROW, most=MOST_COUNTED, fan_in=units, fan_out=float(after.size)
        )
        return {**feed._asdict(), "bias": row, "cost": cost}
    if sparse is None:
        sparse = few_weights(stored, FEW)
    feed = gather_feed(network.tensors[name], after) if sparse is None else sparse_feed(sparse, after)
    feed = summed_by(rule, feed)
    bias = as_integers(row, rule.grid) if feed.summed == INTEGERS else row
    return {**feed._asdict(), "bias": bias, "cost": cost}


def _parameters(
    program: Program, values: Mapping[str, FloatArray], arrays: frozenset[str], layout: Layout
) -> FloatArray:
    """Lay out the parameters as `table` says."""
    begins = rows_at(program, arrays)
    parameters = aligned((begins + len(arrays) * layout.size,))
    numbers = [values[name] for name in scalars(program, arrays)]
    parameters[: len(numbers)] = numbers
    for k, name in enumerate(sorted(arrays)):
        parameters[begins + k * layout.size :][: layout.size] = _by_place(values[name], layout)
    return parameters


def _rest(node: nodes.Neuron, program: Program, values: Mapping[str, FloatArray], layout: Layout) -> FloatArray:
    """Lay out the states before the first step, a row for each."""
    state = at_rest(node, program, values.__getitem__, np.zeros(layout.shape, np.float32))
    rows = [layout.to_rows(np.asarray(state[name], np.float32).reshape(-1)) for name in program.states]
    return np.concatenate([*rows, NO_FLOATS])


def _recurrent(node: nodes.Neuron, network: Network, rule: Sum, layout: Layout) -> dict[str, Any]:
    if node.recurrent is None:
        return {}
    bias = network.tensor(node, "recurrent.bias")
    later = layout.to_rows(np.zeros(layout.places.size, np.float32) if bias is None else bias)
    start = later if node.recurrent.bias_at_start else np.zeros_like(later)
    biases = np.concatenate([start, later])
    own = network.tensors[f"{node.name}.recurrent.weight"]
    narrow = narrow_weights(rule, own)
    if narrow is not None:
        weight, biases = byte_tables(narrow, layout.size, layout.places, biases, layout)
        return {"recurrent_weight": weight, "recurrent_bias": biases, "recurrent_summed": NARROW}
    weight = aligned((layout.size, layout.size))
    weight[np.ix_(layout.places, layout.places)] = own.T
    by_panel, summed = panels(weight), SUMMED[rule.by]
    if summed == INTEGERS:
        by_panel, biases = as_integers(by_panel, rule.grid), as_integers(biases, rule.grid)
    grid = rule.grid if summed == INTEGERS else 1.0
    fields = {"recurrent_weight": by_panel, "recurrent_bias": biases}
    return {**fields, "recurrent_summed": summed, "recurrent_grid": grid}
