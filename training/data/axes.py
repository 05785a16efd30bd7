"""What the axes of a user's samples are: the coding that suits them, and pictures as (channels, height, width)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Coding
from spikeserve.models.spec.parameters import show
from spikeserve.training.errors import InvalidData

CHANNELS = (1, 3, 4)  # of a picture: grey, colours, and colours with alpha
SIDE = 4  # pixels at least
PIXELS = 8  # sides of whole numbers from 0 to 255 that may be a picture's as well as a series' of integers


def suited_coding(x: NDArray[Any], *, timed: bool) -> Coding:
    """Return the coding that suits samples (n, …) or, where the file has their lengths or times, (…, time, …).

    Raises InvalidData where the samples may be series as well as pictures.
    """
    shape, whole = x.shape[1:], x.dtype.kind in "biu" and x.size and x.min() >= 0
    if timed or (len(shape) == 2 and shape[0] != shape[1]):
        if ((x == 0) | (x == 1)).all():
            return Coding.SPIKES
        if timed or not (whole and x.max() < 256 and min(shape) >= PIXELS):
            return Coding.CURRENT
    elif len(shape) < 3 or (len(shape) == 3 and {shape[0], shape[2]} & {*CHANNELS, 2}):
        return Coding.DIRECT
    raise InvalidData(
        f"x: samples of {show(shape)} may be pictures or series, expected --coding direct for pictures, "
        "or current (values) or spikes, with time as the first axis"
    )


def channels_first(samples: NDArray[Any], coding: Coding) -> NDArray[Any]:
    """Return pictures (n, height, width) or (n, height, width, channels) as (n, channels, height, width).

    What is no picture is returned as it is.
    """
    if coding.per_step or samples.ndim not in (3, 4):
        return samples
    if samples.ndim == 3:
        return samples[:, np.newaxis] if min(samples.shape[1:]) >= SIDE else samples
    last = samples.shape[3] in CHANNELS and samples.shape[1] not in CHANNELS
    return np.ascontiguousarray(np.moveaxis(samples, 3, 1)) if last else samples
