"""NeuroBench's metrics of a network, and of what was recorded of its runs, by their names there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import Inputs
from spikeserve.models.complexity.connections import Connection, connections_of
from spikeserve.models.complexity.energy import Energy
from spikeserve.models.complexity.operations import Replay
from spikeserve.models.engines.base import Counts, Record, RunResult, joined
from spikeserve.models.engines.stop import Stop
from spikeserve.models.spec.narrow import stored
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Neuron, Threshold

FLOAT_BYTES = 4
GROUP_BYTES = 2**25  # of what is recorded at once, unless one sample has more

Recording = Callable[[Inputs, Record], RunResult]


@dataclass(frozen=True)
class Work:
    """What runs of a network took, by sample: each array is (batch,).

    `acs` and `macs`: connection to the effective operations of steps whose inputs are 0, 1 and -1, and of others.
    `active`: spiking node to how many of its outputs were not 0. `membrane_updates`: neuron node to how many of its
    membranes a step changed; the first step counts as a change of all. `steps`: the steps that were taken.
    """

    acs: Mapping[str, Counts]
    macs: Mapping[str, Counts]
    active: Mapping[str, Counts]
    membrane_updates: Mapping[str, Counts]
    steps: Counts


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

    @cached_property
    def energy(self) -> Energy:
        """The estimates of energy."""
        return Energy.of(self.network, self.connections)

    @cached_property
    def neurons(self) -> int:
        """The number of neurons that spike."""
        return sum(self.network.spec.layers.values())

    def work(self, inputs: Inputs, result: RunResult, stop: Stop | None = None) -> Work:
        """Count the work of a run from rest that recorded rasters and membranes; raises Stopped."""
        batch, time_steps = inputs.batch, inputs.time_steps
        steps = np.full(batch, time_steps) if result.steps_used is None else result.steps_used.astype(np.int64)
        acs, macs = ({name: np.zeros(batch, np.int64) for name in self.connections} for _ in range(2))
        for each in self.replay.operations(inputs, result, stop):
            taken = np.where(_within(each.first, len(each.count), steps), each.count, 0)
            multiplied = np.where(each.valued, taken, 0).sum(axis=0)
            macs[each.connection] += multiplied
            acs[each.connection] += taken.sum(axis=0) - multiplied
        return Work(acs, macs, _active(result), _membrane_updates(self.network, result, steps), steps)

    def report(self, work: Work) -> dict[str, NDArray[Any]]:
        """Return the columns of a report, name to (batch,): NeuroBench's, and the estimates by `energy.ESTIMATES`."""
        neuron_steps = self.neurons * work.steps
        fired = sum(work.active.values(), np.zeros_like(work.steps))
        return {
            "Effective_MACs": sum(work.macs.values(), np.zeros_like(work.steps)),
            "Effective_ACs": sum(work.acs.values(), np.zeros_like(work.steps)),
            "Dense": self.dense * work.steps,
            "MembraneUpdates": sum(work.membrane_updates.values(), np.zeros_like(work.steps)),
            "ActivationSparsity": (neuron_steps - fired) / np.maximum(1, neuron_steps),
            **self.energy.estimates(work.acs, work.macs, work.steps, np.ones_like(work.steps)),
        }

    def group(self, time_steps: int) -> int:
        """Return how many samples may be recorded at once, so that they take GROUP_BYTES: at least one."""
        spec = self.network.spec
        sample = FLOAT_BYTES * time_steps * (2 * spec.recordable + spec.widest)
        return max(1, GROUP_BYTES // max(1, sample))

    def reported(self, run: Recording, inputs: Inputs, record: Record, stop: Stop | None = None) -> RunResult:
        """Return the result of a run from rest with a report of each sample, and with what `record` asks for.

        `run` runs inputs from rest and records. Some samples are run after others, so that no more is recorded at once
        than GROUP_BYTES or one sample takes. Raises what `run` raises, and Stopped.
        """
        results, fit = [], self.group(inputs.time_steps)
        for start in range(0, max(1, inputs.batch), fit):
            part = inputs[start : start + fit] if fit < inputs.batch else inputs
            result = run(part, Record.RASTER | Record.MEMBRANE)
            report = self.report(self.work(part, result, stop))
            rasters = result.rasters if Record.RASTER in record else {}
            membranes = result.membranes if Record.MEMBRANE in record else {}
            results.append(replace(result, report=report, rasters=rasters, membranes=membranes))
        return joined(results)


def _active(result: RunResult) -> dict[str, Counts]:
    """Return how many outputs of each spiking node were not 0, name to (batch,), over the steps of a recorded run."""
    return {name: np.count_nonzero(raster, axis=(0, *range(2, raster.ndim))) for name, raster in result.rasters.items()}


def _membrane_updates(network: Network, result: RunResult, steps: Counts) -> dict[str, Counts]:
    """Return each neuron node's MembraneUpdates, name to (batch,), over the first `steps` (batch,) of each sample.

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
        updates[node.name] = first + np.where(_within(1, len(changed), steps), changed, 0).sum(axis=0)
    return updates


def _within(first: int, count: int, steps: Counts) -> NDArray[np.bool_]:
    """Return which of `count` steps from `first` on each sample took, (count, batch)."""
    return (first + np.arange(count))[:, np.newaxis] < steps
