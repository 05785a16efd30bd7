"""Each node as C: what it computes at a step, from the buffers of the nodes before it into one of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod
from itertools import accumulate

import numpy as np

from spikeserve.models.engines.state import longest_delay
from spikeserve.models.neurons import counts_steps, program_of
from spikeserve.models.spec.expressions import Expression, evaluate, in_order, leaf
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import (
    AvgPool,
    Concatenate,
    Conv,
    ConvTranspose,
    Delay,
    Flatten,
    Linear,
    MatMul,
    MaxPool,
    Multiply,
    Neuron,
    Node,
    Permute,
    Pool,
    Reshape,
    Scale,
    Spread,
    Window,
)
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.program import CURRENT, FEEDBACK, SPIKES
from spikeserve.models.spec.sums import Summation, Sums, sums_of
from spikeserve.training.targets.c.operations import OPERATIONS, number
from spikeserve.training.targets.c.tables import Terms, floats, integers, terms

INPUT = "net->input"


@dataclass
class Pieces:
    """What the nodes are in C.

    `fields`: the buffers and states, each a type, a name and a size. `tables`: constant arrays. `bodies`: each node's
    function by its name; nothing for one that only gives its input another shape. `states`: the field of each array of
    the state. `used`: the operations of all programs.
    """

    network: Network
    fields: list[tuple[str, str, int]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    membranes: dict[str, str] = field(default_factory=dict)
    buffers: dict[str, str] = field(default_factory=lambda: {"input": INPUT})

    @classmethod
    def of(cls, network: Network) -> Pieces:
        """Write every node of a network."""
        pieces = cls(network)
        pieces.add_field("float", "input", math.prod(network.spec.input.shape))
        for place, node in enumerate(network.spec.nodes):
            _Writer(pieces, node, f"n{place}", sums_of(network)).write()
        return pieces

    def add_field(self, kind: str, name: str, size: int) -> str:
        """Add a field of the network's struct and give its name in C."""
        self.fields.append((kind, name, size))
        return f"net->{name}"


