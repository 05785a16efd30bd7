"""The progress of a run: the record of each epoch, and the callbacks that receive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch; rates are spikes per neuron and step."""

    number: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    firing_rates: dict[str, float]
    seconds: float

    def better_than(self, other: Epoch | None) -> bool:
        """Return whether this epoch validates better: by accuracy, then by loss."""
        if other is None:
            return True
        mine = (self.validation_accuracy, -self.validation_loss)
        return mine > (other.validation_accuracy, -other.validation_loss)


@dataclass(frozen=True)
class Watcher:
    """Callbacks during a run: after each batch, with its share of the epoch, and after each epoch."""

    batch: Callable[[int, float], None] = lambda _, __: None
    epoch: Callable[[Epoch], None] = lambda _: None


SILENT = Watcher()
