"""A trained network without spikes as nodes, whose ReLUs are programs without a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from spikeserve.models.spec import Coding
from spikeserve.models.spec.expressions import leaf, maximum
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import (
    Concatenate,
    Flatten,
    MaxPool,
    Neuron,
    Node,
    Permute,
    Pool,
    ProgramIntegrator,
    Reshape,
    Scale,
    Weighted,
)
from spikeserve.models.spec.program import CURRENT
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.framework import Layer
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.frameworks.torch import FRAMEWORK
from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.builder import Draft

LINEAR = (Weighted, Pool, Flatten, Reshape, Permute, Scale, Concatenate)  # of what means go through as they are


def rectifier(layer: Layer) -> None:
    """Convert nn.ReLU, nn.ReLU6 and nn.Hardtanh from 0 on: a program without a state."""
    low, high = getattr(layer.module, "min_val", 0.0), getattr(layer.module, "max_val", None)
    layer.refuse_unless(low == 0, f"min_val is {low}", "a mean number of spikes begins at 0")
    step = "x = maximum(current, 0.0)" if high is None else f"x = minimum(maximum(current, 0.0), {float(high)!r})"
    program = {"states": {}, "step": [step], "output": "x"}
    layer.builder.add(Draft(layer.name, ProgramIntegrator, {"program": program, "parameters": {}}))


SOURCE = replace(FRAMEWORK, rules={**FRAMEWORK.rules, **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.Hardtanh), rectifier)})


def ceiling(node: Node) -> float | None:
    """Return the highest value of a ReLU, infinity for a plain one; None where the node is none."""
    if not isinstance(node, ProgramIntegrator) or node.read_program.states:
        return None
    leaving, plain = node.read_program.leaving, maximum(leaf(CURRENT), 0.0)
    if leaving is plain:
        return float("inf")
    if leaving.operation == "minimum" and leaving.operands[0] is plain and leaving.operands[1].operation == "constant":
        return float(leaving.operands[1].detail or 0.0) or None
    return None


def read_source(module: nn.Module, options: FrameworkOptions) -> Network:
    """Return a trained network as nodes, with its batch norms folded and each pool of maxima before its ReLU.

    Raises NotConvertible with a line for each thing that spikes cannot stand for.
    """
    converted = convert(module, SOURCE, options.model_copy(update={"time_steps": 1, "coding": Coding.DIRECT}))
    refusals = list[str]()
    for node in converted.network.spec.nodes:
        if isinstance(node, LINEAR) or ceiling(node):
            continue
        index = converted.places.get(node.name)
        where = converted.graph.nodes[index].where if index is not None else ""
        what = "it is no ReLU" if isinstance(node, Neuron) else f"a {node.type} of spikes is not that of their means"
        refusals.append(f"'{node.name}'{f' ({where})' if where else ''}: {what}, expected ReLU or ReLU6 between layers")
    if refusals:
        raise NotConvertible.because(refusals)
    return _with_pools_first(converted.network)


def _with_pools_first(network: Network) -> Network:
    """Return the same network with each ReLU whose output only a pool of maxima takes behind that pool.

    Both give the same, but fewer neurons fire, and no rounding to whole spikes comes before the maximum.
    """
    sources = dict[str, tuple[str, ...]](network.spec.sources)
    nodes = list(network.spec.nodes)
    for place, node in enumerate(nodes):
        before = next((each for each in nodes if (each.name,) == sources[node.name]), None)
        if not isinstance(node, MaxPool) or before is None or not ceiling(before):
            continue
        if sum(before.name in others for others in sources.values()) > 1:
            continue
        moved: Mapping[str, str] = {node.name: before.name}
        sources = {name: tuple(moved.get(each, each) for each in others) for name, others in sources.items()}
        sources |= {node.name: sources[before.name], before.name: (node.name,)}
        nodes[place] = before
        nodes[nodes.index(before)] = node
    named = [node.model_copy(update={"inputs": sources[node.name]}) for node in nodes]
    return Network(network.spec.with_nodes(named), network.tensors)
