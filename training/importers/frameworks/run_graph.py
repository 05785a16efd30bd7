"""How a graph runs over time: each node from rest over all steps, by its framework's own code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.batch_norms import ByStep
from spikeserve.training.importers.frameworks.checkpoint import first_line
from spikeserve.training.importers.frameworks.framework import Framework, Run
from spikeserve.training.importers.frameworks.graph import INPUT, Graph, Node
from spikeserve.training.importers.frameworks.own_neuron import OwnNeuron


def run_graph(graph: Graph, framework: Framework, steps: Tensor) -> Iterator[tuple[int, Run]]:
    """Run each needed node from rest over all steps (time_steps, batch, *shape), by the framework's own modules.

    Raises NotConvertible where a module does not take what is before it.
    """
    outputs: dict[int, Tensor] = {INPUT: steps}
    needed = graph.needed
    last_use = {source: index for index in needed for source in graph.nodes[index].sources}
    for index in needed:
        result = run_node(graph.nodes[index], framework, outputs)
        outputs[index] = result.output
        yield index, result
        for source in [source for source in outputs if last_use.get(source, index + 1) <= index]:
            del outputs[source]


def run_node(node: Node, framework: Framework, outputs: Mapping[int, Tensor]) -> Run:
    """Run one node over all steps on the outputs of those before it."""
    if node.joins and node.module is not None:
        inputs = [outputs[source] for source in node.sources]
        with torch.no_grad():
            return Run(node.module(*(each.flatten(0, 1) for each in inputs)).unflatten(0, inputs[0].shape[:2]))
    arriving = outputs[node.sources[0]]
    for source in node.sources[1:]:
        arriving = arriving + outputs[source]
    if node.module is None:
        return Run(arriving)
    if isinstance(node.module, ByStep):
        with torch.no_grad():
            return Run(node.module(arriving))
    if isinstance(node.module, OwnNeuron):
        return node.module.run(arriving)
    try:
        with torch.no_grad():
            return framework.run(node.module, arriving)
    except Exception as error:  # a framework may raise anything
        reason = first_line(error)
        raise NotConvertible(f"'{node.path}' fails when it is stepped by itself: {reason}") from error
