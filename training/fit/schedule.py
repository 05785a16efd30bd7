"""The learning rate over a run, as a share of the highest one.

cosine     half a cosine from 1 down to 0
one_cycle  up from 1/25 as half a cosine in the first 30 %, then down to 1/10000 likewise (Smith & Topin, 2018)
constant   1
"""

from __future__ import annotations

import math

from spikeserve.training.config import Schedule

RISE, FIRST, LAST = 0.3, 1 / 25, 1e-4


def learning_rate_share(schedule: Schedule, progress: float) -> float:
    """Return the share of the highest learning rate at a progress from 0, the start of the run, to 1, its end."""
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.COSINE:
            return _between(1.0, 0.0, progress)
        case Schedule.ONE_CYCLE:
            if progress < RISE:
                return _between(FIRST, 1.0, progress / RISE)
            return _between(1.0, LAST, (progress - RISE) / (1 - RISE))


def _between(start: float, end: float, progress: float) -> float:
    """Return a value on half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
