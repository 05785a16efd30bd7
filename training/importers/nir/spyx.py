"""What Spyx's export to NIR writes otherwise than its networks compute, put right before a graph is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spikeserve.models.spec.parameters import Shape, show
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.nir.graph import DENSE, SPIKING, Graph, GraphNode

WITHOUT_RESET = "without_reset"  # a parameter of the LIF that a PSU_LIF is, beside those of NIR


def arranged(graph: Graph, warn: Callable[[str], None]) -> Graph:
    """Return a graph whose recurrent layers take their input themselves, and whose PSU_LIFs and pools are whole."""
    graph = _inputs_past_loops(graph, warn)
    graph = _reset_free(graph)
    return replace(graph, nodes={name: _halved(node) for name, node in graph.nodes.items()})


def _inputs_past_loops(graph: Graph, warn: Callable[[str], None]) -> Graph:
    """Lead what enters a recurrent connection into its neurons: Spyx's export draws that edge to the connection."""
    edges = graph.edges
    for name, node in graph.nodes.items():
        takers = graph.takers(name)
        if node.type not in DENSE or len(takers) != 1 or graph.nodes[takers[0]].type not in SPIKING:
            continue
        (neuron,) = takers
        others = [source for source in graph.sources(name) if source != neuron]
        if neuron not in graph.sources(name) or not others or graph.sources(neuron) != [name]:
            continue
        warn(f"node '{name}': what enters it besides '{neuron}' is taken to enter '{neuron}', as Spyx's import does")
        edges = tuple(
            (before, neuron) if after == name and before in others else (before, after) for before, after in edges
        )
    return replace(graph, edges=edges)


def _reset_free(graph: Graph) -> Graph:
    """Make one LIF that does not reset of each LI and the Threshold after it."""
    nodes, edges = dict(graph.nodes), graph.edges
    for name, node in graph.nodes.items():
        takers = graph.takers(name)
        if node.type != "LI" or len(takers) != 1 or graph.nodes[takers[0]].type != "Threshold":
            continue
        (fires,) = takers
        threshold: Any = graph.nodes[fires].parameters.get("threshold")
        parameters = {**node.parameters, "v_threshold": threshold, WITHOUT_RESET: True}
        nodes[name] = GraphNode(name, "LIF", parameters)
        del nodes[fires]
        edges = tuple((name if before == fires else before, after) for before, after in edges if after != fires)
    return Graph(nodes, edges)


def _halved(node: GraphNode) -> GraphNode:
    """Return a pool whose padding is that of each side: Spyx writes the sum of both."""
    if node.type not in ("SumPool2d", "AvgPool2d") or not node.has("padding"):
        return node
    both = node.sizes("padding") or ()
    if any(size % 2 for size in both):
        raise InvalidGraph(f"node '{node.name}': pads {show(both)}, in all, which is not the same on both sides")
    return replace(node, parameters={**node.parameters, "padding": np.array([size // 2 for size in both])})


def channels_first(node: GraphNode, shape: Shape) -> GraphNode:
    """Return a Linear or Affine that takes (channels, height, width) flattened, for one that takes channels last."""
    weight = node.array("weight")
    channels, height, width = shape
    turned = weight.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(weight.shape)
    return replace(node, parameters={**node.parameters, "weight": turned})
