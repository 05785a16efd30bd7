"""The inverse of `rate` and `latency` coding: values that are encoded as given spikes.

    rate     the value is above each random number at whose step there is a spike, and above no other: it is in between
    latency  1 - step / (time_steps - 1), but at the last step a quarter of what it is one step earlier, not 0

Several values are encoded alike, and this is one of them. An input without a spike is 0, one with all of them 1.
"""

from __future__ import annotations

import numpy as np

from spikeserve.models.coding.encode import uniform
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray


def decode(spikes: FloatArray, coding: Coding, seed: int = 0) -> FloatArray:
    """Return normalised values (*input shape) that are encoded as `spikes` (time_steps, *input shape).

    For `rate` coding `seed` is the one that drew them; of spikes that were drawn otherwise the values mean nothing, and
    `encode` gives others. Raises InvalidInput for another coding.
    """
    if coding is Coding.RATE:
        return _rate(spikes, seed)
    if coding is Coding.LATENCY:
        return _latency(spikes)
    raise InvalidInput(f"coding is '{coding}', expected 'rate' or 'latency'")


def _rate(spikes: FloatArray, seed: int) -> FloatArray:
    drawn, spiked = uniform(seed, len(spikes), spikes.shape[1:]), spikes > 0
    above = np.where(spiked, drawn, 0).max(axis=0)
    at_most = np.where(spiked, 1, drawn).min(axis=0)
    between = (above + at_most) / 2
    return np.where(spiked.all(axis=0), 1, np.where(spiked.any(axis=0), between, 0)).astype(np.float32)


def _latency(spikes: FloatArray) -> FloatArray:
    last = max(1, len(spikes) - 1)
    step = spikes.argmax(axis=0)
    value = np.where(step == len(spikes) - 1, 1 / (4 * last), 1 - step / last) if len(spikes) > 1 else 1.0
    return np.where(spikes.any(axis=0), value, 0).astype(np.float32)
