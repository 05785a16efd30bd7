"""What a contestant of training does, and the rule that its neurons follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.contestants.base import Targets
from spikeserve.models.engines.base import Counts
from spikeserve.models.spec.network import FloatArray


@dataclass(frozen=True)
class Rule:
    """How a library's LIF goes through a step, where that is not ours.

    Ours: charged = decay * membrane + current, a spike where charged >= threshold, and then
    membrane = charged - threshold * spike, where the spike is detached.
    """

    late_reset: bool = False  # the threshold is subtracted at the next step, beside the decay
    late_spike: bool = False  # a step's spikes are those of the membrane before the current came
    detached: bool = True  # no gradient through the reset

    @property
    def note(self) -> str:
        """What differs, as tables say it; nothing where the rule is ours."""
        differences = {
            "resets a step late": self.late_reset,
            "fires a step late": self.late_spike,
            "passes gradients through the reset": not self.detached,
        }
        return ", ".join(words for words, differs in differences.items() if differs)


OURS = Rule()


@dataclass(frozen=True)
class Outcome:
    """What a step gave: the loss, and the gradient of each of the network's tensors by name."""

    loss: float
    gradients: Mapping[str, FloatArray]


class Training(Protocol):
    """A library that trains a network; a batch lies as the library likes it."""

    def load(self, steps: FloatArray, targets: Targets) -> Any:
        """Return a batch of spikes (time_steps, batch, *shape) with its targets (batch,)."""

    def step(self, batch: Any) -> float:
        """Forward, cross-entropy of the spike counts, backward, optimiser; return the loss."""

    def gradients(self) -> dict[str, FloatArray]:
        """Return the gradients of the last step, by the names of the network's tensors and in their shapes."""

    def counts(self, batch: Any) -> Counts:
        """Return the spike counts (batch, classes), without training."""
