"""What it takes to load a model: memory and operations, reckoned from its spec before anything of that size is made.

A spec of a kilobyte can call for terabytes: a padding of 20000 around one value, a pool over all of it. So a bundle is
priced first, from whole numbers alone, and refused by a sentence where it is over the limits.

A price is what any engine takes at least, within a factor of two or so: enough to refuse what cannot be loaded. What a
load then really takes, in memory and time, is watched while it runs (`service.catalog.fork_server`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Self

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import nodes
from spikeserve.models.spec.neuron_parameters import ROWS
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.models.spec.sparse import FEW, FEW_BYTES
from spikeserve.models.spec.spec import INPUT, Spec

WEIGHT = 16  # bytes of a weight: in the file, in the network, as it counts in sums, and in the engine's table
STORED_WEIGHT = 48  # bytes of a sparse weight: a value and its place in the same, and what is made for the table
NARROW_WEIGHT = 10  # the same of a weight of few bits, which is a byte in the file and in the event engine's table
PLACE = 32  # bytes of a value's place in the tables of a layer, and of a connection that meets it
PARAMETER = 5  # bytes of a neuron's parameter: a float, which is compared with its neighbours'
SIGNAL = 12  # bytes of a value at each step: an index, a value, and a float of a row
FLOAT = 4
RING = 8 * 16  # bytes of as many sums as channels are padded to, in the lines of outputs that one of an image reaches
PAIR = 64  # bytes of a (place, window) pair, as Python's lists hold it while tables are made
INTERPRETED = 100  # operations of a kernel that one of the interpreter's takes as long as


@dataclass(frozen=True)
class LoadLimits:
    """The most bytes and operations that a model may take to be loaded and verified."""

    model_bytes: int = 8 * 2**30
    operations: int = 10**13


@dataclass(frozen=True)
class NodePrice:
    """What one node takes; `about` names what makes it large.

    In bytes: `tables` once, `per_step` for each step of a sample, `carried` for each sample. In operations: `making`
    the tables, and `running` one step of a sample in which every input and neuron fires.
    """

    name: str
    about: str
    tables: int = 0
    per_step: int = 0
    carried: int = 0
    making: int = 0
    running: int = 0


@dataclass(frozen=True)
class Price:
    """What a model takes to be loaded, node by node; one sample is run at a time, for `time_steps`."""

    nodes: tuple[NodePrice, ...]
    time_steps: int

    @classmethod
    def of(cls, spec: Spec, longest: Mapping[str, int] | None = None, *, dense: bool = False) -> Self:
        """Return the price of a model. `longest` is the longest delay of each Delay whose tensor says it.

        `dense`: on an engine that makes sparse weights dense.
        """
        return cls(tuple(_nodes(spec, longest or {}, dense)), spec.time_steps)

    def at_once(self, most: int) -> int:
        """Return how many samples have signals of at most so many bytes, or 1; a run takes a few times that."""
        return max(1, most // (self.time_steps * sum(node.per_step for node in self.nodes)))

    def bytes_of(self, node: NodePrice, samples: int) -> int:
        """Return the bytes that a node takes while so many samples are verified."""
        return node.tables + self.time_steps * node.per_step + samples * node.carried

    def operations_of(self, node: NodePrice, samples: int) -> int:
        """Return the operations that a node takes for so many samples."""
        return node.making + samples * self.time_steps * node.running

    def check(self, limits: LoadLimits, samples: int = 1) -> None:
        """Raise InvalidSpec, which names the node that takes most, if verifying so many samples is over a limit."""
        for what, most, limit, taken in (
            ("bytes of memory", limits.model_bytes, "max_model_bytes", self.bytes_of),
            ("operations", limits.operations, "the limit of a load", self.operations_of),
        ):
            each = {node: taken(node, samples) for node in self.nodes}
            if (total := sum(each.values())) > most:
                worst = max(each, key=lambda node: each[node])
                raise InvalidSpec(
                    f"node '{worst.name}': {worst.about} takes {each[worst]} of the {total} {what} that loading the "
                    f"model takes, expected at most {most} in all ({limit})"
                )


def _nodes(spec: Spec, longest: Mapping[str, int], dense: bool) -> Iterator[NodePrice]:
    """Yield the price of each node of a model."""
    values, bits = math.prod(spec.input.arriving), spec.weight_bits
    yield NodePrice(INPUT, f"its shape of {show(spec.input.arriving)}", tables=PLACE * values, per_step=SIGNAL * values)
    for node in spec.nodes:
        before, after = spec.input_shapes[node.name], spec.output_shapes[node.name]
        own = _own(node, before, after, longest)
        sources = spec.sources[node.name]
        values, joins = math.prod(after), (len(sources) - 1) * math.prod(before)
        sizes = {f"{node.name}.{name}": math.prod(shape) for name, shape in node.tensor_shapes(before).items()}
        weight_bytes = sum(
            _stored_bytes(size, NARROW_WEIGHT if bits.get(name) else WEIGHT, spec.nonzero.get(name), dense)
            for name, size in sizes.items()
        )
        weights = sum(spec.nonzero.get(name, size) for name, size in sizes.items())
        if isinstance(node, nodes.JoinBase):
            joins += node.products([spec.output_shapes[name] for name in sources])
        yield NodePrice(
            node.name,
            _about(own.about, weights, joins, before, after, len(sources)),
            tables=own.tables + weight_bytes + PLACE * values,
            per_step=own.per_step + SIGNAL * values,
            carried=own.carried,
            making=own.making + weights,
            running=own.running + values + joins,
        )


def _stored_bytes(size: int, each: int, stored: int | None, dense: bool) -> int:
    """Return the bytes of a tensor of so many values of `each` bytes; if some are `stored`, of these or of both."""
    if stored is None:
        return size * each
    rows = dense or stored > size * (FEW if each == WEIGHT else FEW_BYTES)  # in which the event engine adds them too
    return stored * STORED_WEIGHT + size * each * rows


def _about(own: str, weights: int, joins: int, before: Shape, after: Shape, sources: int) -> str:
    """Name what a node's price comes from; `own` names what only nodes of its type have."""
    shapes = f"its input of {show(before)} and output of {show(after)}"
    if weights > math.prod(before) + math.prod(after):
        return f"with {shapes} and its {weights} parameters it"
    if own:
        return f"with {shapes} and {own} it"
    return f"with {shapes}, to which {sources} are joined, it" if joins else f"with {shapes} it"


