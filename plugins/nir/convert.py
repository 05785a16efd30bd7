"""From a NIR graph and the rules that it leaves out to a network of ours; each repair is a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from spikeserve.models.spec import INPUT, Spec, nodes
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Flatten, NodeBase
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.nir.dialects import DIALECTS, DialectName, GivenRules, GraphReset, Rules
from spikeserve.plugins.nir.file import NirFile, digest, restore
from spikeserve.plugins.nir.graph import DENSE, INTEGRATING, SPIKING, GraphNode, NestedGraph, flatten
from spikeserve.plugins.nir.nodes import WITHOUT_MEMBRANE, Cell, dense
from spikeserve.plugins.nir.topology import OrderedGraph, OrderedNode, Warn, arrange
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import Builder, Draft
from spikeserve.training.importers.options import Options

MANY_STEPS = 1e4  # a time constant of so many steps is more likely given in steps itself


def diagnostics(cell: Cell, rules: Rules) -> Iterator[str]:
    """Yield a sentence for each parameter that is probably not meant as it stands."""
    name = cell.node.name
    for parameter in ("tau", "tau_mem", "tau_syn"):
        if cell.node.has(parameter):
            yield from _of_time(parameter, cell, rules)
    if cell.type in ("IF", "I") and rules.dialect is DialectName.NIR and rules.dt < 1 and np.all(cell.array("r") == 1):
        yield (
            f"node '{name}': its r is 1, so that dialect 'nir' multiplies what arrives by dt = {rules.dt:g}; Norse, "
            "sinabs and snnTorch add it as it is"
        )
    fires = cell.node.has("v_leak") and cell.node.has("v_threshold")
    if fires and np.any(cell.array("v_leak") > cell.array("v_threshold")):
        yield f"node '{name}': v_leak is above v_threshold, so that it fires by itself"
    if rules.reset is not GraphReset.VALUE and cell.node.has("v_reset") and cell.node.array("v_reset").any():
        yield (
            f"node '{name}': its v_reset is not 0, but reset is '{rules.reset}', which wins; 'value' resets to v_reset"
        )


def _of_time(parameter: str, cell: Cell, rules: Rules) -> Iterator[str]:
    name, values = cell.node.name, cell.node.positive(parameter)
    shortest, longest = float(values.min()), float(values.max())
    if DIALECTS[rules.dialect].counts_in_steps:
        if longest < 0.5:
            yield (
                f"node '{name}': {parameter} is {longest:g}, which looks like seconds, but dialect '{rules.dialect}' "
                "counts it in steps"
            )
    elif longest / rules.dt >= MANY_STEPS:
        yield (
            f"node '{name}': {parameter} is {longest:g} s, which is {longest / rules.dt:.3g} steps of dt; if the file "
            "counts in steps, give --dt 1"
        )
    elif shortest < rules.dt:
        yield f"node '{name}': {parameter} is {shortest:g} s, less than dt = {rules.dt:g}, so that a step overshoots"


NEURONS = (*SPIKING, *INTEGRATING, "Threshold")
_CHANNELS_FIRST = {"Conv1d": 2, "Conv2d": 3, "SumPool2d": 3, "AvgPool2d": 3}  # how many axes each takes


@dataclass(frozen=True)
class Conversion:
    """A network, and a sentence for each thing about its file that was repaired or looks wrong."""

    network: Network
    warnings: tuple[str, ...]


def convert_file(file: NirFile, rules: Rules, options: Options) -> Conversion:
    """Return the network of a file: the very one that we exported where it is that still, else under the rules."""
    graph = file.graph
    if not {"spec", "digest"} <= graph.metadata.keys():  # which we write
        return convert(graph, rules, options)
    named = GivenRules.of(graph.metadata).complete()
    if replace(rules, reset_timing=rules.reset_timing or named.reset_timing) != named:
        note = "the file holds a spec of its own, but other rules than its own were named; its nodes were read instead"
    elif str(graph.metadata["digest"]) != digest(graph.nodes, graph.edges):
        note = "the file was changed since it was exported; its nodes were read instead of the spec that it holds"
    else:
        return Conversion(_with_options(restore(graph), options), ())
    conversion = convert(graph, rules, options)
    return Conversion(conversion.network, (note, *conversion.warnings))


def _with_options(network: Network, options: Options) -> Network:
    spec = network.spec.model_dump(mode="json", exclude_none=True)
    spec["input"] |= options.declared
    others = Options.model_fields.keys() & Spec.model_fields.keys()
    chosen = {name: getattr(options, name) for name in others if getattr(options, name) is not None}
    return Network(Spec.read(spec | chosen), network.tensors)


def convert(graph: NestedGraph, rules: Rules, options: Options) -> Conversion:
    """Return the network that a graph is under the rules.

    Raises InvalidGraph, or InvalidSpec, with a sentence that names the node where the graph cannot be served.
    """
    warnings: list[str] = []
    ordered = arrange(flatten(graph), warnings.append)
    builder = Builder(options.input_shape or _input_shape(ordered, warnings.append))
    converter = _Converter(builder, rules, warnings.append)
    for node in ordered.nodes:
        converter.add(node)
    last = ordered.nodes[-1].node
    if last.type not in NEURONS and options.readout is None:
        warnings.append(
            f"the file does not say how the output of '{last.name}', a {last.type}, is read over time; here it is the "
            "mean, unless --readout says another"
        )
    return Conversion(builder.network(options, dt=rules.dt), tuple(dict.fromkeys(warnings)))


def _input_shape(ordered: OrderedGraph, warn: Warn) -> Shape:
    """Return the shape of a sample at one step: the file's, without axes of size 1 that its first node cannot take."""
    first = next(ordered_node.node for ordered_node in ordered.nodes if None in ordered_node.sources)
    shape = ordered.input_shape
    if shape is None or not shape or min(shape) < 1:
        raise InvalidGraph("the file does not say the input's shape: give --input-shape")
    axes = 1 if first.type in DENSE else _CHANNELS_FIRST.get(first.type)
    fits = shape
    while axes is not None and len(fits) > axes and fits[0] == 1:
        fits = fits[1:]
    if first.type in DENSE and prod(fits) != _features(first) == fits[-1]:
        fits = fits[-1:]
    if fits != shape and (axes == len(fits)):
        warn(f"the input's shape is {show(shape)}; it is taken to be {show(fits)}, which '{first.name}' takes")
        return fits
    return shape


