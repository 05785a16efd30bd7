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
from spikeserve.models.spec import Coding, nodes
from spikeserve.models.spec.expressions import Expression, evaluate, in_order, leaf
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.program import CURRENT, FEEDBACK, SPIKES
from spikeserve.models.spec.sums import Summation, Sums, sums_of
from spikeserve.models.spec.windows import ONE_ROW, Axis
from spikeserve.plugins.c.operations import OPERATIONS, number
from spikeserve.plugins.c.tables import Terms, floats, integers, terms

SPIKE = "uint8_t"  # the type of a spike, where a neuron fires at most once in a step


@dataclass
class Buffer:
    """An array that lives from one node to another, and shares its memory with those of its type that do not then.

    `first` and `last` are the places of these nodes. Those of nodes that are computed once a sample are below 0.
    """

    kind: str
    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Value:
    """What leaves a node in C: its type, the array that holds it, or nothing, element i, and the buffers it reads."""

    kind: str
    name: str
    element: str
    buffers: tuple[Buffer, ...] = ()


@dataclass
class Pieces:
    """What the nodes are in C.

    `fields`: what is kept from step to step, each a type, a name and a size. `buffers`: arrays that a part of a step
    needs. `tables`: constant arrays. `bodies`: each node's function by its name; nothing for one that only gives its
    input another shape. `used`: the operations of all programs. `once`: the nodes that are computed once a sample.
    """

    network: Network
    once: frozenset[str]
    fields: list[tuple[str, str, int]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    membranes: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, once: frozenset[str]) -> Pieces:
        """Write every node of a network."""
        pieces, spec, sums = cls(network, once), network.spec, sums_of(network)
        first = -len(spec.nodes) if spec.coding is Coding.DIRECT else 0
        pieces.values["input"] = pieces.add_buffer("float", "input", math.prod(spec.input.shape), first)
        for place, node in enumerate(spec.nodes):
            _Writer(pieces, node, place, sums).write()
        return pieces

    def add_field(self, kind: str, name: str, size: int) -> str:
        """Add a field of the network's struct and give its name in C."""
        self.fields.append((kind, name, size))
        return f"net->{name}"

    def add_buffer(self, kind: str, name: str, size: int, time: int) -> Value:
        """Add an array that lives from a node's time, until `read` says that it is read later."""
        self.buffers.append(Buffer(kind, name, size, time, time))
        return Value(kind, name, f"{name}[i]", (self.buffers[-1],))

    def read(self, value: Value, time: int) -> None:
        """Let a value live up to a node; for good, if a step reads what was computed once."""
        for buffer in value.buffers:
            buffer.last = len(self.network.spec.nodes) if buffer.first < 0 <= time else max(buffer.last, time)

    def shared(self) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
        """Lay out the buffers: the size of each type's array, and by a buffer's name its type and place in that."""
        sizes, places = dict[str, int](), dict[str, tuple[str, int]]()
        laid = list[tuple[Buffer, int]]()
        for buffer in sorted(self.buffers, key=lambda each: -each.size):
            beside = [
                (place, place + other.size)
                for other, place in laid
                if other.kind == buffer.kind and other.first <= buffer.last and buffer.first <= other.last
            ]
            ends = [0, *(end for _, end in beside)]
            start = min(end for end in ends if all(end >= stop or end + buffer.size <= begin for begin, stop in beside))
            laid.append((buffer, start))
            places[buffer.name] = (buffer.kind, start)
            sizes[buffer.kind] = max(sizes.get(buffer.kind, 0), start + buffer.size)
        return sizes, places


