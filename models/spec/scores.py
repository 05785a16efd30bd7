"""What a readout's values are: scores of classes, probabilities of classes, or numbers of their own."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


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
