"""What the engines of dense arrays share: events come to them some steps at a time, so that no whole raster is made.

A run that is cut anywhere gives the bits of one that is not, which makes this exact; see `models.engines.state`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines.base import Record, RunResult, Stop
from spikeserve.models.engines.state import State, check_state
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

BLOCK_BYTES = 2**24  # of the dense inputs that are there at once, unless one step of a batch takes more


class DenseEngine(ABC):
    """An engine of dense arrays, for `network`, whose calls may take so many `threads`."""

    batches = True

    def __init__(self, network: Network, threads: int = 1) -> None:
        self.network, self.threads = network, threads
        self.spec: Spec = network.spec

    @abstractmethod
    def run_dense(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, which fits, or from rest."""

    def run(
        self,
        inputs: Inputs,
        state: State | None = None,
        *,
        record: Record = Record.NONE,
        stop: Stop | None = None,
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, or from rest; see `Engine.run`.

        Events are run in blocks of steps, of at most BLOCK_BYTES where a step takes no more.
        """
        check_state(state, self.network, inputs.batch, inputs.time_steps)
        if not isinstance(inputs, EventInputs):
            return self.run_dense(inputs, state, record, stop)
        fit = max(1, BLOCK_BYTES // max(1, 4 * inputs.batch * math.prod(inputs.shape)))
        results: list[RunResult] = []
        for first in range(0, inputs.time_steps, fit):
            block = inputs.between(first, min(first + fit, inputs.time_steps)).dense()
            last, state = self.run_dense(block, state, record, stop)
            results.append(last)
        assert state is not None  # noqa: S101  (there is at least one step)
        if len(results) == 1:
            return last, state
        whole = RunResult(
            spike_counts=last.spike_counts,
            readout=last.readout,
            synaptic_operations=np.sum([each.synaptic_operations for each in results], axis=0),
            spikes_per_node={
                name: np.sum([each.spikes_per_node[name] for each in results], axis=0) for name in last.spikes_per_node
            },
            rasters={name: np.concatenate([each.rasters[name] for each in results]) for name in last.rasters},
            membranes={name: np.concatenate([each.membranes[name] for each in results]) for name in last.membranes},
        )
        return whole, state
