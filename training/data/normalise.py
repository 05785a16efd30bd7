"""Normalisation: the declaration of an input whose raw values may be of any unit, learned on the training split.

none      values are taken as they are
range     low to high become 0 to 1: those of each feature of a table, or one low and one high for all other samples
standard  each feature, or each channel of an image, has mean 0 and deviation 1 over the training split
each      so has then each sample of a series, whatever its amplitude, whose logarithm is a channel more

All is learned on the training split. With `standard`, a client may send values that training never saw: the declared
range of a feature is that of training, wider by half on either side, and a value beyond it is taken for its end. So it
is in a table, without being wider. Elsewhere a value outside of the range is refused, as a mistake of units would be,
unless the held out samples have some.

Real numbers lie on no grid, and float32 sums of them depend on their order. So their normalised values are rounded to a
resolution, which makes every sum exact (training/fit/exact.py); where it is not finer than matters, a sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Coding, Input, OutOfRange, validated
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.config import DataConfig, Normalise
from spikeserve.training.data.dataset import Samples, Split
from spikeserve.training.errors import InvalidData

SLACK = 0.5  # of a feature's range in training: how much further its declared range goes on either side
FEW_LEVELS = 4  # of a feature or a sample: with fewer, a sentence says that rounding hides what the values say
JUDGED = 1000  # training samples at most, of which levels are counted
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
    if method is Normalise.EACH and coding is not Coding.CURRENT:
        raise InvalidData(f"normalise: is 'each' with coding '{coding}', expected 'current', the coding of a series")
    if coding in (Coding.RATE, Coding.LATENCY) and method is Normalise.STANDARD:
        raise InvalidData(f"normalise: is 'standard', but coding '{coding}' needs values from 0 to 1, expected range")
    return method


def declare(shape: Shape, training: Samples, held_out: Sequence[Samples], config: DataConfig, coding: Coding) -> Input:
    """Return the input's declaration for raw samples (n, *shape), or (n, time_steps, *shape) with values per step.

    Raises InvalidData for values outside of a configured range, and where every value is the same.
    """
    if training.min() == training.max():
        raise InvalidData(f"x: every value is {training.min():g}, so there is nothing to tell samples apart by")
    method = method_for(config, coding)
    table = method is Normalise.RANGE and len(shape) == 1 and config.low is None and config.high is None
    if method in (Normalise.STANDARD, Normalise.EACH) or table:
        return _by_feature(shape, training, config, method)
    splits = [training, *(samples for samples in held_out if len(samples))]
    lowest, highest = min(float(samples.min()) for samples in splits), max(float(samples.max()) for samples in splits)
    least, most = (
        float(of_training) if limit is None else limit
        for limit, of_training in ((config.low, training.min()), (config.high, training.max()))
    )
    if (config.low is not None and lowest < least) or (config.high is not None and highest > most):
        raise InvalidData(f"x: values go from {lowest:g} to {highest:g}, outside low {least:g} to high {most:g}")
    beyond = OutOfRange.CLIP if lowest < least or highest > most else OutOfRange.REFUSE
    if method is Normalise.NONE:
        return _input(shape=shape, low=least, high=most, out_of_range=beyond)
    scale = 1 / (most - least)
    exact = coding not in (Coding.DIRECT, Coding.CURRENT) or (math.frexp(scale)[0] == 0.5 and not (training % 1).any())
    return _input(
        shape=shape,
        low=least,
        high=most,
        scale=scale,
        offset=-least * scale,
        out_of_range=beyond,
        resolution=None if exact else RANGE_RESOLUTION,
    )


def _by_feature(shape: Shape, training: Samples, config: DataConfig, method: Normalise) -> Input:
    """Return the declaration by which each channel, the first axis of the shape, has its own normalisation."""
    channel = training.ndim - len(shape)
    others = tuple(axis for axis in range(training.ndim) if axis != channel)
    low, high = (end.astype(np.float64) for end in (training.min(axis=others), training.max(axis=others)))
    varies = high - low > np.abs(low) * 2.0**-18  # by more than float32 and the digits of a bundle lose
    alone = np.maximum(1.0, np.abs(low) / 1024)  # the range of a feature that never changes, which stays at 0
    if method is not Normalise.RANGE:
        zero, one = training.mean(axis=others, dtype=np.float64), training.std(axis=others, dtype=np.float64)
        one = np.where(one > 0, one, 1.0)
        slack = np.where(varies, SLACK * (high - low), alone)
        low, high = low - slack, high + slack
        if method is Normalise.STANDARD:
            low, high = np.maximum(low, zero - FURTHEST * one), np.minimum(high, zero + FURTHEST * one)
    else:
        high = np.where(varies, high, low + alone)
        zero, one = low, high - low
    return _input(
        shape=shape,
        low=_few_digits(low) if config.low is None else config.low,
        high=_few_digits(high) if config.high is None else config.high,
        scale=_few_digits(1 / one),
        offset=_few_digits(-zero / one),
        out_of_range=OutOfRange.CLIP,
        resolution=RANGE_RESOLUTION if method is Normalise.RANGE else STANDARD_RESOLUTION,
        by_deviation=method is Normalise.EACH,
    )


def lost_levels(training: Split, declared: Input) -> tuple[str, ...]:
    """Return a sentence where rounding leaves a feature, and one where it leaves half of the samples, few levels."""
    if declared.resolution is None or declared.by_deviation:
        return ()
    some = training[:: math.ceil(len(training) / JUDGED)]
    seen = replace(some, samples=declared.normalise(np.clip(some.samples, *declared.range)))
    axis = some.values.ndim - len(declared.shape)
    by_feature = (np.moveaxis(split.values, axis, 0) for split in (some, seen))
    features = [number for number, both in enumerate(zip(*by_feature, strict=True)) if _loses(*both)]
    by_sample = zip(some.batches(1), seen.batches(1), strict=True)
    share = sum(_loses(raw.samples, rounded.samples) for (_, raw), (_, rounded) in by_sample) / len(some)
    said = f"x: rounding to {declared.resolution:g} after normalisation leaves"
    fewer = f"fewer than {FEW_LEVELS} levels, since others lie far away:"
    sentences = []
    if features:
        which = f"feature {features[0]}" + (f" and {len(features) - 1} others" if features[1:] else "")
        sentences.append(f"{said} {which} {fewer} take its logarithm, or leave outliers out")
    if share >= 0.5:
        cure = "give --normalise each" if axis == 2 else "scale the samples alike"  # of a series
        sentences.append(f"{said} {share:.0%} of the samples {fewer} {cure}, or take logarithms")
    return tuple(sentences)


def merged_levels(name: str, raw: NDArray[Any]) -> tuple[str, ...]:
    """Return a sentence where float32 merges the values of a feature of an array (n, …), such as Unix times."""
    some = raw[:: math.ceil(len(raw) / JUDGED)].reshape(-1, math.prod(raw.shape[1:]))
    kept = some.astype(np.float32)
    near = np.ptp(kept, axis=0) < FEW_LEVELS * np.spacing(np.abs(kept).max(axis=0))
    merged = [number for number in np.flatnonzero(near) if _loses(some[:, number], kept[:, number])]
    if not merged:
        return ()
    which = f"feature {merged[0]}" + (f" and {len(merged) - 1} others" if merged[1:] else "")
    left, levels = len(np.unique(kept[:, merged[0]])), len(np.unique(some[:, merged[0]]))
    return (f"{name}: float32 keeps {left} of {levels} values of {which}: subtract the lowest, or take differences",)


def _loses(raw: NDArray[Any], rounded: NDArray[Any]) -> bool:
    return len(np.unique(rounded)) < FEW_LEVELS <= len(np.unique(raw))


def _input(**fields: Any) -> Input:
    return validated(InvalidData, "x: cannot be normalised", Input, **fields)


def _few_digits(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return numbers that a person can read in bundle.json, and that float32 holds as well."""
    return tuple(float(f"{value:.7g}") for value in values)