@dataclass
class _Writer:
    """Writes one node."""

    pieces: Pieces
    node: Node
    name: str
    sums: Sums
    lines: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Write the node, and where it puts what leaves it."""
        spec, node = self.pieces.network.spec, self.node
        sources = [self.pieces.buffers[source] for source in spec.sources[node.name]]
        if isinstance(node, Flatten | Reshape) and len(sources) == 1:
            self.pieces.buffers[node.name] = sources[0]
            return
        shape, leaving = spec.input_shapes[node.name], spec.output_shapes[node.name]
        out = self.pieces.add_field("float", self.name, math.prod(leaving))
        if isinstance(node, Multiply | Concatenate | MatMul):
            self.join(node, sources, out)
        else:
            x = sources[0]
            if len(sources) > 1:
                x = self.pieces.add_field("float", f"{self.name}_in", math.prod(shape))
                self.each(math.prod(shape), f"{x}[i] = {' + '.join(f'{source}[i]' for source in sources)};")
            self.apply(node, x, out)
        self.pieces.buffers[node.name] = out
        self.pieces.bodies[node.name] = "\n".join(self.lines)

    def say(self, *lines: str) -> None:
        self.lines += [f"  {line}" for line in lines]

    def each(self, count: int, statement: str) -> None:
        """Write a statement for every i below a count."""
        self.say(f"for (i = 0; i < {count}; i++) {statement}")

    def table(self, text: str) -> None:
        self.pieces.tables.append(text)

    @property
    def shape(self) -> Shape:
        return self.pieces.network.spec.input_shapes[self.node.name]

    @property
    def leaving(self) -> Shape:
        return self.pieces.network.spec.output_shapes[self.node.name]

    def terms(self, name: str, key: str, order: Sequence[int]) -> Terms:
        """Write the table of a connection's weights; its buffer of sums is `net-><name>_sum`."""
        weights = self.sums.weights
        weight, bias = weights[f"{key}.weight"], weights.get(f"{key}.bias")
        groups = getattr(self.node, "groups", 1)
        made = terms(name, self.sums[key], weight, bias, order, may_split=groups == 1)
        self.table(made.table)
        return made

    def start_sums(self, made: Terms, count: int) -> str:
        summed = self.pieces.add_field(made.accumulator, f"{made.name}_sum", count)
        self.each(count, f"{summed}[i] = 0;")
        return summed

    @singledispatchmethod
    def apply(self, node: Node, x: str, out: str) -> None:  # noqa: ARG002
        """Write what a node makes of `x`, one buffer, in its own."""
        raise TypeError(f"no C for a {type(node).__name__}")

    @apply.register
    def _(self, node: Linear, x: str, out: str) -> None:
        self.dense(self.name, node.name, x, node.in_features, node.out_features, out)

    def dense(self, name: str, key: str, x: str, inputs: int, outputs: int, out: str, biased: str = "") -> None:
        """Add up the rows of what is not zero; without a bias where `biased`, if it is written, is false."""
        made = self.terms(name, key, (1, 0))
        summed = self.start_sums(made, outputs)
        self.say(
            f"for (k = 0; k < {inputs}; k++) {{",
            f"  {made.accumulator} x;",
            f"  if ({x}[k] == 0.0f) continue;",
            f"  x = {made.factor(f'{x}[k]')};",
            *(f"  {line}" for line in made.add(summed, "k", outputs)),
            "}",
        )
        total = made.total(f"{summed}[i]", "i")
        if biased:
            without = total.replace(f"(double){made.name}_bias[i]", "0.0").replace(f"{made.name}_bias[i]", "0.0f")
            total = f"{biased} ? {total} : {without}"
        self.each(outputs, f"{out}[i] = {total};")

    @apply.register
    def _(self, node: Conv, x: str, out: str) -> None:
        self.spread(node, x, out, [_Reach.of_window(window) for window in node.windows])

    @apply.register
    def _(self, node: ConvTranspose, x: str, out: str) -> None:
        self.spread(node, x, out, [_Reach.of_spread(window) for window in node.windows])

    def spread(self, node: Conv | ConvTranspose, x: str, out: str, reaches: list[_Reach]) -> None:
        """Add each input that is not zero to the outputs that it reaches, for all their channels in a row."""
        made = self.terms(self.name, node.name, (1, *range(2, 2 + len(reaches)), 0))
        height, width = (1, *self.shape[1:])[-2:]
        rows, columns = (1, *self.leaving[1:])[-2:]
        down, across = (_Reach(1, 1, 1, 0, 1), *reaches)[-2:]
        channels, own = node.out_channels, node.out_channels // node.groups
        count = channels * rows * columns
        summed = self.start_sums(made, count)
        group = f"k / {node.in_channels // node.groups} * {own}"
        row = f"(k % {node.in_channels // node.groups} * {down.taps} + p) * {across.taps} + q"
        self.say(
            f"for (k = 0; k < {node.in_channels}; k++) for (y = 0; y < {height}; y++) for (z = 0; z < {width}; z++) {{",
            f"  float value = {x}[(k * {height} + y) * {width} + z];",
            f"  {made.accumulator} x;",
            "  if (value == 0.0f) continue;",
            f"  x = {made.factor('value')};",
            f"  for (p = 0; p < {down.taps}; p++) {{",
            f"    int32_t row = {down.output('y', 'p')};",
            f"    if ({down.misses('row', rows)}) continue;",
            *([f"    row /= {down.every};"] if down.every > 1 else []),
            f"    for (q = 0; q < {across.taps}; q++) {{",
            f"      int32_t column = {across.output('z', 'q')};",
            f"      {made.accumulator} *sums;",
            f"      int32_t from = {row};",
            f"      if ({across.misses('column', columns)}) continue;",
            *([f"      column /= {across.every};"] if across.every > 1 else []),
            f"      sums = {summed} + (row * {columns} + column) * {channels} + {group};",
            *(f"      {line}" for line in made.add("sums", "from", own, f"from * {channels} + {group} + i")),
            "    }",
            "  }",
            "}",
            f"for (k = 0; k < {channels}; k++) for (i = 0; i < {rows * columns}; i++)",
            f"  {out}[k * {rows * columns} + i] = {made.total(f'{summed}[i * {channels} + k]', 'k')};",
        )

    @apply.register
    def _(self, node: Pool, x: str, out: str) -> None:
        down, across = (Window(1), *node.fitted(self.shape))[-2:]
        height, width = (1, *self.shape[1:])[-2:]
        rows, columns = (1, *self.leaving[1:])[-2:]
        largest = isinstance(node, MaxPool)
        kind = "double" if self.sums[node.name].by is Summation.FLOAT64 else "float"
        value = f"{x}[(k * {height} + row) * {width} + column]"
        result = "sum" if kind == "float" else "(float)sum"
        if isinstance(node, AvgPool) and node.uneven:
            self.table(floats(f"{self.name}_divisor", node.divisors(self.shape)))
            result = f"({result}) / {self.name}_divisor[y * {columns} + z]"
        elif isinstance(node, AvgPool):
            result = f"({result}) / {number(node.area)}"
        self.say(
            f"for (k = 0; k < {self.shape[0]}; k++) for (y = 0; y < {rows}; y++) for (z = 0; z < {columns}; z++) {{",
            f"  {kind} sum = {'-1.0f / 0.0f' if largest else '0'};",
            f"  for (p = 0; p < {down.extent}; p++) for (q = 0; q < {across.extent}; q++) {{",
            f"    int32_t row = y * {down.stride} + p - {down.before};",
            f"    int32_t column = z * {across.stride} + q - {across.before};",
            f"    if (row < 0 || row >= {height} || column < 0 || column >= {width}) continue;",
            f"    if ({value} > sum) sum = {value};" if largest else f"    sum += {value};",
            "  }",
            f"  {out}[(k * {rows} + y) * {columns} + z] = {result};",
            "}",
        )

    @apply.register
    def _(self, _: Flatten | Reshape, x: str, out: str) -> None:
        self.each(math.prod(self.leaving), f"{out}[i] = {x}[i];")

    @apply.register
    def _(self, node: Permute, x: str, out: str) -> None:
        places = np.arange(math.prod(self.shape)).reshape(self.shape).transpose(node.order)
        self.table(integers(f"{self.name}_from", places))
        self.each(places.size, f"{out}[i] = {x}[{self.name}_from[i]];")

    @apply.register
    def _(self, node: Scale, x: str, out: str) -> None:
        count = math.prod(self.leaving)
        scaled = f"{self.spread_parameter(node, 'scale', count)} * {x}[i]"
        offset = "" if node.offset == 0 else f" + {self.spread_parameter(node, 'offset', count)}"
        self.each(count, f"{out}[i] = {scaled}{offset};")

    def spread_parameter(self, node: Scale, name: str, count: int) -> str:
        """Write one parameter of a Scale at element i, from a table of as few values as it has."""
        values = self.pieces.network.parameter(node, name)
        if values.ndim == 0:
            return number(float(values))
        self.table(floats(f"{self.name}_{name}", values))
        own = values.size // node.steps if node.steps else values.size
        place = "i" if own == count else f"i / {count // own}"
        if node.steps:
            place = f"net->steps * {own} + {place}"
        return f"{self.name}_{name}[{place}]"

    @apply.register
    def _(self, node: Delay, x: str, out: str) -> None:
        longest, count = longest_delay(self.pieces.network, node), math.prod(self.shape)
        line = self.pieces.add_field("float", f"{self.name}_line", max(1, longest * count))
        self.pieces.states[f"{node.name}.line"] = f"{self.name}_line"
        slot = f"(net->steps + {longest} - DELAY) % {max(1, longest)} * {count} + i"

        def ago(delay: str) -> str:
            return f"{line}[{slot.replace('DELAY', delay)}]"

        if node.shared:
            for place, tap in enumerate(node.shared):
                self.each(count, f"{out}[{place * count} + i] = {ago(str(tap)) if tap else f'{x}[i]'};")
        else:
            delays = np.broadcast_to(self.pieces.network.parameter(node, "delay"), self.shape)
            self.table(integers(f"{self.name}_delay", delays))
            own = f"{self.name}_delay[i]"
            self.each(count, f"{out}[i] = {own} ? {ago(own)} : {x}[i];" if longest else f"{out}[i] = {x}[i];")
        if longest:
            self.each(count, f"{ago(str(longest))} = {x}[i];")

    @apply.register
    def _(self, node: Neuron, x: str, out: str) -> None:
        network, program, count = self.pieces.network, program_of(node), math.prod(self.leaving)
        self.pieces.used |= {each.operation for each in in_order(program.roots)}
        known = {leaf(CURRENT): f"{x}[i]"}
        if node.recurrent is not None:
            spikes = self.pieces.add_field("float", f"{self.name}_{SPIKES}", count)
            feedback = self.pieces.add_field("float", f"{self.name}_feedback", count)
            self.pieces.states[f"{node.name}.{SPIKES}"] = f"{self.name}_{SPIKES}"
            first = "net->steps > 0" if counts_steps(node) else ""
            self.dense(f"{self.name}_loop", f"{node.name}.recurrent", spikes, count, count, feedback, first)
            known[leaf(FEEDBACK)] = f"{feedback}[i]"
        for state in program.states:
            held = self.pieces.add_field("float", f"{self.name}_state_{state}", count)
            self.pieces.states[f"{node.name}.{state}"] = f"{self.name}_state_{state}"
            known[leaf(state)] = f"{held}[i]"
        for parameter in program.parameters:
            values = network.parameter(node, parameter)
            known[leaf(parameter)] = self.own(parameter, np.broadcast_to(values, self.leaving))
        for state, start in program.starts.items():
            # As a sum with 0, so that no state begins at -0.
            value = f"0.0f + {known[start]}" if start in known else number(float(start.detail or 0.0))
            self.pieces.starts.append(f"for (i = 0; i < {count}; i++) net->{self.name}_state_{state}[i] = {value};")
        self.say(f"for (i = 0; i < {count}; i++) {{")
        places: dict[str, str] = {}

        def compute(each: Expression, operands: Sequence[str]) -> str:
            operation = each.operation
            if operation == "constant":
                return number(float(each.detail or 0.0))
            made = OPERATIONS[operation](*operands)
            if operation == "hold":
                return made
            place = places.setdefault(made, f"a{len(places)}")
            self.say(f"  float {place} = {made};")
            return place

        used = in_order(program.roots)
        reads = {expression: f"r{k}" for k, expression in enumerate(known) if expression in used}
        self.say(*(f"  float {place} = {known[expression]};" for expression, place in reads.items()))
        leaving, membrane, *after = evaluate(program.roots, reads, compute)
        self.say(
            *(
                f"  net->{self.name}_state_{state}[i] = {value};"
                for state, value in zip(program.after, after, strict=True)
            )
        )
        if node.recurrent is not None:
            self.say(f"  net->{self.name}_{SPIKES}[i] = {leaving};")
        if self.pieces.network.spec.readout.of_membrane and node is self.pieces.network.spec.readout_node:
            self.pieces.membranes[node.name] = self.pieces.add_field("float", f"{self.name}_membrane", count)
            self.say(f"  net->{self.name}_membrane[i] = {membrane};")
        self.say(f"  {out}[i] = {leaving};", "}")

    def own(self, name: str, values: FloatArray) -> str:
        """Write a parameter of neuron i: a number where all have the same, else a table."""
        if (values == values.flat[0]).all():
            return number(float(values.flat[0]))
        self.table(floats(f"{self.name}_of_{name}", np.ascontiguousarray(values)))
        return f"{self.name}_of_{name}[i]"

    def join(self, node: Multiply | Concatenate | MatMul, sources: list[str], out: str) -> None:
        spec, count = self.pieces.network.spec, math.prod(self.leaving)
        shapes = [spec.output_shapes[source] for source in spec.sources[node.name]]
        if isinstance(node, Multiply):
            self.each(count, f"{out}[i] = {' * '.join(f'{source}[i]' for source in sources)};")
        elif isinstance(node, MatMul):
            (*_, rows, inner), columns = shapes[0], shapes[1][-1]
            self.say(
                f"for (k = 0; k < {count // columns}; k++) for (i = 0; i < {columns}; i++) {{",
                "  double sum = 0;",
                f"  for (p = 0; p < {inner}; p++) {{",
                f"    double product = (double){sources[0]}[k * {inner} + p] * "
                f"{sources[1]}[(k / {rows} * {inner} + p) * {columns} + i];",
                "    sum += product;",
                "  }",
                f"  {out}[k * {columns} + i] = (float)sum;",
                "}",
            )
        else:
            outer, inner = math.prod(shapes[0][: node.axis]), math.prod(shapes[0][node.axis + 1 :])
            widths = [shape[node.axis] * inner for shape in shapes]
            for source, width, before in zip(sources, widths, accumulate(widths, initial=0), strict=False):
                self.say(
                    f"for (k = 0; k < {outer}; k++) for (i = 0; i < {width}; i++)",
                    f"  {out}[k * {sum(widths)} + {before} + i] = {source}[k * {width} + i];",
                )


@dataclass(frozen=True)
class _Reach:
    """Along one axis, input i reaches by tap k output (i * stride + k * dilation + shift) / every, if that is whole."""

    taps: int
    stride: int
    dilation: int
    shift: int
    every: int

    @classmethod
    def of_window(cls, window: Window) -> _Reach:
        return cls(window.extent, 1, -window.dilation, window.before, window.stride)

    @classmethod
    def of_spread(cls, window: Spread) -> _Reach:
        return cls(window.extent, window.stride, window.dilation, -window.padding, 1)

    def output(self, place: str, tap: str) -> str:
        return f"{place} * {self.stride} + {tap} * {self.dilation} + {self.shift}"

    def misses(self, output: str, count: int) -> str:
        beyond = f"{output} < 0 || {output} >= {count * self.every}"
        return beyond if self.every == 1 else f"{beyond} || {output} % {self.every}"
