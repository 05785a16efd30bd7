"""From a NIR graph and the rules that it leaves out to a network of ours; what had to be mended is told, never hidden.

Every parameter is computed as its dialect says and rounded to float32 once; one that is the same for a whole layer
becomes a number in the spec, any other an array of the layer's shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter, ValidationError

from models.spec import Coding, Readout, Spec, first_fault
from models.spec.network import FloatArray, Network
from models.spec.nodes import Node
from models.spec.parameters import PER_NEURON, Shape, show
from training.errors import InvalidGraph
from training.importers.nir.cell import Cell
from training.importers.nir.connections import CONNECTIONS, Converted, Step, features, matrix, size_of
from training.importers.nir.dialects import DIALECTS
from training.importers.nir.graph import DENSE, INTEGRATING, SPIKING, GraphNode, NestedGraph
from training.importers.nir.limits import MOST_CLASSES, require_size
from training.importers.nir.nesting import flatten
from training.importers.nir.rules import Rules
from training.importers.nir.suspicions import suspicions
from training.importers.nir.topology import Layout, Placed, arrange

TIME_STEPS = 100
_NODE: TypeAdapter[Node] = TypeAdapter(Node)
_CHANNELS_FIRST = {"Conv1d": 2, "Conv2d": 3, "SumPool2d": 3, "AvgPool2d": 3}  # how many axes each takes


@dataclass(frozen=True)
class Options:
    """What NIR does not say beside the rules; None is the default, or what a file of ours says."""

    time_steps: int | None = None
    coding: Coding | None = None
    readout: Readout | None = None
    labels: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    input_shape: Shape | None = None


@dataclass(frozen=True)
class Conversion:
    """A network, and a sentence for each thing about its file that was mended or looks wrong."""

    network: Network
    warnings: tuple[str, ...]


def convert(graph: NestedGraph, rules: Rules, options: Options) -> Conversion:
    """Return the network that a graph is under the rules.

    Raises InvalidGraph, or InvalidSpec, with a sentence that names the node where the graph cannot be served.
    """
    warnings: list[str] = []
    layout = arrange(flatten(graph), warnings.append)
    builder = _Builder(rules, warnings.append)
    shape = options.input_shape or _input_shape(layout, warnings.append)
    require_size("the input", shape)
    for index, placed in enumerate(layout.placed):
        builder.add(placed, shape, last=index == len(layout.placed) - 1)
    return Conversion(_network(builder, shape, rules, options), tuple(dict.fromkeys(warnings)))


def _network(builder: _Builder, shape: Shape, rules: Rules, options: Options) -> Network:
    last = builder.nodes[-1]
    final = builder.leaving[last["name"]]
    integrates = last["type"] in INTEGRATING
    if last["type"] not in (*SPIKING, "Threshold", *INTEGRATING):
        raise InvalidGraph(
            f"node '{last['name']}': the output is what {last['type']} gives, expected a spiking or integrating node "
            "as the last one"
        )
    if final[0] > MOST_CLASSES:
        raise InvalidGraph(f"node '{last['name']}': has {final[0]:,} outputs, expected at most {MOST_CLASSES:,}")
    spec = Spec.read(
        {
            "input": {"shape": shape, "low": _or(options.low, 0.0), "high": _or(options.high, 1.0)},
            "coding": options.coding or Coding.SPIKES,
            "time_steps": _or(options.time_steps, TIME_STEPS),
            "dt": rules.dt,
            "nodes": builder.nodes,
            "readout": options.readout or (Readout.MAX_MEMBRANE if integrates else Readout.SPIKE_COUNT),
            "labels": options.labels or [str(index) for index in range(final[0])],
        }
    )
    return Network(spec, builder.tensors)


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _input_shape(layout: Layout, mended: Callable[[str], None]) -> Shape:
    """Return the shape of a sample at one step: the file's, without axes of size 1 that its first node cannot take."""
    first = next(placed.node for placed in layout.placed if None in placed.sources)
    found = layout.input_shape
    if found is None or not found or min(found) < 1:
        found = _wanted_shape(first)
        mended(f"the file does not say the input's shape; it is taken to be {show(found)}, from '{first.name}'")
    wanted = 1 if first.type in DENSE else _CHANNELS_FIRST.get(first.type)
    fits = found
    while wanted is not None and len(fits) > wanted and fits[0] == 1:
        fits = fits[1:]
    if first.type in DENSE and size_of(fits) != features(first) == fits[-1]:
        fits = fits[-1:]
    if fits != found and (wanted == len(fits)):
        mended(f"the input's shape is {show(found)}; it is taken to be {show(fits)}, which '{first.name}' takes")
        return fits
    return found


def _wanted_shape(first: GraphNode) -> Shape:
    if first.type in DENSE:
        return (features(first),)
    shapes = [np.shape(value) for name, value in first.parameters.items() if name not in ("kernel_size", "stride")]
    largest = max(shapes, key=size_of, default=())
    if first.type not in (*SPIKING, *INTEGRATING, "Scale", "Threshold", "Delay") or not largest:
        raise InvalidGraph(
            f"the file does not say the input's shape, and '{first.name}' takes inputs of many: give --input-shape"
        )
    return largest


