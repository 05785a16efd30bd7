"""Normalisation: the declaration of an input whose raw values may be of any unit, learned on the training split.

none      values are taken as they are
range     low to high become 0 to 1, with one low and one high for all features
standard  each feature, or each channel of an image, has mean 0 and deviation 1 over the training split

With `standard`, a client may send values that training never saw: the declared range of a feature is that of training,
wider by half on either side, and a value beyond it is taken for its end. With the others it is refused, as a mistake of
units would be.

Real numbers lie on no grid, and float32 sums of them depend on their order. So their normalised values are rounded to a
resolution, finer than matters, which makes every sum exact (training/fit/exact.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from spikeserve.models.spec import Coding, Input, OutOfRange, describe_first_error
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.config import DataConfig, Normalise
from spikeserve.training.data.dataset import Samples
from spikeserve.training.errors import InvalidData

SLACK = 0.5  # of a feature's range in training: how much further its declared range goes on either side
FURTHEST = 32  # in deviations from the mean: no declared range goes further, so that the weights keep enough bits
STANDARD_RESOLUTION = 2.0**-6  # of a deviation
RANGE_RESOLUTION = 2.0**-8  # of the range


def method_for(config: DataConfig, coding: Coding) -> Normalise:
    """Return the configured normalisation, or the default of a coding; raises InvalidData where they do not fit."""
    usual = {Coding.CURRENT: Normalise.STANDARD, Coding.SPIKES: Normalise.NONE}.get(coding, Normalise.RANGE)
    method = config.normalise or usual
    if coding is Coding.SPIKES and method is not Normalise.NONE:
        raise InvalidData(
            f"normalise: is '{method}', but coding 'spikes' takes values as they are, expected none; the coding of "
            "analog time series is 'current'"
        )
    if coding in (Coding.RATE, Coding.LATENCY) and method is Normalise.STANDARD:
        raise InvalidData(f"normalise: is 'standard', but coding '{coding}' needs values from 0 to 1, expected range")
    return method


def declare(shape: Shape, training: Samples, held_out: Sequence[Samples], config: DataConfig, coding: Coding) -> Input:
    """Return the input's declaration for raw samples (n, *shape), or (n, time_steps, *shape) with values per step.

    Raises InvalidData for values outside of a configured range, and where every value is the same.
    """
    low = min(float(samples.min()) for samples in (training, *held_out) if len(samples))
    high = max(float(samples.max()) for samples in (training, *held_out) if len(samples))
    if low == high:
        raise InvalidData(f"x: every value is {low:g}, so there is nothing to tell samples apart by")
    method = method_for(config, coding)
    if method is Normalise.STANDARD:
        return _standard(shape, training, config)
    least, most = (low if config.low is None else config.low), (high if config.high is None else config.high)
    if low < least or high > most:
        raise InvalidData(f"x: values go from {low:g} to {high:g}, outside low {least:g} to high {most:g}")
    if method is Normalise.NONE:
        return _input(shape=shape, low=least, high=most)
    scale = 1 / (most - least)
    exact = coding not in (Coding.DIRECT, Coding.CURRENT) or (math.frexp(scale)[0] == 0.5 and _whole(training))
    return _input(
        shape=shape,
        low=least,
        high=most,
        scale=scale,
        offset=-least * scale,
        resolution=None if exact else RANGE_RESOLUTION,
    )


def _whole(samples: Samples) -> bool:
    return bool((samples == np.floor(samples)).all())


def _standard(shape: Shape, training: Samples, config: DataConfig) -> Input:
    """Return the declaration that gives each channel, the first axis of the shape, mean 0 and deviation 1."""
    channel = training.ndim - len(shape)
    others = tuple(axis for axis in range(training.ndim) if axis != channel)
    mean = training.mean(axis=others, dtype=np.float64)
    deviation = training.std(axis=others, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1.0)  # a feature that never changes stays at 0
    least, most = (end.astype(np.float64) for end in (training.min(axis=others), training.max(axis=others)))
    slack = np.where(most > least, SLACK * (most - least), deviation)
    low = np.maximum(least - slack, mean - FURTHEST * deviation)
    high = np.minimum(most + slack, mean + FURTHEST * deviation)
    return _input(
        shape=shape,
        low=_few_digits(low) if config.low is None else config.low,
        high=_few_digits(high) if config.high is None else config.high,
        scale=_few_digits(1 / deviation),
        offset=_few_digits(-mean / deviation),
        out_of_range=OutOfRange.CLIP,
        resolution=STANDARD_RESOLUTION,
    )


def _input(**fields: Any) -> Input:
    try:
        return Input(**fields)
    except ValidationError as error:
        raise InvalidData(f"x: cannot be normalised: {describe_first_error(error)}") from error


def _few_digits(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return numbers that a person can read in bundle.json, and that float32 holds as well."""
    return tuple(float(f"{value:.7g}") for value in values)
