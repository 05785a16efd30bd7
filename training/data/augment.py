"""Augmentation of training batches."""

from __future__ import annotations

import numpy as np

from models.spec.network import FloatArray


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
