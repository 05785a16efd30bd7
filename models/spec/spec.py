"""The spec: a spiking network as data. It is validated completely when it is read: a spec that loads can run.

A network is a list of named nodes. A node's `inputs` default to the previous node; several inputs are summed in order,
unless the node is one that joins them in another way (`models.spec.joins`). So a plain stack is just a list, and a
residual network needs no other format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec.input import Input
from spikeserve.models.spec.nodes import Flatten, Linear, Neuron, Node, Reshape, Scale, Spiking, Weighted
from spikeserve.models.spec.parameters import MAX_STEPS, FrozenModel, Positive32, Shape, WeightBits, show
from spikeserve.models.spec.readouts import Readout, Scores

INPUT = "input"
MAX_EDGES = 20_000  # of a network; the densest of a hundred layers, each of which joins all before it, has 5,000
MAX_VALUES = 2**31 - 1  # of one layer's output in a step: engines number them by 32 bits

Value = TypeVar("Value")


class Coding(StrEnum):
    """How a sample is encoded as the network's input at each step."""

    DIRECT = "direct"
    RATE = "rate"
    LATENCY = "latency"
    SPIKES = "spikes"
    CURRENT = "current"

    @property
    def per_step(self) -> bool:
        """Whether a sample has a value for each step, (time_steps, *shape), so that it sets the number of steps."""
        return self in (Coding.SPIKES, Coding.CURRENT)


