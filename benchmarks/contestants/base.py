"""What a contestant is given and gives back, and a network as most libraries see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Counts
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import (
    ALIF,
    IF,
    LIF,
    RF,
    AdLIF,
    Alpha,
    CubaALIF,
    CubaLIF,
    Node,
    ProgramNeuron,
    Spiking,
    Threshold,
    Weighted,
)
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.rules import Fire, Reset

Run: TypeAlias = Callable[[], Counts]  # one run from rest, to the spike counts (batch, classes)
Targets: TypeAlias = NDArray[np.int64]  # (batch,), class indices

# The surrogate derivative of training, 1 / (1 + |x|)**2 with x = charged - threshold (Zenke & Ganguli, SuperSpike,
# 2018): the one that every library here has, with the one slope that all of them can be given.
SLOPE = 1.0

# While steps are timed nothing is learned, so that each finds the same weights and the same activity; the optimiser
# does all of its work, and multiplies what it found by 0.
NO_LEARNING = 0.0


class Skipped(Exception):
    """This contestant cannot run this network; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to run: a network, its inputs, and on how many threads."""

    network: Network
    inputs: DenseInputs
    threads: int


@dataclass(frozen=True)
class TrainingJob(Job):
    """What to train: as a job, with targets, at a learning rate; `is_compiled` asks for torch.compile."""

    targets: Targets
    learning_rate: float = NO_LEARNING
    is_compiled: bool = False


Named: TypeAlias = IF | LIF | CubaLIF | ALIF | CubaALIF | Alpha | Threshold


@dataclass(frozen=True)
class Stage:
    """Connections and the neurons that they feed, with the shape that arrives at each connection."""

    connections: tuple[tuple[Node, Shape], ...]
    neuron: Named
    shape: Shape  # of the neurons
    recurrent: FloatArray | None

    @property
    def decay(self) -> float:
        """The neurons' decay, 1 for an IF."""
        return self.neuron.decay if isinstance(self.neuron, LIF) and isinstance(self.neuron.decay, float) else 1.0

    @property
    def threshold(self) -> float:
        """The neurons' threshold."""
        return float(self.neuron.threshold)

    @property
    def subtracts(self) -> bool:
        """Whether a spike subtracts the threshold, rather than sets the membrane to 0."""
        return self.neuron.reset is Reset.SUBTRACT


def stages(network: Network) -> list[Stage]:
    """Return a network as a stack of stages; raises Skipped for what the other libraries were not taught here."""
    spec, found, connections = network.spec, [], list[tuple[Node, Shape]]()
    for place, node in enumerate(spec.nodes):
        before = spec.nodes[place - 1].name if place else "input"
        if spec.sources[node.name] != (before,):
            raise Skipped(f"node '{node.name}' makes the network more than a stack")
        if not isinstance(node, Spiking):
            connections.append((node, spec.input_shapes[node.name]))
            continue
        if isinstance(node, ProgramNeuron | RF | AdLIF):
            raise Skipped(f"node '{node.name}': its rule was not taught to it here")
        plain = {"gain": 1.0, "drive": 0.0, "reset_value": 0.0, "fire": Fire.AT_THRESHOLD}
        for field, value in plain.items():
            if getattr(node, field) != value:
                raise Skipped(f"node '{node.name}': only a {field} of {value} was taught to it here")
        if node.reset is Reset.NONE or "per_neuron" in (node.threshold, getattr(node, "decay", 1.0)):
            raise Skipped(f"node '{node.name}': no reset and parameters of each neuron were not taught to it here")
        recurrent = network.tensor(node, "recurrent.weight")
        if recurrent is not None and network.tensor(node, "recurrent.bias") is not None:
            raise Skipped(f"node '{node.name}': a recurrent bias was not taught to it here")
        found.append(Stage(tuple(connections), node, spec.input_shapes[node.name], recurrent))
        connections = []
    if connections:
        raise Skipped("the network does not end in neurons that fire")
    return found


def scaled(network: Network, factors: list[float]) -> Network:
    """Return the network with what feeds each stage scaled by its factor, for libraries that scale the input."""
    tensors = dict(network.tensors)
    for stage, factor in zip(stages(network), factors, strict=True):
        for node, _ in stage.connections:
            for name in ("weight", "bias") if isinstance(node, Weighted) else ():
                if network.tensor(node, name) is not None:
                    tensors[f"{node.name}.{name}"] = np.float32(factor) * tensors[f"{node.name}.{name}"]
        if stage.recurrent is not None:
            tensors[f"{stage.neuron.name}.recurrent.weight"] = np.float32(factor) * stage.recurrent
    return Network(network.spec, tensors)
