"""Augmentation: training samples that are varied at random, so that a network learns what does not matter.

shift        pictures, and rasters of event cameras, move by some pixels
event_drop   a span of time, some channels or events at random are missing (Gu et al., IJCAI 2021: EventDrop)
time_jitter  each spike is a little early or late
time_shift   a sample begins earlier or later

What is missing, and what moves in from outside, is `silence`: 0 for spikes, and for analog values the one that is 0
after normalisation. Rasters of spikes stay so. Nothing here changes its arguments.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import AugmentConfig
from spikeserve.training.data.dataset import Lengths, Samples
from spikeserve.training.errors import InvalidConfig

PICTURE_AXES = 2  # height and width


def augment(
    samples: Samples,
    settings: AugmentConfig,
    rng: np.random.Generator,
    *,
    declared: Input,
    coding: Coding,
    lengths: Lengths | None = None,
) -> Samples:
    """Vary a batch of raw samples (n, *shape), or (n, time_steps, *shape) with values per step, by `settings`.

    The steps after the first `lengths` (n,), where they are given, are padding, which is silence.
    Raises InvalidConfig for a setting that has no meaning for such samples.
    """
    check_augmentation(settings, declared, coding)
    if settings.shift:
        samples = shift(samples, settings.shift, declared.range[0], rng)  # the border that a picture leaves
    rest = silence(declared)
    if settings.time_shift:
        samples = time_shift(samples, settings.time_shift, rest, rng)
    if settings.time_jitter:
        samples = time_jitter(samples, settings.time_jitter, rng)
    if settings.event_drop:
        samples = event_drop(samples, settings.event_drop, rest, rng, per_step=coding.per_step, lengths=lengths)
    return samples


def check_augmentation(settings: AugmentConfig, declared: Input, coding: Coding) -> None:
    """Raise InvalidConfig for a setting that has no meaning for such samples."""
    if settings.shift and len(declared.shape) < PICTURE_AXES:
        raise InvalidConfig(f"augment.shift: is {settings.shift}, but the input has no height and width, expected 0")
    if settings.time_shift and not coding.per_step:
        raise InvalidConfig(
            f"augment.time_shift: is {settings.time_shift}, but samples have no time with coding '{coding}', expected 0"
        )
    if settings.time_jitter and coding is not Coding.SPIKES:
        raise InvalidConfig(
            f"augment.time_jitter: is {settings.time_jitter:g}, but samples are no spikes with coding '{coding}', "
            "expected 0"
        )


def silence(declared: Input) -> NDArray[np.float32]:
    """Return the raw values that are nearest to 0 after normalisation, as an array that broadcasts to the shape."""
    low, high = declared.range
    scale, offset = declared.factors
    with np.errstate(divide="ignore", invalid="ignore"):
        at_zero = np.where(scale == 0, 0, -offset / scale)
    return np.clip(at_zero, low, high).astype(np.float32)


def shift(images: Samples, pixels: int, fill: Any, rng: np.random.Generator) -> Samples:
    """Return images (n, …, height, width), each shifted at random by up to `pixels` per axis, filled with `fill`.

    `fill` broadcasts to an image.
    """
    height, width = images.shape[-2:]
    moved = np.full_like(images, fill)
    for index, (down, right) in enumerate(rng.integers(-pixels, pixels + 1, (len(images), 2))):
        to_rows, from_rows = _overlap(int(down), height)
        to_columns, from_columns = _overlap(int(right), width)
        moved[index, ..., to_rows, to_columns] = images[index, ..., from_rows, from_columns]
    return moved


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    """Return where values land that move `by` places along an axis, and where they come from."""
    by = max(-size, min(size, by))
    return slice(max(0, by), size + min(0, by)), slice(max(0, -by), size - max(0, by))


def time_shift(samples: Samples, steps: int, rest: Any, rng: np.random.Generator) -> Samples:
    """Return samples (n, time_steps, *shape), each moved by -`steps` to `steps` steps; `rest` comes in from outside."""
    moved = np.full_like(samples, rest)
    for index, by in enumerate(rng.integers(-steps, steps + 1, len(samples))):
        to, source = _overlap(int(by), samples.shape[1])
        moved[index, to] = samples[index, source]
    return moved


def time_jitter(rasters: Samples, deviation: float, rng: np.random.Generator) -> Samples:
    """Return rasters (n, time_steps, *shape) with each spike moved by a normal number of steps, rounded.

    Spikes that leave the sample are gone, and of two that meet the larger stays.
    """
    moved = np.zeros_like(rasters)
    sample, step, *place = rasters.nonzero()
    to = step + np.rint(rng.normal(0.0, deviation, len(step))).astype(np.int64)
    inside = (to >= 0) & (to < rasters.shape[1])
    values = rasters[(sample, step, *place)][inside]
    np.maximum.at(moved, (sample[inside], to[inside], *(axis[inside] for axis in place)), values)
    return moved


def event_drop(
    samples: Samples,
    largest: float,
    rest: Any,
    rng: np.random.Generator,
    *,
    per_step: bool,
    lengths: Lengths | None = None,
) -> Samples:
    """Return samples of which each lacks a random share, up to `largest`, in one of three ways that is drawn for each.

    A span of its time (where it has any, and of its first `lengths` (n,) steps if given), some of its channels (the
    first axis of the shape), or values at random are set to `rest`.
    """
    kept = np.ones(samples.shape, bool)
    shares = rng.random(len(samples)) * largest
    ways = rng.integers(0 if per_step else 1, 3, len(samples))
    first_axis = 1 if per_step else 0
    for index, (share, way) in enumerate(zip(shares, ways, strict=True)):
        keeps = kept[index] if lengths is None else kept[index, : lengths[index]]
        if way == 0:
            span = math.ceil(share * len(keeps))
            start = rng.integers(0, len(keeps) - span + 1)
            keeps[start : start + span] = False
        elif way == 1:
            dropped = rng.random(keeps.shape[first_axis]) < share
            keeps[(slice(None),) * first_axis + (dropped,)] = False
        else:
            keeps[rng.random(keeps.shape) < share] = False
    return np.where(kept, samples, np.asarray(rest, samples.dtype))
