"""From a network of ReLUs to one of integrate-and-fire neurons whose mean output over time stands for each ReLU.

A neuron charges by the current of each step, begins with half its threshold, fires once a step at most and resets by
subtraction: after T steps of a mean current c it fired about T c / threshold times, rounded to the nearest from 0 to T
(Rueckauer et al., 2017; half a threshold as the start: Deng and Gu, 2021). So a spike is worth its threshold, which
goes into the weights behind it. The answer is the mean of the last layer's currents, which no rounding changes.

The maximum of spikes at each step is more than that of their means. So a pool takes the sums of currents up to each
step, and passes on by how much the highest sum grew: over time that is the maximum of the means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import INPUT, nodes
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Node
from spikeserve.models.spec.parameters import PER_CHANNEL, PER_NEURON
from spikeserve.plugins.frameworks.conversion.source import ceiling

Channels = NDArray[np.float32]  # one number for each channel, the first axis of a layer
GROWTH = {"states": {"before": 0.0}, "step": ["x = current - before", "before = current"], "output": "x"}


@dataclass(frozen=True)
class Fit:
    """What calibration found for a ReLU: the threshold of each channel, and a current against its mean error."""

    threshold: Channels
    drive: Channels


@dataclass
class _Writer:
    """The spiking network on its way; `worth` is that of a spike of each channel, of nodes whose output is spikes."""

    source: Network
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    worth: dict[str, Channels] = field(default_factory=dict)
    steady: set[str] = field(default_factory=lambda: {INPUT})  # whose output is the same at every step

    def add(self, node: Node, inputs: Sequence[str], **tensors: Any) -> str:
        self.nodes.append(node.model_copy(update={"inputs": tuple(inputs)}))
        self.tensors |= {f"{node.name}.{name}": np.asarray(value, np.float32) for name, value in tensors.items()}
        return node.name

    def neuron(self, node: Node, inputs: Sequence[str], fit: Fit) -> None:
        """Add an integrate-and-fire neuron for a ReLU."""
        shape = self.source.spec.output_shapes[node.name]
        values = {"threshold": fit.threshold, "start": fit.threshold / 2, "drive": fit.drive}
        spread = {name: np.broadcast_to(over(each, len(shape)), shape) for name, each in values.items()}
        self.add(nodes.IF(name=node.name, **dict.fromkeys(spread, PER_NEURON)), inputs, **spread)
        self.worth[node.name] = fit.threshold

    def maximum(self, node: Node, name: str) -> None:
        """Add a pool of maxima of sums over time."""
        summed = self.add(nodes.I(name=f"{node.name}_sum"), [name])
        highest = self.add(node.model_copy(update={"name": f"{node.name}_highest"}), [summed])
        self.add(nodes.ProgramIntegrator(name=node.name, program=GROWTH, parameters={}), [highest])

    def values(self, name: str) -> str:
        """Return the name of a node that gives spikes times their worth, or what a node without spikes gives."""
        if name not in self.worth:
            return name
        scaled = f"{name}_worth"
        if all(node.name != scaled for node in self.nodes):
            self.add(nodes.Scale(name=scaled, scale=PER_CHANNEL), [name], scale=self.worth[name])
        return scaled

    def connection(self, node: Node, inputs: Sequence[str]) -> None:
        """Add a node that computes the same of means, with the worth of a spike in its weights where it has some."""
        tensors = {
            name.rpartition(".")[2]: value
            for name, value in self.source.tensors.items()
            if name.rpartition(".")[0] == node.name
        }
        worth = self.worth.get(inputs[0]) if len(inputs) == 1 else None
        if worth is not None and isinstance(node, nodes.Linear | nodes.Conv1d | nodes.Conv2d):
            weight = tensors["weight"]
            groups = len(worth) // weight.shape[1]
            of_output = np.repeat(worth.reshape(groups, -1), len(weight) // groups, axis=0)
            tensors["weight"] = weight * over(of_output, weight.ndim)
        elif worth is not None and isinstance(node, nodes.Pool):
            self.worth[node.name] = worth
        elif worth is not None and isinstance(node, nodes.Flatten):
            size = int(np.prod(self.source.spec.output_shapes[node.name]))
            self.worth[node.name] = np.repeat(worth, size // len(worth))
        else:
            inputs = [self.values(name) for name in inputs]
        if isinstance(node, nodes.MaxPool) and not self.steady.issuperset(inputs):
            self.maximum(node, inputs[0] if len(inputs) == 1 else self._summed(node, inputs))
        else:
            self.add(node, inputs, **tensors)
        if self.steady.issuperset(inputs):
            self.steady.add(node.name)

    def _summed(self, node: Node, inputs: Sequence[str]) -> str:
        return self.add(nodes.Scale(name=f"{node.name}_input", scale=1.0), inputs)


def over(channels: Any, axes: int) -> Any:
    """Return numbers of leading axes with as many axes as a layer or weight has."""
    return channels.reshape(*channels.shape, *(1 for _ in range(axes - channels.ndim)))


def spiking_network(source: Network, fits: Mapping[str, Fit], time_steps: int) -> Network:
    """Return the network of spikes for a network of ReLUs (see `read_source`), by what calibration found of each.

    Raises InvalidSpec where it has no spiking form that a spec allows.
    """
    writer, spec = _Writer(source), source.spec
    for node in spec.nodes:
        inputs = spec.sources[node.name]
        if ceiling(node):
            writer.neuron(node, [writer.values(name) for name in inputs], fits[node.name])
        else:
            writer.connection(node, inputs)
    writer.values(spec.nodes[-1].name)  # of a network that ends in spikes
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    return Network(type(spec)(**fields | {"nodes": tuple(writer.nodes), "time_steps": time_steps}), writer.tensors)
