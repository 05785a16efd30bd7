"""Augmentation of training batches.

Images are (n, …, height, width), sequences (n, time_steps, *shape), with 0 where nothing happens.
"""

from __future__ import annotations

import numpy as np

from models.spec import Input
from models.spec.network import FloatArray
from training.config import AugmentConfig


def augmented(samples: FloatArray, config: AugmentConfig, declared: Input, rng: np.random.Generator) -> FloatArray:
    """Return a batch of samples, changed as the configuration says; the same where it says nothing."""
    samples = shift(samples, config.shift, float(declared.range[0].min()), rng)
    samples = drop_events(samples, config.event_drop, rng)
    samples = shift_time(samples, config.time_shift, rng)
    return jitter_time(samples, config.time_jitter, rng)


def shift(images: FloatArray, pixels: int, fill: float, rng: np.random.Generator) -> FloatArray:
    """Return images (n, …, height, width), each shifted at random by up to `pixels` per axis, filled with `fill`."""
    if pixels == 0:
        return images
    height, width = images.shape[-2:]
    margin = [(0, 0)] * (images.ndim - 2) + [(pixels, pixels)] * 2
    padded = np.pad(images, margin, constant_values=fill)
    moved = np.empty_like(images)
    for index, (down, right) in enumerate(rng.integers(0, 2 * pixels + 1, (len(images), 2))):
        moved[index] = padded[index, ..., down : down + height, right : right + width]
    return moved


def drop_events(sequences: FloatArray, share: float, rng: np.random.Generator) -> FloatArray:
    """Return sequences without some of their values: of each, a share drawn between 0 and `share`."""
    if share == 0:
        return sequences
    shares = rng.uniform(0, share, (len(sequences), *(1 for _ in sequences.shape[1:])))
    return np.where(rng.random(sequences.shape) < shares, np.float32(0), sequences)


def shift_time(sequences: FloatArray, steps: int, rng: np.random.Generator) -> FloatArray:
    """Return sequences, each moved at random by up to `steps` earlier or later; what moves out of it is lost."""
    if steps == 0:
        return sequences
    length = sequences.shape[1]
    moved = np.zeros_like(sequences)
    for index, later in enumerate(rng.integers(-steps, steps + 1, len(sequences))):
        start, end = max(later, 0), min(length, length + later)
        if start < end:
            moved[index, start:end] = sequences[index, start - later : end - later]
    return moved


def jitter_time(rasters: FloatArray, deviation: float, rng: np.random.Generator) -> FloatArray:
    """Return rasters whose spikes each move by a number of steps from a normal distribution, within the sequence.

    Where two meet, one is left.
    """
    if deviation == 0:
        return rasters
    sample, step, *unit = np.nonzero(rasters)
    moved = step + np.rint(rng.normal(0, deviation, len(step))).astype(np.int64)
    moved = np.clip(moved, 0, rasters.shape[1] - 1)
    jittered = np.zeros_like(rasters)
    jittered[(sample, moved, *unit)] = rasters[(sample, step, *unit)]
    return jittered
