"""From a framework's network to ours: the same layers, thresholds, resets and delays, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from packaging.version import Version
from torch import nn

from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Flatten, Integrating, Node, Scale, Spiking
from spikeserve.training.errors import InvalidGraph, NotConvertible
from spikeserve.training.importers.builder import Builder, Draft, Options
from spikeserve.training.importers.frameworks.framework import Findings, Framework, Layer
from spikeserve.training.importers.frameworks.graph import INPUT, Graph, GraphReadout, Reduction
from spikeserve.training.importers.frameworks.graph import Node as GraphNode
from spikeserve.training.importers.frameworks.probe import graph_of


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network, and where it came from: the graph of modules, and for each neuron's node its place in it."""

    network: Network
    graph: Graph
    places: Mapping[str, int]
    notes: tuple[str, ...]


def convert(
    module: nn.Module, framework: Framework, options: Options, trained_with: Version | None = None
) -> ConvertedNetwork:
    """Convert a network; modules do not say their `input_shape` and `time_steps`, so that the options must.

    Its neurons get the arithmetic of the release `trained_with`, by default of the installed one. Raises NotConvertible
    with a line for each thing that cannot be converted, InvalidGraph and InvalidSpec.
    """
    if options.input_shape is None or options.time_steps is None:
        raise InvalidInput("input_shape or time_steps is missing, which no module says")
    return convert_graph(graph_of(module, framework, options), framework, options, trained_with)


def convert_graph(
    graph: Graph, framework: Framework, options: Options, trained_with: Version | None = None
) -> ConvertedNetwork:
    """Convert a graph of modules in the same way."""
    builder, findings = Builder(options.input_shape or ()), Findings()
    outputs: dict[int, list[str]] = {INPUT: ["input"]}
    places: dict[str, int] = {}
    for index in graph.needed:
        node = graph.nodes[index]
        if node.module is None:
            continue
        builder.follow(_sources(graph, node, outputs, builder))
        before = len(builder.nodes)
        alone = len(node.sources) == 1 and graph.users(node.sources[0]) == 1
        is_read = index == graph.readout.node and (
            graph.readout.membrane if options.readout is None else options.readout.of_membrane
        )
        layer = Layer(
            node.path, node.module, builder, findings, node.where, alone, node.given_state, is_read, trained_with
        )
        _convert(layer, framework)
        outputs[index] = builder.sources
        places |= {made.name: index for made in builder.nodes[before:] if isinstance(made, Spiking | Integrating)}
    if findings.refusals:
        raise NotConvertible.because(findings.refusals)
    if builder.nodes:  # a network without any is refused below
        _read(graph, builder, outputs, findings)
    dt = findings.steps.pop() if len(findings.steps) == 1 else None
    if options.coding is None and graph.repeats_input:
        options = replace(options, coding=Coding.DIRECT)
    network = builder.network(options, dt=dt, readout=findings.readout)
    return ConvertedNetwork(network, graph, places, tuple(findings.notes))


def _sources(graph: Graph, node: GraphNode, outputs: dict[int, list[str]], builder: Builder) -> list[str]:
    """Return the names whose outputs a node sums, in the order in which its author adds them."""
    named = [_names(graph, source, outputs, builder) for source in node.sources]
    if not node.joins:
        return named[0]
    return [names[0] if len(names) == 1 else _one_node(names, node.path, builder) for names in named]


def _names(graph: Graph, index: int, outputs: dict[int, list[str]], builder: Builder) -> list[str]:
    if index in outputs:
        return outputs[index]
    names: list[str] = []
    for term in graph.terms(index):
        own = _names(graph, term, outputs, builder) if term != index else []
        if names and len(own) > 1:
            own = [_one_node(own, graph.nodes[term].path, builder)]
        if set(own) & set(names):  # added twice: a sum takes each of its inputs once
            names = [_one_node(names, graph.nodes[index].path, builder)]
        names = [*names, *own]
    outputs[index] = names
    return names


def _one_node(names: list[str], name: str, builder: Builder) -> str:
    """Return a node that gives a sum as it is: times one."""
    builder.follow(names)
    return builder.add(Draft(name, Scale, {"scale": np.float64(1.0)}))


def _read(graph: Graph, builder: Builder, outputs: dict[int, list[str]], findings: Findings) -> None:
    """Put the answer's node last, and note its readout over time."""
    readout = graph.readout
    names = _names(graph, readout.node, outputs, builder)
    if len(names) > 1 or names != [builder.last]:
        _one_node(names, "output", builder)
    read = next((node for node in reversed(builder.nodes) if not isinstance(node, Flatten)), builder.nodes[-1])
    findings.readout = findings.readout or _readout(readout, read, findings)
    if readout.note:
        findings.notes.append(readout.note)


def _readout(readout: GraphReadout, last: Node, findings: Findings) -> Readout | None:
    """Return the readout that a forward's own reduction over time is, None for what is usual of the last node."""
    if readout.over is not None:
        if readout.factor != 1.0:
            findings.notes.append(
                f"Its forward scales what it reads by {readout.factor:g}, which the readout does not."
            )
        if readout.over is Reduction.SUM and isinstance(last, Spiking) and not readout.membrane:
            return Readout.SPIKE_COUNT
        return Readout(f"{readout.over}_membrane" if readout.membrane else readout.over)
    if not readout.membrane and isinstance(last, Spiking | Integrating):
        return None
    chosen = Readout.MAX_MEMBRANE if readout.membrane else Readout.MEAN
    what = "the membrane of its last neuron" if readout.membrane else "its last layer"
    findings.notes.append(
        f"Its forward returns {what} at every step and not how an answer is read from them: here {chosen}, unless "
        "--readout says another."
    )
    return chosen


def _convert(layer: Layer, framework: Framework) -> None:
    try:
        kind = framework.kind(layer.module)
        if kind is not None:
            framework.rules[kind](layer)
            return
        known = next((kind for kind in framework.rules if isinstance(layer.module, kind)), None)
        if known is not None:
            layer.refuse(
                "its class", f"a subclass of {known.__name__} may compute something else; expected that itself"
            )
        else:
            layer.refuse("its class", "no rule converts it")
    except (InvalidGraph, InvalidSpec) as error:
        layer.refuse("its parameters" if isinstance(error, InvalidGraph) else "its input", str(error))
    for name in layer.builder.sources:  # what follows may be refused for faults of its own, but for no shape
        layer.builder.shapes[name] = None
