"""NeuroBench's metrics of a network, and of what was recorded of its runs, by their names there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.base import Counts, RunResult
from spikeserve.models.spec.narrow import stored
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Neuron, Threshold
from spikeserve.plugins.report.complexity.connections import Connection, connections_of
from spikeserve.plugins.report.complexity.operations import Replay

FLOAT_BYTES = 4
GROUP_BYTES = 2**25  # of what is recorded at once, unless one sample has more


@dataclass(frozen=True)
class Work:
    """What runs of a network took, by sample: each array is (batch,).

    `acs` and `macs`: connection to the effective operations of steps whose inputs are 0, 1 and -1, and of others.
    `active`: spiking node to how many of its outputs were not 0. `membrane_updates`: neuron node to how many of its
    membranes a step changed; the first step counts as a change of all.
    """

    acs: Mapping[str, Counts]
    macs: Mapping[str, Counts]
    active: Mapping[str, Counts]
    membrane_updates: Mapping[str, Counts]


class Complexity:
    """The complexity of one network, and of its runs."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.connections: Mapping[str, Connection] = connections_of(network)
        self.replay = Replay(network, self.connections)

    @property
    def parameter_count(self) -> int:
        """ParameterCount: the values of all tensors, which are weights, biases and parameters of each neuron."""
        return self.network.parameter_count

    @property
    def footprint(self) -> int:
        """Footprint: the bytes of those values, as a bundle stores them. A parameter that is one number is none."""
        return sum(tensor.nbytes for tensor in stored(self.network).values())

    @property
    def connection_sparsity(self) -> float:
        """ConnectionSparsity: the share of weights that are 0, to four decimals; biases do not count."""
        shapes = self.network.spec.tensor_shapes
        weights = sum(math.prod(shapes[f"{name}.weight"]) for name in self.connections)
        others = sum(each.weights - each.zeros for each in self.connections.values())
        return round((weights - others) / weights, 4) if weights else 0.0

    @cached_property
    def dense(self) -> int:
        """Dense, of one step of one sample: the operations in which every input and every weight counts."""
        return sum(each.dense for each in self.connections.values())

    def work(self, inputs: Inputs, result: RunResult) -> Work:
        """Count the work of a run from rest that recorded rasters and membranes at all its steps."""
        acs, macs = ({name: np.zeros(inputs.batch, np.int64) for name in self.connections} for _ in range(2))
        for each in self.replay.operations(inputs, result):
            multiplied = np.where(each.valued, each.count, 0).sum(axis=0)
            macs[each.connection] += multiplied
            acs[each.connection] += each.count.sum(axis=0) - multiplied
        # Outputs of each spiking node that were not 0, (batch,).
        active = {name: np.count_nonzero(each, axis=(0, *range(2, each.ndim))) for name, each in result.rasters.items()}
        return Work(acs, macs, active, _membrane_updates(self.network, result))

    def group(self, time_steps: int) -> int:
        """Return how many samples may be recorded at once, so that they take GROUP_BYTES: at least one."""
        spec = self.network.spec
        sample = FLOAT_BYTES * time_steps * (2 * spec.recordable + spec.widest)
        return max(1, GROUP_BYTES // max(1, sample))


def _membrane_updates(network: Network, result: RunResult) -> dict[str, Counts]:
    """Return each neuron node's MembraneUpdates, name to (batch,).

    `result` is that of a run from rest which recorded membranes. A membrane counts in the first step, and in each later
    one that changes it.
    """
    updates = {}
    for node in network.spec.nodes:
        if not isinstance(node, Neuron) or isinstance(node, Threshold):
            continue
        membrane = result.membranes[node.name]
        changed = np.count_nonzero(membrane[1:] != membrane[:-1], axis=tuple(range(2, membrane.ndim)))
        first = int(np.prod(membrane.shape[2:]))
        updates[node.name] = first + changed.sum(axis=0)
    return updates
