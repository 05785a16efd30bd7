"""What goes wrong when a network comes in from another framework, in sentences.

TrainingError
├── InvalidEntry       a factory, state_dict or framework that cannot be had
└── NotConvertible     a network that holds what a spec cannot say, module by module
"""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import TrainingError


class InvalidEntry(TrainingError):
    """A factory, state_dict or framework that cannot be had; the message names it and what was expected."""


class NotConvertible(TrainingError):
    """A network that cannot be converted; the message has a line for each module: path, class, field and why."""

    @classmethod
    def because(cls, refusals: Sequence[str]) -> NotConvertible:
        """Return the error that lists every refusal."""
        modules = "one thing" if len(refusals) == 1 else f"{len(refusals)} things"
        return cls("\n  ".join([f"the network holds {modules} that cannot be converted:", *refusals]))
