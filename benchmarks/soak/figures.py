"""What a soak comes to: figures, each beside its target, and percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured, in which unit, and the most or the least that it may be; no bound is no target."""

    phase: str
    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def target(self) -> str:
        """The target as tables show it."""
        if self.at_most is not None:
            return f"≤ {self.at_most:,.4g}" if self.at_most else "0"
        return f"≥ {self.at_least:,g}" if self.at_least is not None else ""

    @property
    def shown(self) -> str:
        """The figure as tables show it."""
        number = f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,.4g}"
        return f"{number} {self.unit}".strip()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least of `values` that so many percent do not exceed; 0 where there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
