"""Whether a bundle's C file computes what the reference engine does, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.base import Record, Runner
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network


@dataclass(frozen=True)
class Difference:
    """How two runs differ: in so many of all neuron-steps, and in values of the state after them and of the answers."""

    spikes: int
    neuron_steps: int
    states: int
    answers: int

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return max(self.spikes, self.states, self.answers) > 0

    def __str__(self) -> str:
        return (
            f"{self.spikes} of {self.neuron_steps} neuron-steps, {self.states} values of the states and "
            f"{self.answers} of the answers differ"
        )


def against_reference(network: Network, other: Runner, inputs: Inputs) -> Difference:
    """Run both on the same samples, and compare spikes, states and answers with no tolerance."""
    expected, before = ReferenceEngine(network).run(inputs, record=Record.RASTER)
    result, after = other.run(inputs, record=Record.RASTER)
    rasters = [(raster, result.rasters[name]) for name, raster in expected.rasters.items()]
    states = [(array, after.arrays[name]) for name, array in before.arrays.items()]
    answers = [(expected.spike_counts, result.spike_counts), (expected.readout, result.readout)]
    spikes, values, answered = (
        sum(int(np.count_nonzero(one != other)) for one, other in pairs) for pairs in (rasters, states, answers)
    )
    return Difference(spikes, sum(raster.size for raster, _ in rasters), values, answered)
