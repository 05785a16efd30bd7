"""Random samples, for networks that come without data."""

from __future__ import annotations

import numpy as np

from models.spec import Coding, Spec
from models.spec.network import FloatArray
from training.data.datasets import Split

SPARSEST, DENSEST = 0.02, 0.6  # share of spikes that a sample may have


def random_samples(spec: Spec, samples: int, seed: int = 0) -> FloatArray:
    """Return samples as a client would send them, (samples, *shape): values from the input's whole range.

    For `spikes` coding rasters (samples, time_steps, *shape) of 0 and the highest value, few spikes in some samples and
    many in others.
    """
    rng = np.random.default_rng(seed)
    low, high = np.float32(spec.input.low), np.float32(spec.input.high)
    if spec.coding is not Coding.SPIKES:
        drawn = rng.random((samples, *spec.input.shape), np.float32)
        return np.clip(low + drawn * (high - low), low, high)
    drawn = rng.random((samples, spec.time_steps, *spec.input.shape), np.float32)
    share = rng.permutation(np.linspace(SPARSEST, DENSEST, samples, dtype=np.float32))
    silence = max(low, min(high, np.float32(0)))
    return np.where(drawn < share.reshape(-1, *(1 for _ in drawn.shape[1:])), high, silence)


def random_split(spec: Spec, samples: int) -> Split:
    """Return such samples as a part of a data set, with labels that mean nothing."""
    return Split(random_samples(spec, samples), np.zeros(samples, np.int64))
