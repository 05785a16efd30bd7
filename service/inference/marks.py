"""How many commas and brackets a request for a model may have, counted before it is parsed.

A value or a list takes far more memory than the two or three bytes that it is sent as: a bound of bytes alone lets a
body become sixty times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Self

from models.spec import Coding, Task
from service.errors import TooLarge
from service.inference.limits import Limits

SHORT = 2**14  # bytes of a body that is not counted; as many marks are allowed beside those of the samples
EVENT_FIELDS = 4  # t, x, y and p: the most values that say one spike


@dataclass(frozen=True)
class Marks:
    """The most commas, and the most brackets that open a list or an object, in one request for a model."""

    commas: int
    brackets: int

    @classmethod
    def of(cls, task: Task, limits: Limits) -> Self:
        """Return what the largest request that `limits` allow may have: a comma a value, a bracket a row.

        For rasters each of its steps has as many, and a sample of events as many as a raster of nothing but spikes.
        """
        spikes = task.coding is Coding.SPIKES
        steps = min(limits.samples * (limits.time_steps if spikes else 1), limits.values // task.widest)
        shape = task.input.shape
        values = steps * math.prod(shape) * (EVENT_FIELDS if spikes else 1)
        rows = steps * sum(accumulate(shape[:-1], mul, initial=1))
        lists = limits.samples * (1 + EVENT_FIELDS) if spikes else 0  # a sample's own, and those of its events
        return cls(values + SHORT, rows + lists + SHORT)

    def check(self, body: bytes) -> None:
        """Raise TooLarge for a body that has more."""
        if len(body) <= SHORT:
            return
        for what, found, most in (
            ("commas", body.count(b","), self.commas),
            ("lists and objects", body.count(b"[") + body.count(b"{"), self.brackets),
        ):
            if found > most:
                raise TooLarge(f"the body has {found} {what}, expected at most {most} in one request for this model")
