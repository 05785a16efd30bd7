"""Whether a bundle's C file computes what the reference engine does, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.compiled import CompiledC


@dataclass(frozen=True)
class Difference:
    """How two runs differ: in so many of all neuron-steps, and in values of the answers."""

    spikes: int
    neuron_steps: int
    answers: int

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return max(self.spikes, self.answers) > 0

    def __str__(self) -> str:
        return f"{self.spikes} of {self.neuron_steps} neuron-steps and {self.answers} values of the answers differ"


def against_reference(network: Network, other: CompiledC, inputs: Inputs) -> Difference:
    """Run both on the same samples, and compare spikes and answers with no tolerance."""
    expected, _ = ReferenceEngine(network).run(inputs, record=Record.RASTER)
    result = other.run(inputs)
    rasters = [(raster, result.rasters[name]) for name, raster in expected.rasters.items()]
    answers = [(expected.spike_counts, result.spike_counts), (expected.readout, result.readout)]
    return Difference(_differing(rasters), sum(raster.size for raster, _ in rasters), _differing(answers))


def _differing(pairs: Sequence[tuple[Any, Any]]) -> int:
    return sum(int(np.count_nonzero(one != other)) for one, other in pairs)
