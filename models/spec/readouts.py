"""What an answer is read from, spikes, the last node's output or a membrane, and what is made of it over time.

    spike_count      the number of spikes of each output neuron
    first_spike      the steps from an output neuron's first spike to the end: the earlier the more, and 0 for none
    sum, mean, max, last                                      of the last node's output, whichever node that is
    sum_membrane, mean_membrane, max_membrane, last_membrane  of the last neuron's membrane, after the reset

The output of a layer that fires is its spikes, so that their mean is its firing rate. The output of an I, LI or CubaLI
is its membrane, so that `mean` and `mean_membrane` of it are the same. Sums run in float64, step by step.
"""

from __future__ import annotations

from enum import StrEnum


class Reduction(StrEnum):
    """What is made over time of one value for each step."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    LAST = "last"


class Readout(StrEnum):
    """What the answer is read from, over all steps."""

    SPIKE_COUNT = "spike_count"
    FIRST_SPIKE = "first_spike"
    SUM = "sum"
    MEAN = "mean"
    MAX = "max"
    LAST = "last"
    SUM_MEMBRANE = "sum_membrane"
    MEAN_MEMBRANE = "mean_membrane"
    MAX_MEMBRANE = "max_membrane"
    LAST_MEMBRANE = "last_membrane"

    @property
    def of_spikes(self) -> bool:
        """Whether it needs spikes, and so a spiking last neuron."""
        return self in (Readout.SPIKE_COUNT, Readout.FIRST_SPIKE)

    @property
    def of_membrane(self) -> bool:
        """Whether it needs a membrane, and so a last neuron."""
        return self.endswith("_membrane")

    @property
    def reduction(self) -> Reduction:
        """What it makes of one value for each step; raises ValueError for those of spikes."""
        return Reduction(self.removesuffix("_membrane"))