@dataclass
class _Writer:
    """Writes one node."""

    pieces: Pieces
    node: nodes.Node
    place: int
    sums: Sums
    lines: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"n{self.place}"

    @property
    def once(self) -> bool:
        """Whether it is computed once a sample, and not at each step."""
        return self.node.name in self.pieces.once

    @property
    def time(self) -> int:
        return self.place - len(self.pieces.network.spec.nodes) if self.once else self.place

    def write(self) -> None:
        """Write the node, and where it puts what leaves it."""
        spec, node = self.pieces.network.spec, self.node
        sources = [self.pieces.values[source] for source in spec.sources[node.name]]
        if isinstance(node, nodes.Flatten | nodes.Reshape) and len(sources) == 1:
            self.pieces.values[node.name] = sources[0]
            return
        for source in sources:
            self.pieces.read(source, self.time)
        x = sources[0]
        if isinstance(node, nodes.Multiply | nodes.Concatenate | nodes.MatMul):
            out = self.buffer("float", "", math.prod(self.leaving))
            self.join(node, [source.name for source in sources], out.name)
        else:
            if len(sources) > 1:
                x = Value("float", "", " + ".join(source.element for source in sources))
            if not x.name and not isinstance(node, nodes.Neuron):
                x = self.stored(x, "_in", math.prod(self.shape))
            out = self.apply(node, x)
        self.pieces.values[node.name] = out
        self.pieces.bodies[node.name] = "\n".join(self.lines)

    def buffer(self, kind: str, suffix: str, size: int) -> Value:
        return self.pieces.add_buffer(kind, f"{self.name}{suffix}", size, self.time)

    @property
    def is_read_by_a_neuron(self) -> bool:
        """Whether nothing but one layer of neurons reads what leaves, so that it may be computed there."""
        spec = self.pieces.network.spec
        readers = [node for node in spec.nodes if self.node.name in spec.sources[node.name]]
        return not self.once and len(readers) == 1 and isinstance(readers[0], nodes.Neuron)

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

    def terms(self, name: str, key: str, order: Sequence[int], *, may_split: bool = True) -> Terms:
        """Write the table of a connection's weights; its buffer of sums is `net-><name>_sum`."""
        weights = self.sums.weights
        weight, bias = weights[f"{key}.weight"], weights.get(f"{key}.bias")
        made = terms(name, self.sums[key], weight, bias, order, may_split=may_split)
        self.table(made.table)
        return made

    @singledispatchmethod
    def apply(self, node: nodes.Node, x: Value) -> Value:  # noqa: ARG002
        """Write what a node makes of `x`, and give that."""
        raise TypeError(f"no C for a {type(node).__name__}")

    @apply.register
    def _(self, node: nodes.Linear, x: Value) -> Value:
        total = self.dense("", node.name, x.name, node.in_features, node.out_features)
        return total if self.is_read_by_a_neuron else self.stored(total)

    def stored(self, value: Value, suffix: str = "", size: int | None = None) -> Value:
        """Write a value into an array, of as many elements as leave the node unless `size` says."""
        size = math.prod(self.leaving) if size is None else size
        out = self.buffer(value.kind, suffix, size)
        self.each(size, f"{out.element} = {value.element};")
        return out

    def dense(self, suffix: str, key: str, x: str, inputs: int, outputs: int, biased: str = "") -> Value:
        """Add up the rows of what is not zero; without a bias where `biased`, if it is written, is false."""
        made = self.terms(f"{self.name}{suffix}", key, (1, 0))
        sums = self.buffer(made.accumulator, f"{suffix}_sum", outputs)
        self.each(outputs, f"{sums.element} = 0;")
        self.say(
            f"for (k = 0; k < {inputs}; k++) {{",
            f"  {made.accumulator} x;",
            f"  if ({x}[k] == 0) continue;",
            f"  x = {made.factor(f'{x}[k]')};",
            *(f"  {line}" for line in made.add(sums.name, "k", outputs)),
            "}",
        )
        total = made.total(sums.element, "i")
        if biased:
            without = total.replace(f"(double){made.name}_bias[i]", "0.0").replace(f"{made.name}_bias[i]", "0.0f")
            total = f"{biased} ? {total} : {without}"
        return Value("float", "", total, sums.buffers)

    @apply.register
    def _(self, node: nodes.Conv | nodes.ConvTranspose, x: Value) -> Value:
        """Add each input that is not zero to the outputs that it reaches, for all their channels in a row.

        What is computed once needs no speed, but memory for its sums: it takes the channels one after the other.
        """
        axes = node.spread(self.shape)
        order = (1, *range(2, 2 + len(axes)), 0)
        made = self.terms(self.name, node.name, order, may_split=node.groups == 1 and not self.once)
        down, across = (ONE_ROW, *axes)[-2:]
        columns = across.outputs
        channels, own, area = node.out_channels, node.out_channels // node.groups, down.outputs * columns
        count, width, each = (area, 1, 1) if self.once else (channels * area, channels, own)
        sums = self.buffer(made.accumulator, "_sum", count)
        group = f"k / {node.in_channels // node.groups} * {own}"
        elsewhere = f" || n / {own} != k / {node.in_channels // node.groups}" if self.once and node.groups > 1 else ""
        row = f"(k % {node.in_channels // node.groups} * {down.taps} + p) * {across.taps} + q"
        self.say(*([f"for (n = 0; n < {channels}; n++) {{"] if self.once else []))
        self.each(count, f"{sums.element} = 0;")
        self.say(
            f"for (k = 0; k < {node.in_channels}; k++) for (y = 0; y < {down.inputs}; y++)",
            f"for (z = 0; z < {across.inputs}; z++) {{",
            f"  {x.kind} value = {x.name}[(k * {down.inputs} + y) * {across.inputs} + z];",
            f"  {made.accumulator} x;",
            f"  if (value == 0{elsewhere}) continue;",
            f"  x = {made.factor('value')};",
            f"  for (p = 0; p < {down.taps}; p++) {{",
            f"    int32_t row = y * {down.stride} + p * {down.hop} + {down.shift};",
            f"    if ({_misses(down, 'row')}) continue;",
            *([f"    row /= {down.every};"] if down.every > 1 else []),
            f"    for (q = 0; q < {across.taps}; q++) {{",
            f"      int32_t column = z * {across.stride} + q * {across.hop} + {across.shift};",
            f"      {made.accumulator} *sums;",
            f"      int32_t from = {row};",
            f"      if ({_misses(across, 'column')}) continue;",
            *([f"      column /= {across.every};"] if across.every > 1 else []),
            f"      sums = {sums.name} + (row * {columns} + column) * {width}{'' if self.once else f' + {group}'};",
            *(
                f"      {line}"
                for line in made.add("sums", "from", each, f"from * {channels} + {'n' if self.once else group} + i")
            ),
            "    }",
            "  }",
            "}",
        )
        if self.once:
            out = self.buffer("float", "", math.prod(self.leaving))
            self.each(area, f"{out.name}[n * {area} + i] = {made.total(sums.element, 'n')};")
            self.say("}")
            return out
        place = f"i % {area} * {channels} + i / {area}" if area > 1 else "i"
        total = made.total(f"{sums.name}[{place}]", f"i / {area}")
        value = Value("float", "", total, sums.buffers)
        return value if self.is_read_by_a_neuron else self.stored(value)

    @apply.register
    def _(self, node: nodes.Pool, x: Value) -> Value:
        down, across = (ONE_ROW, *node.spread(self.shape))[-2:]
        height, width, rows, columns = down.inputs, across.inputs, down.outputs, across.outputs
        largest = isinstance(node, nodes.MaxPool)
        out = self.buffer(x.kind if largest else "float", "", math.prod(self.leaving))
        kind = "double" if self.sums[node.name].by is Summation.FLOAT64 else "float"
        value = f"{x.name}[(k * {height} + row) * {width} + column]"
        result = "sum" if kind == "float" else "(float)sum"
        if isinstance(node, nodes.AvgPool) and node.uneven:
            self.table(floats(f"{self.name}_divisor", node.divisors(self.shape)))
            result = f"({result}) / {self.name}_divisor[y * {columns} + z]"
        elif isinstance(node, nodes.AvgPool):
            result = f"({result}) / {number(node.area)}"
        self.say(
            f"for (k = 0; k < {self.shape[0]}; k++) for (y = 0; y < {rows}; y++) for (z = 0; z < {columns}; z++) {{",
            f"  {kind} sum = {'-1.0f / 0.0f' if largest else '0'};",
            f"  for (p = 0; p < {down.taps}; p++) for (q = 0; q < {across.taps}; q++) {{",
            f"    int32_t row = y * {down.every} + p - {down.shift};",
            f"    int32_t column = z * {across.every} + q - {across.shift};",
            f"    if (row < 0 || row >= {height} || column < 0 || column >= {width}) continue;",
            f"    if ({value} > sum) sum = {value};" if largest else f"    sum += {value};",
            "  }",
            f"  {out.name}[(k * {rows} + y) * {columns} + z] = {result};",
            "}",
        )
        return out

    @apply.register
    def _(self, _: nodes.Flatten | nodes.Reshape, x: Value) -> Value:
        return x

    @apply.register
    def _(self, node: nodes.Permute, x: Value) -> Value:
        places = np.arange(math.prod(self.shape)).reshape(self.shape).transpose(node.order)
        self.table(integers(f"{self.name}_from", places))
        return self.stored(Value(x.kind, "", f"{x.name}[{self.name}_from[i]]"))

    @apply.register
    def _(self, node: nodes.Scale, x: Value) -> Value:
        scaled = f"{self.spread_parameter(node, 'scale', math.prod(self.leaving))} * {x.element}"
        offset = "" if node.offset == 0 else f" + {self.spread_parameter(node, 'offset', math.prod(self.leaving))}"
        return self.stored(Value("float", "", f"{scaled}{offset}"))

    def spread_parameter(self, node: nodes.Scale, name: str, count: int) -> str:
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
    def _(self, node: nodes.Delay, x: Value) -> Value:
        longest, count = longest_delay(self.pieces.network, node), math.prod(self.shape)
        out = self.buffer(x.kind, "", math.prod(self.leaving))
        line = self.pieces.add_field(x.kind, f"{self.name}_line", max(1, longest * count))
        slot = f"(net->steps + {longest} - DELAY) % {max(1, longest)} * {count} + i"

        def ago(delay: str) -> str:
            return f"{line}[{slot.replace('DELAY', delay)}]"

        if node.shared:
            for place, tap in enumerate(node.shared):
                self.each(count, f"{out.name}[{place * count} + i] = {ago(str(tap)) if tap else x.element};")
        else:
            delays = np.broadcast_to(self.pieces.network.parameter(node, "delay"), self.shape)
            self.table(integers(f"{self.name}_delay", delays))
            own = f"{self.name}_delay[i]"
            self.each(count, f"{out.element} = {f'{own} ? {ago(own)} : {x.element}' if longest else x.element};")
        if longest:
            self.each(count, f"{ago(str(longest))} = {x.element};")
        return out

    @apply.register
    def _(self, node: nodes.Neuron, x: Value) -> Value:
        network, program, count = self.pieces.network, program_of(node), math.prod(self.leaving)
        self.pieces.used |= {each.operation for each in in_order(program.roots)}
        known = {leaf(CURRENT): x.element}
        kind = SPIKE if isinstance(node, nodes.Spiking) and not node.several else "float"
        if node.recurrent is not None:
            spikes = self.pieces.add_field(kind, f"{self.name}_{SPIKES}", count)
            first = "net->steps > 0" if counts_steps(node) else ""
            known[leaf(FEEDBACK)] = self.dense("_loop", f"{node.name}.recurrent", spikes, count, count, first).element
            out = Value(kind, spikes, f"{spikes}[i]")
        else:
            out = self.buffer(kind, "", count)
        for state in program.states:
            values_of = self.pieces.add_field("float", f"{self.name}_state_{state}", count)
            known[leaf(state)] = f"{values_of}[i]"
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
            # A held spike is the spike itself here, so two operations of the program may be one.
            if made not in places:
                places[made] = f"a{len(places)}"
                self.say(f"  float {places[made]} = {made};")
            return places[made]

        used = in_order(program.roots)
        reads = {expression: f"r{k}" for k, expression in enumerate(known) if expression in used}
        self.say(*(f"  float {place} = {known[expression]};" for expression, place in reads.items()))
        leaving, membrane, *after = evaluate(program.roots, reads, compute)
        for state, value in zip(program.after, after, strict=True):
            self.say(f"  net->{self.name}_state_{state}[i] = {value};")
        if network.spec.readout.of_membrane and node is network.spec.readout_node:
            read = self.pieces.membranes[node.name] = self.buffer("float", "_membrane", count)
            self.say(f"  {read.element} = {membrane};")
        fired = "LEFT > 16777216.0f ? 16777216.0f : LEFT" if kind == "float" else "LEFT"  # a server refuses more
        self.say(
            f"  {out.element} = {(fired if isinstance(node, nodes.Spiking) else 'LEFT').replace('LEFT', leaving)};", "}"
        )
        return out

    def own(self, name: str, values: FloatArray) -> str:
        """Write a parameter of neuron i: a number where all have the same, else a table."""
        if (values == values.flat[0]).all():
            return number(float(values.flat[0]))
        self.table(floats(f"{self.name}_of_{name}", np.ascontiguousarray(values)))
        return f"{self.name}_of_{name}[i]"

    def join(self, node: nodes.Multiply | nodes.Concatenate | nodes.MatMul, sources: list[str], out: str) -> None:
        spec, count = self.pieces.network.spec, math.prod(self.leaving)
        shapes = [spec.output_shapes[source] for source in spec.sources[node.name]]
        if isinstance(node, nodes.Multiply):
            self.each(count, f"{out}[i] = {' * '.join(f'{source}[i]' for source in sources)};")
        elif isinstance(node, nodes.MatMul):
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


def _misses(axis: Axis, place: str) -> str:
    """Write whether a place along an axis, times its `every`, is no output."""
    beyond = f"{place} < 0 || {place} >= {axis.outputs * axis.every}"
    return beyond if axis.every == 1 else f"{beyond} || {place} % {axis.every}"
