"""The rules that a NIR file leaves out: which dialect, how long a step is, and what a spike does to the membrane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from spikeserve.models.spec.nodes import ResetTiming
from spikeserve.training.errors import InvalidRules


class DialectName(StrEnum):
    """Whose equations a graph is read under."""

    NIR = "nir"
    SNNTORCH = "snntorch"
    NORSE = "norse"
    SINABS = "sinabs"
    SPIKINGJELLY = "spikingjelly"


class GraphReset(StrEnum):
    """What a spike does to the membrane: by the threshold, to 0, to the file's v_reset, or nothing."""

    SUBTRACT = "subtract"
    ZERO = "zero"
    VALUE = "value"
    NONE = "none"


@dataclass(frozen=True)
class Rules:
    """The rules in force; `dt` is in seconds, `reset_timing` is the dialect's own unless it is given."""

    dialect: DialectName
    dt: float
    reset: GraphReset
    reset_timing: ResetTiming | None = None


@dataclass(frozen=True)
class GivenRules:
    """The rules as far as a caller or a file names them."""

    dialect: DialectName | None = None
    dt: float | None = None
    reset: GraphReset | None = None
    reset_timing: ResetTiming | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> GivenRules:
        """Return the rules in a file's metadata; raises InvalidRules for a name or number that is none."""
        return cls(
            _one_of(DialectName, "dialect", metadata.get("dialect")),
            _seconds(metadata.get("dt")),
            _one_of(GraphReset, "reset", metadata.get("reset")),
            _one_of(ResetTiming, "reset_timing", metadata.get("reset_timing")),
        )

    def over(self, others: GivenRules) -> GivenRules:
        """Return these rules, and the others' where these are silent."""
        # Another dialect or reset than the file's has a timing of its own.
        same = self.dialect in (None, others.dialect) and self.reset in (None, others.reset)
        return GivenRules(
            self.dialect or others.dialect,
            others.dt if self.dt is None else self.dt,
            self.reset or others.reset,
            self.reset_timing or (others.reset_timing if same else None),
        )

    @property
    def missing(self) -> list[str]:
        """The names of the rules that are missing."""
        return [name for name in ("dialect", "dt", "reset") if getattr(self, name) is None]

    def complete(self) -> Rules:
        """Return the rules; raises InvalidRules with what is missing, and what there is to name."""
        if self.dialect is None or self.dt is None or self.reset is None:
            raise InvalidRules(
                f"the file does not name its {', '.join(self.missing)}, which NIR leaves out: give "
                f"{' '.join('--' + name for name in self.missing)} (dialects: {', '.join(DialectName)}; dt: seconds "
                f"per step; resets: {', '.join(GraphReset)})"
            )
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise InvalidRules(f"dt is {self.dt:g}, expected a number of seconds more than 0")
        return Rules(self.dialect, self.dt, self.reset, self.reset_timing)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidRules(f"the file's dt is {str(value)[:80]!r}, expected a number of seconds") from None


def _one_of(names: type[StrEnum], field: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        return names(str(value))
    except ValueError:
        raise InvalidRules(f"the file's {field} is {str(value)[:80]!r}, expected one of: {', '.join(names)}") from None
