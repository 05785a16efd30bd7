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

import numpy as np
from numpy.typing import NDArray


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


class Scores(StrEnum):
    """What the values of a readout are, and so what an answer makes of them.

    `softmax`: scores of classes, whose softmax are the probabilities. `probabilities`: probabilities already, which an
    answer gives as they are. `values`: numbers with names and units (regression), of which no class is made.
    """

    SOFTMAX = "softmax"
    PROBABILITIES = "probabilities"
    VALUES = "values"

    @property
    def has_classes(self) -> bool:
        """Whether the highest value is the answer's class."""
        return self is not Scores.VALUES

    def probabilities(self, readout: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of the classes for a readout, both (batch, classes)."""
        if self is Scores.PROBABILITIES:
            return readout
        # By the ufuncs themselves: the methods of arrays take twice as long for a few classes.
        shifted = readout - np.maximum.reduce(readout, axis=1, keepdims=True)
        np.exp(shifted, out=shifted)
        shifted /= np.add.reduce(shifted, axis=1, keepdims=True)
        return shifted