@singledispatch
def _own(node: nodes.Node, before: Shape, after: Shape, longest: Mapping[str, int]) -> NodePrice:
    """Return the cost of a node beside its weights, its output and the sum of its inputs."""
    del before, after, longest
    return NodePrice(node.name, "")


@_own.register
def _(node: nodes.Linear, before: Shape, after: Shape, _: Mapping[str, int]) -> NodePrice:
    return NodePrice(node.name, "", running=node.nonzero or math.prod(before) * math.prod(after))


@_own.register
def _(node: nodes.Conv | nodes.ConvTranspose, before: Shape, after: Shape, _: Mapping[str, int]) -> NodePrice:
    axes, sends = node.spread(before), isinstance(node, nodes.ConvTranspose)
    across, channels = axes[-1], after[0] if sends else before[0]
    # Positions that one line of taps reaches are neighbours, so that only those of the last axis are listed.
    listed = across.inputs * across.taps if sends else min(across.taps, across.inputs) * across.outputs
    met = math.prod(before) * after[0] if sends else math.prod(after) * before[0]
    spans = [(axis.taps - 1) * abs(axis.hop) // axis.every + 1 for axis in axes]
    ring = math.prod(min(axis.outputs, span) + 1 for axis, span in zip(axes[:-1], spans, strict=False))
    ring *= -(-after[0] // 16) * (across.outputs + 2 * spans[-1])
    return NodePrice(
        node.name,
        "",
        tables=PLACE * math.prod(before) + PAIR * math.prod(before[1:-1]) * listed + RING * ring,
        per_step=FLOAT * channels * math.prod(axis.room for axis in axes),
        making=INTERPRETED * sum((axis.inputs + (0 if sends else axis.outputs)) * axis.taps for axis in axes),
        running=met * math.prod(axis.taps for axis in axes) // node.groups,
    )


@_own.register
def _(node: nodes.Pool, before: Shape, after: Shape, _: Mapping[str, int]) -> NodePrice:
    axes = node.spread(before)
    covered = math.prod(min(axis.taps, axis.inputs) * axis.outputs for axis in axes)
    overlaps = math.prod(-(-axis.taps // axis.every) for axis in axes)
    counted = math.prod(before) * min(overlaps, math.prod(after[1:]))
    return NodePrice(
        node.name,
        "",
        tables=PAIR * covered + FLOAT * counted,
        per_step=FLOAT * before[0] * math.prod(axis.room for axis in axes) + 2 * FLOAT * counted,
        making=INTERPRETED * covered,
        running=after[0] * covered,
    )


@_own.register
def _(node: nodes.Neuron, before: Shape, _: Shape, __: Mapping[str, int]) -> NodePrice:
    neurons = math.prod(before)
    recurrent = neurons * neurons if isinstance(node, nodes.Spiking) and node.recurrent is not None else 0
    about, parameters, states, operations = "", len(ROWS), 1, 0
    if isinstance(node, nodes.ProgramBase):
        program = node.read_program
        parameters, states, operations = len(program.parameters), len(program.states), program.operations
        about = f"the {operations} operations of its program"
    return NodePrice(
        node.name,
        about,
        tables=PARAMETER * parameters * neurons,
        carried=FLOAT * states * neurons,
        running=recurrent + operations * neurons,
    )


@_own.register
def _(node: nodes.Delay, before: Shape, _: Shape, longest: Mapping[str, int]) -> NodePrice:
    delay = max(node.shared, default=longest.get(node.name, 0))
    return NodePrice(node.name, "", carried=FLOAT * delay * math.prod(before))
