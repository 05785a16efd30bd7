"""Random samples, for imported networks without data."""

from __future__ import annotations

import numpy as np

from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.data.datasets import Split

MIN_DENSITY, MAX_DENSITY = 0.02, 0.6  # of spikes in a sample's raster


def random_samples(spec: Spec, samples: int, seed: int = 0) -> FloatArray:
    """Return raw samples, (samples, *shape), of random values from the input's whole range.

    For `current` coding they are (samples, time_steps, *shape). For `spikes` coding, return rasters of that shape of 0
    and the highest value, with few spikes in some samples and many in others.
    """
    rng = np.random.default_rng(seed)
    low, high = spec.input.range
    if spec.coding is not Coding.SPIKES:
        steps = (spec.time_steps,) if spec.coding.per_step else ()
        drawn = rng.random((samples, *steps, *spec.input.shape), np.float32)
        return np.clip(low + drawn * (high - low), low, high)
    drawn = rng.random((samples, spec.time_steps, *spec.input.shape), np.float32)
    share = rng.permutation(np.linspace(MIN_DENSITY, MAX_DENSITY, samples, dtype=np.float32))
    silence = np.clip(np.float32(0), low, high)
    return np.where(drawn < share.reshape(-1, *(1 for _ in drawn.shape[1:])), high, silence)


def random_split(spec: Spec, samples: int) -> Split:
    """Return random samples as a split, with meaningless labels."""
    return Split(random_samples(spec, samples), np.zeros(samples, np.int64))