def _features(node: GraphNode) -> int:
    return int(dense(node).fields["in_features"])


@dataclass
class _Converter:
    """Adds one node of a graph after the other to a builder; `names` leads from the graph's names to ours."""

    builder: Builder
    rules: Rules
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self.names: dict[str | None, str] = {None: INPUT}
        self.dialect = DIALECTS[self.rules.dialect]

    def add(self, ordered: OrderedNode) -> None:
        """Add a node, after a Flatten where it takes a list and something else arrives."""
        node = ordered.node
        inputs = [self.names[source] for source in ordered.sources]
        shape = self.builder.arriving(node.name, inputs) or ()
        if len(shape) > 1 and node.type in DENSE and _features(node) == prod(shape):
            self.warn(f"node '{node.name}': takes {show(shape)} as a list; a Flatten is put before it")
            inputs, shape = [self.builder.add(Draft(f"{node.name}_flatten", Flatten), inputs)], (prod(shape),)
        draft = self._draft(ordered, shape)
        self.names[node.name] = self.builder.add(draft, inputs, layer=shape)

    def _draft(self, ordered: OrderedNode, shape: Shape) -> Draft:
        cell = Cell(ordered.node, shape, self.warn)
        name, dialect = cell.node.name, self.dialect
        if cell.type in WITHOUT_MEMBRANE:
            return WITHOUT_MEMBRANE[cell.type](cell, 1.0 if dialect.counts_in_steps else self.rules.dt)
        for sentence in diagnostics(cell, self.rules):
            self.warn(sentence)
        kind: type[NodeBase] = getattr(nodes, cell.type)
        fields = dialect.fields(cell, self.rules, recurrent=ordered.loop is not None)
        if ordered.loop is None:
            return Draft(name, kind, fields)
        loop, size = dense(ordered.loop), prod(shape)
        if loop.tensors["weight"].shape != (size, size):
            raise InvalidGraph(
                f"node '{loop.name}': weight has shape {show(loop.tensors['weight'].shape)}, expected "
                f"{show((size, size))} to feed '{name}' back to itself"
            )
        bias = bool(loop.fields["bias"])
        recurrent = {"bias": bias, "joins": dialect.joins, "bias_at_start": dialect.bias_at_start or not bias}
        tensors = {f"recurrent.{parameter}": value for parameter, value in loop.tensors.items()}
        return Draft(name, kind, fields | {"recurrent": recurrent}, tensors)