class Spec(FrozenModel):
    """A network: its input, coding, time steps, nodes in order, and readout; its classes, or the values it gives.

    `labels` are the names of the classes, or of the values where `scores` is `values`; `units` are theirs, in the same
    order, and "" stands for none.
    """

    input: Input
    coding: Coding = Coding.DIRECT
    time_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    labels: Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...], Field(min_length=1)]
    scores: Scores = Scores.SOFTMAX
    units: tuple[Annotated[str, StringConstraints(max_length=64)], ...] | None = None
    schema_version: Literal[1] = 1
    dt: Positive32 | None = Field(default=None, description="Seconds per step, where known.")
    nodes: Annotated[tuple[Node, ...], Field(min_length=1, max_length=1000)]
    readout: Readout = Readout.SPIKE_COUNT

    @classmethod
    def read(cls, data: str | bytes | Mapping[str, Any]) -> Self:
        """Validate JSON text or its parsed form; raises InvalidSpec with one sentence on the first error."""
        read = cls.model_validate_json if isinstance(data, str | bytes) else cls.model_validate
        return validated(InvalidSpec, "the spec is invalid", read, data)

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        self._check_units()
        self._check_names()
        self._check_sizes()
        self._check_output(self.output_shapes[self.nodes[-1].name])
        self._check_coding()
        self.check_steps(self.time_steps)
        return self

    def _check_units(self) -> None:
        if self.units is not None and self.scores.has_classes:
            raise InvalidSpec(f"units: {list(self.units)} given, but scores is '{self.scores}', which has none")
        if self.units is not None and len(self.units) != self.classes:
            raise InvalidSpec(f"units: {len(self.units)} given, expected one for each of the {self.classes} labels")

    def _check_coding(self) -> None:
        if self.input.events is not None:
            if self.coding is not Coding.SPIKES:
                raise InvalidSpec(f"input: has events, but coding is '{self.coding}', expected '{Coding.SPIKES}'")
            self.input.events.check_dt(self.dt)
        low, high = self.input.normalised_range
        if self.coding in (Coding.RATE, Coding.LATENCY) and not (low >= 0.0 and high <= 1.0):
            raise InvalidSpec(
                f"input: coding '{self.coding}' needs normalised values from 0 to 1, "
                f"but they go from {low:g} to {high:g}"
            )
        if self.input.by_deviation and self.coding is not Coding.CURRENT:
            raise InvalidSpec(f"input: by_deviation is true with coding '{self.coding}', expected 'current'")

    def _check_names(self) -> None:
        names = [INPUT, *(node.name for node in self.nodes)]
        for name in names:
            if names.count(name) > 1:
                raise InvalidSpec(f"node '{name}': another node, or the network's input, has that name already")
        seen = {INPUT}
        for node in self.nodes:
            for source in self.sources[node.name]:
                if source not in seen:
                    raise InvalidSpec(f"node '{node.name}': input '{source}' is not the name of an earlier node")
            seen.add(node.name)
        if unused := seen.difference([self.nodes[-1].name], *self.sources.values()):
            raise InvalidSpec(f"node '{min(unused)}': nothing takes its output, and it is not the last node")

    def _check_sizes(self) -> None:
        edges = 0
        for node in self.nodes:
            edges += len(self.sources[node.name])
            if edges > MAX_EDGES:
                raise InvalidSpec(
                    f"node '{node.name}': with its {len(self.sources[node.name])} inputs the network has more than "
                    f"{MAX_EDGES} edges"
                )
        for name, shape in self.output_shapes.items():
            if math.prod(shape) > MAX_VALUES:
                raise InvalidSpec(
                    f"node '{name}': its output has shape {show(shape)}, {math.prod(shape)} values, expected at most "
                    f"{MAX_VALUES}"
                )

    def _check_output(self, shape: Shape) -> None:
        last, read = self.nodes[-1], self.readout_node
        if self.readout.of_spikes and not isinstance(read, Spiking):
            raise InvalidSpec(
                f"node '{read.name}': readout '{self.readout}' needs a spiking last node, not {read.type}"
            )
        if self.readout.of_membrane and not isinstance(read, Neuron):
            raise InvalidSpec(
                f"node '{read.name}': readout '{self.readout}' needs a neuron as the last node, not {read.type}; "
                f"'{self.readout.reduction}' reads any node's output"
            )
        if math.prod(shape) != self.classes:
            raise InvalidSpec(
                f"node '{last.name}': its output has shape {show(shape)}, but there are {len(self.labels)} labels"
            )

    @property
    def classes(self) -> int:
        """The number of classes, or of values."""
        return len(self.labels)

    @cached_property
    def readout_node(self) -> Node:
        """The node that the answer is read from: the last, or the one before each Flatten and Reshape at the end.

        Its output has one value for each class, in any shape: it is read flat, which neither of them changes.
        """
        by_name = {node.name: node for node in self.nodes}
        node = self.nodes[-1]
        while isinstance(node, Flatten | Reshape):
            first, *others = self.sources[node.name]
            if others or first == INPUT:
                break
            node = by_name[first]
        return node

    @cached_property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The names whose outputs are joined into each node's input, in order."""
        before = (INPUT, *(node.name for node in self.nodes))
        return {node.name: node.inputs or (default,) for node, default in zip(self.nodes, before, strict=False)}

    @cached_property
    def input_shapes(self) -> dict[str, Shape]:
        """The shape of each node's input, for one step of one sample."""
        return self._shapes[0]

    @cached_property
    def output_shapes(self) -> dict[str, Shape]:
        """The shape of each node's output, and of 'input', for one step of one sample."""
        return self._shapes[1]

    @cached_property
    def _shapes(self) -> tuple[dict[str, Shape], dict[str, Shape]]:
        entering: dict[str, Shape] = {}
        leaving: dict[str, Shape] = {INPUT: self.input.arriving}
        for node in self.nodes:
            entering[node.name] = node.joined_shape([(name, leaving[name]) for name in self.sources[node.name]])
            leaving[node.name] = node.output_shape(entering[node.name])
        return entering, leaving

    @property
    def read_whole(self) -> str:
        """Why a sample has to be read whole, and cannot go on in another run; empty where it need not."""
        if self.coding is Coding.LATENCY:
            return "coding 'latency', whose spikes lie in a run of a known length"
        return "an input that is divided by each whole sample's deviation" if self.input.by_deviation else ""

    @property
    def tensor_shapes(self) -> dict[str, Shape]:
        """Every tensor that the network needs, "<node>.<parameter>" to shape."""
        return {
            f"{node.name}.{parameter}": shape
            for node in self.nodes
            for parameter, shape in node.tensor_shapes(self.input_shapes[node.name]).items()
        }

    @property
    def weight_bits(self) -> dict[str, WeightBits]:
        """The bits of each connection's weights by the name of their tensor; None where they are float32."""
        bits = {f"{node.name}.weight": node.weight_bits for node in self.nodes if isinstance(node, Weighted)}
        loops = {node.name: node.recurrent for node in self.nodes if isinstance(node, Neuron)}
        return bits | {f"{name}.recurrent.weight": loop.weight_bits for name, loop in loops.items() if loop}

    @property
    def nonzero(self) -> dict[str, int]:
        """How many weights are stored of each Linear that says so, by the name of their tensor."""
        linear = (node for node in self.nodes if isinstance(node, Linear))
        return {f"{node.name}.weight": node.nonzero for node in linear if node.nonzero is not None}

    def with_weight_bits(self, bits: Mapping[str, WeightBits]) -> Self:
        """Copy it with other bits of weights, by the names of their tensors; those that are not named are float32."""
        nodes: list[Node] = []
        for node in self.nodes:
            changed: dict[str, Any] = {}
            if isinstance(node, Weighted):
                changed = {"weight_bits": bits.get(f"{node.name}.weight")}
            elif isinstance(node, Neuron) and node.recurrent:
                own = {"weight_bits": bits.get(f"{node.name}.recurrent.weight")}
                changed = {"recurrent": node.recurrent.model_copy(update=own)}
            nodes.append(node.model_copy(update=changed))
        return self.with_nodes(nodes)

    def with_nonzero(self, counts: Mapping[str, int]) -> Self:
        """Copy it with other numbers of stored weights, by the names of their tensors; of all others all are stored."""
        return self.with_nodes(
            node.model_copy(update={"nonzero": counts.get(f"{node.name}.weight")}) if isinstance(node, Linear) else node
            for node in self.nodes
        )

    def with_nodes(self, nodes: Iterable[Node]) -> Self:
        """Make the same spec of other nodes, validated."""
        # A new spec and no copy: a copy would keep what the old one has worked out of its nodes.
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | {"nodes": tuple(nodes)})

    @property
    def spiking_nodes(self) -> tuple[Spiking, ...]:
        """The spiking nodes, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Spiking))

    @property
    def widest(self) -> int:
        """The number of values of one sample in the widest layer or the input, whichever has more."""
        return max(math.prod(shape) for shape in self.output_shapes.values())

    @property
    def recordable(self) -> int:
        """The number of all neurons of the network."""
        return sum(math.prod(self.output_shapes[node.name]) for node in self.nodes if isinstance(node, Neuron))

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """The number of neurons of each spiking node."""
        return {node.name: math.prod(self.output_shapes[node.name]) for node in self.spiking_nodes}

    def check_steps(self, time_steps: int) -> None:
        """Raise InvalidInput if a node has parameters for fewer steps than there are since rest."""
        if self.bounded is not None and time_steps > self.bounded[1]:
            name, most = self.bounded
            raise InvalidInput(f"time_steps is {time_steps} since rest, but node '{name}' has parameters for {most}")

    @cached_property
    def bounded(self) -> tuple[str, int] | None:
        """The node that has parameters for the fewest steps, and how many, if any has its own for each."""
        bounds = [(node.name, node.steps) for node in self.nodes if isinstance(node, Scale) and node.steps is not None]
        return min(bounds, key=lambda bound: bound[1], default=None)

    @cached_property
    def _walk(self) -> tuple[tuple[Node, tuple[str, ...], frozenset[str]], ...]:
        """Each node with its sources, and those of them that no later node needs."""
        last_user = {name: node.name for node in self.nodes for name in self.sources[node.name]}
        return tuple(
            (node, sources, frozenset(name for name in sources if last_user[name] == node.name))
            for node, sources in zip(self.nodes, self.sources.values(), strict=True)
        )

    def propagate(
        self, source: Value, apply: Callable[[Node, Value], Value], join: Callable[[Node, Sequence[Value]], Value]
    ) -> Iterator[tuple[Node, Value, Value]]:
        """Propagate `source` through the nodes and yield each node with its joined input and its output.

        It works for arrays, tensors and graph values alike. `join` makes one of the inputs of a node that has several.
        An output is freed once no later node needs it.
        """
        outputs = {INPUT: source}
        for node, sources, spent in self._walk:
            arriving = outputs[sources[0]] if len(sources) == 1 else join(node, [outputs[name] for name in sources])
            for name in spent:
                del outputs[name]
            outputs[node.name] = leaving = apply(node, arriving)
            yield node, arriving, leaving


def describe_first_error(error: ValidationError) -> str:
    """Return a sentence about the first error that pydantic found: the field, what was expected, and the value."""
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in first["loc"])
    if not where:
        return message
    sentence = f"{where}: {message[:1].lower()}{message[1:]}"
    if isinstance(first["input"], dict):  # which may be nested deeper than repr goes
        return sentence
    text = repr(first["input"])
    return f"{sentence}, got {text if len(text) <= 60 else text[:57] + '...'}"


def validated(kind: type[Exception], where: object, make: Callable[..., Value], /, *args: Any, **fields: Any) -> Value:
    """Call what pydantic validates; its first error is raised as one of that kind, in a sentence that begins so."""
    try:
        return make(*args, **fields)
    except ValidationError as error:
        start = f"{where}: "
        raise kind(start + describe_first_error(error).removeprefix(start)) from error