@dataclass
class _Builder:
    """The spec's nodes and tensors so far, and the shapes that leave them."""

    rules: Rules
    mended: Callable[[str], None]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, FloatArray] = field(default_factory=dict)
    leaving: dict[str, Shape] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # the graph's name -> ours
    taken: set[str] = field(default_factory=lambda: {"input"})

    def add(self, placed: Placed, input_shape: Shape, *, last: bool) -> None:
        """Add a node, after a Flatten where it or the readout takes a list and what arrives is none."""
        node = placed.node
        inputs = ["input" if source is None else self.names[source] for source in placed.sources]
        shapes = {name: input_shape if name == "input" else self.leaving[name] for name in inputs}
        shape = shapes[inputs[0]]
        for name in inputs[1:]:
            if shapes[name] != shape:
                raise InvalidGraph(
                    f"node '{node.name}': sums '{inputs[0]}' and '{name}', whose shapes are {show(shape)} and "
                    f"{show(shapes[name])}"
                )
        if len(shape) > 1 and node.type in DENSE and features(node) == size_of(shape):
            self.mended(f"node '{node.name}': takes {show(shape)} as a list; a Flatten is put before it")
            inputs, shape = [self._flatten(node.name, inputs, shape)], (size_of(shape),)
        converted, through = self._converted(placed, shape), shape
        if last and len(shape) > 1 and node.type in (*SPIKING, *INTEGRATING, "Threshold"):
            self.mended(f"node '{node.name}': the last neurons have shape {show(shape)}; a Flatten is put before them")
            inputs, through = [self._flatten(node.name, inputs, shape)], (size_of(shape),)
        self._append(self._name(node.name), converted, inputs, shape, through)
        self.names[node.name] = self.nodes[-1]["name"]

    def _converted(self, placed: Placed, shape: Shape) -> Converted:
        cell = Cell(placed.node, shape, self.mended)
        dialect = DIALECTS[self.rules.dialect]
        if cell.type in CONNECTIONS:
            return CONNECTIONS[cell.type](cell, Step(1.0 if dialect.counts_in_steps else self.rules.dt))
        for sentence in suspicions(cell, self.rules):
            self.mended(sentence)
        fields = {"type": cell.type} | dialect.fields(cell, self.rules, recurrent=placed.loop is not None)
        if placed.loop is None:
            return Converted(fields)
        weight, size = matrix(placed.loop), size_of(shape)
        if weight.shape != (size, size):
            raise InvalidGraph(
                f"node '{placed.loop.name}': weight has shape {show(weight.shape)}, expected {show((size, size))} to "
                f"feed '{cell.node.name}' back to itself"
            )
        tensors = {"recurrent.weight": weight}
        bias = placed.loop.array("bias") if placed.loop.type == "Affine" else np.zeros(1)
        if bias.any():
            tensors["recurrent.bias"] = np.broadcast_to(bias.ravel(), (size,))
        recurrent = {"bias": bool(bias.any()), "joins": dialect.joins}
        recurrent["bias_at_start"] = dialect.bias_at_start or not recurrent["bias"]
        return Converted(fields | {"recurrent": recurrent}, tensors)

    def _flatten(self, before: str, inputs: list[str], shape: Shape) -> str:
        name = self._name(f"{before}_flatten")
        self._append(name, Converted({"type": "Flatten"}), inputs, shape, shape)
        return name

    def _append(self, name: str, converted: Converted, inputs: list[str], shape: Shape, through: Shape) -> None:
        """Append a node whose parameters are laid out over `shape` and whose input has the shape `through`."""
        fields: dict[str, Any] = {"name": name}
        for key, value in converted.fields.items():
            if isinstance(value, np.ndarray | np.generic):
                single = _single(np.asarray(value))
                if single is None:
                    self.tensors[f"{name}.{key}"] = np.broadcast_to(narrow(value), shape).reshape(through)
                fields[key] = PER_NEURON if single is None else int(single) if key == "delay" else single
            else:
                fields[key] = value
        for key, value in converted.tensors.items():
            self.tensors[f"{name}.{key}"] = narrow(value)
        previous = self.nodes[-1]["name"] if self.nodes else "input"
        if inputs != [previous]:
            fields["inputs"] = inputs
        try:
            built = _NODE.validate_python(fields)
        except ValidationError as error:
            raise InvalidGraph(f"node '{name}': {_without_type(first_fault(error), fields['type'])}") from error
        self.leaving[name] = built.output_shape(through)
        require_size(f"node '{name}': its output", self.leaving[name])
        self.nodes.append(fields)

    def _name(self, name: str) -> str:
        """Return a name that a spec can have, and that no other node has."""
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        stem = (stem if stem[:1].isalpha() and stem.isascii() else f"node_{stem}")[:60]
        candidate, number = stem, 2
        while candidate in self.taken:
            candidate, number = f"{stem}_{number}"[:64], number + 1
        self.taken.add(candidate)
        return candidate


def narrow(value: ArrayLike) -> FloatArray:
    """Round to float32; what does not fit becomes infinite, which the spec and the network refuse by name."""
    with np.errstate(over="ignore"):
        return np.asarray(value).astype(np.float32)


def _single(value: np.ndarray[Any, Any]) -> float | None:
    """Return the float32 number that a whole array is, or None where its values differ."""
    rounded = narrow(value)
    return float(rounded.flat[0]) if (rounded == rounded.flat[0]).all() else None


def _without_type(fault: str, kind: str) -> str:
    return re.sub(rf"^{kind}[.:]? *(node '[^']*': )?", "", fault)
