"""The builder that every importer fills: named nodes with their inputs, their tensors, and the shape that leaves each.

An importer turns each module or node of its source into a `Draft` and adds it, in order. Parameters may be computed in
any float type: they are rounded to float32 once, here. One that is the same for a whole layer becomes a number in the
spec, any other an array of the layer's shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeserve.models.spec import INPUT, Coding, Readout, Scores, Spec, validated
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Flatten, Integrating, JoinBase, Node, NodeBase, Reshape, Spiking
from spikeserve.models.spec.parameters import PER_NEURON, Shape, show
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.options import Options

MAX_VALUES = 2**26  # of a layer, or of a recurrent connection
MAX_CLASSES = 2**20
TIME_STEPS = 100


@dataclass(frozen=True)
class Draft:
    """A node before it is built: a name as its source has it, its class, its fields, and its tensors by parameter.

    Fields that are floats or arrays are a neuron's parameters; `parameters` are those of a neuron with a program.
    """

    name: str
    kind: type[NodeBase]
    fields: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


class Builder:
    """A network on its way. Every method raises InvalidGraph or InvalidSpec with a sentence that names the node.

    `shapes` are those that leave each node, per step and sample: None where a node could not be converted, after
    which an importer may go on in order to find out what else cannot.
    """

    def __init__(self, input_shape: Shape) -> None:
        require_size("the input", input_shape)
        self.nodes: list[Node] = []
        self.tensors: dict[str, FloatArray] = {}
        self.shapes: dict[str, Shape | None] = {INPUT: input_shape}
        self.sources: list[str] = [INPUT]

    @property
    def last(self) -> str:
        """The name of the node that was added last, or of the input."""
        return self.nodes[-1].name if self.nodes else INPUT

    @property
    def shape(self) -> Shape | None:
        """The shape that arrives at the next node."""
        return self.arriving("the next", self.sources)

    def follow(self, sources: Sequence[str]) -> None:
        """Let the next node take the sum of these, in place of what was added last."""
        self.sources = list(sources)

    def add(self, draft: Draft, inputs: Sequence[str] | None = None, *, layer: Shape | None = None) -> str:
        """Append a node and return its name, which is the draft's, or one like it that a spec can have and is free.

        `inputs` are names of earlier nodes, whose sum it takes unless it joins them in its own way; by default what
        `follow` said, or the node before it. `layer` is the shape that the parameters are laid out over where it is not
        the one that arrives.
        """
        name = self._free_name(draft)
        inputs = self.sources if inputs is None else list(inputs)
        joins = issubclass(draft.kind, JoinBase)
        arriving = self.joined(name, draft, inputs) if joins else self.arriving(draft.name, inputs)
        fields: dict[str, Any] = {"inputs": inputs} if inputs != [self.last] else {}
        tensors = {parameter: narrow(value) for parameter, value in draft.tensors.items()}

        def own(key: str, value: Any) -> Any:
            if not isinstance(value, np.ndarray | np.generic | float):
                return value
            spread = self._spread(name, key, narrow(value), layer or arriving)
            if spread.size and np.array_equal(spread, np.full_like(spread, spread.flat[0]), equal_nan=True):
                return float(spread.flat[0])
            tensors[key] = spread.reshape(arriving or spread.shape)
            return PER_NEURON

        fields |= {key: own(key, value) for key, value in draft.fields.items()}
        if draft.parameters:
            fields["parameters"] = {key: own(key, value) for key, value in draft.parameters.items()}
        node: Any = validated(InvalidGraph, f"node '{name}'", draft.kind, name=name, **fields)
        leaving = None if arriving is None else node.output_shape(arriving)
        require_size(f"node '{name}': its output", leaving or ())
        self.nodes.append(node)
        self.shapes[name] = leaving
        self.sources = [name]
        self.tensors |= {f"{name}.{parameter}": value for parameter, value in tensors.items()}
        return name

    def joined(self, name: str, draft: Draft, inputs: Sequence[str]) -> Shape | None:
        """Return the shape of what a node that joins its inputs by a rule of its own makes of them."""
        shapes = [(other, shape) for other in inputs if (shape := self.shapes[other]) is not None]
        if len(shapes) < len(inputs):
            return None
        node = validated(InvalidGraph, f"node '{name}'", draft.kind, name=name, inputs=tuple(inputs), **draft.fields)
        return node.joined_shape(shapes)

    def arriving(self, name: str, inputs: Sequence[str]) -> Shape | None:
        """Return the shape that arrives at a node which sums `inputs`."""
        shape = self.shapes[inputs[0]]
        for other in inputs[1:]:
            if None not in (shape, self.shapes[other]) and self.shapes[other] != shape:
                raise InvalidGraph(
                    f"node '{name}': sums '{inputs[0]}' and '{other}', whose shapes are {show(shape or ())} and "
                    f"{show(self.shapes[other] or ())}"
                )
        return shape

    def network(self, options: Options, *, dt: float | None, readout: Readout | None = None) -> Network:
        """Return the network; `dt` is in seconds and `readout` what the source says, None where it does not."""
        if not self.nodes:
            raise InvalidGraph("the network has no layer")
        last = self.nodes[-1]
        outputs = math.prod(self.shapes[last.name] or (0,))
        if outputs > MAX_CLASSES:
            raise InvalidGraph(f"node '{last.name}': has {outputs:,} outputs, expected at most {MAX_CLASSES:,}")
        spec = Spec.read(
            {
                "input": {"shape": self.shapes[INPUT], **options.declared},
                "coding": options.coding or Coding.SPIKES,
                "time_steps": TIME_STEPS if options.time_steps is None else options.time_steps,
                "dt": dt,
                "nodes": self.nodes,
                "readout": options.readout or readout or self._usual_readout,
                "labels": options.labels or tuple(map(str, range(outputs))),
                "scores": options.scores or Scores.SOFTMAX,
                "units": options.units,
            }
        )
        Price.of(spec).check(LoadLimits())  # before anything is run
        return Network(spec, self.tensors)

    @property
    def _usual_readout(self) -> Readout:
        """The readout of a source that says none: by the last node, or the one before a Flatten or Reshape there."""
        last = next((node for node in reversed(self.nodes) if not isinstance(node, Flatten | Reshape)), self.nodes[-1])
        if isinstance(last, Integrating):
            return Readout.MAX_MEMBRANE
        return Readout.SPIKE_COUNT if isinstance(last, Spiking) else Readout.MEAN

    def _free_name(self, draft: Draft) -> str:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", draft.name)
        stem = (stem if stem[:1].isalpha() else f"node_{stem}")[:60]
        candidate, number = stem, 2
        while candidate in self.shapes:
            candidate, number = f"{stem}_{number}", number + 1
        return candidate

    def _spread(self, name: str, parameter: str, value: FloatArray, shape: Shape | None) -> FloatArray:
        """Return a parameter over a layer, as PyTorch would broadcast it against what arrives."""
        if shape is None or value.size == 1:
            return value
        while value.ndim > len(shape) and value.shape[0] == 1:
            value = value[0]
        try:
            return np.broadcast_to(value, shape)
        except ValueError:
            raise InvalidGraph(
                f"node '{name}': {parameter} has shape {show(value.shape)}, which does not spread over {show(shape)} "
                "neurons"
            ) from None


def narrow(value: ArrayLike) -> FloatArray:
    """Round to float32; what does not fit becomes infinite, which the spec and the network refuse by name."""
    with np.errstate(over="ignore"):
        return np.asarray(value).astype(np.float32)


def require_size(what: str, shape: Shape) -> None:
    """Raise InvalidGraph where a layer of that shape would have too many values; a file can ask for them in a word."""
    if math.prod(shape) > MAX_VALUES:
        raise InvalidGraph(f"{what} has shape {show(shape)}, expected at most {MAX_VALUES:,} values")
