"""The progress of a run: the record of each epoch, and the callbacks that receive it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

CLIP_NORM = 1.0  # gradients that are longer are cut to it
ENOUGH = 50  # validation samples: with fewer, a difference between two epochs is mostly luck


def kept(validation_samples: int) -> str:
    """Say which epoch's weights a run keeps, as the end of a sentence."""
    return f"the weights of its {'best' if validation_samples >= ENOUGH else 'last'} epoch are kept"


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch; rates are spikes per neuron and step.

    `gradient_norms` has the length of the gradient of each batch before clipping, and `gradient_norm` is their median;
    None and empty where they were not measured. `warnings` are sentences about what looks wrong. Without any validation
    samples, their loss and accuracy are not a number, and the firing rates are those of training samples.
    """

    number: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    firing_rates: dict[str, float]
    seconds: float
    gradient_norm: float | None = None
    gradient_norms: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    validation_samples: int = ENOUGH

    @property
    def chooses(self) -> bool:
        """Whether there were validation samples enough for their accuracy to say which epoch is the best."""
        return self.validation_samples >= ENOUGH

    def better_than(self, other: Epoch | None) -> bool:
        """Return whether this epoch validates better: by accuracy, then by loss. The later one, with few samples."""
        if other is None or not self.chooses:
            return True
        mine = (self.validation_accuracy, -self.validation_loss)
        return mine > (other.validation_accuracy, -other.validation_loss)


def accuracy_by_minutes(epochs: Sequence[Epoch]) -> str:
    """Say the best validation accuracy after 1, 2, 4, … minutes; "" of a shorter run, or one that chooses no epoch."""
    ends = [*accumulate(epoch.seconds for epoch in epochs)]
    best = [*accumulate((epoch.validation_accuracy for epoch in epochs), max)]
    if not epochs or not epochs[-1].chooses:
        return ""
    ended = {minutes: sum(end <= 60 * minutes for end in ends) for minutes in (2**power for power in range(20))}
    reached = [f"{best[n - 1]:.2%} after {minutes} min" for minutes, n in ended.items() if 0 < n < len(epochs)]
    last = f"{best[-1]:.2%} after {ends[-1] / 60:.1f} min"
    return f"Best validation accuracy: {', '.join([*reached, last])}" if ends[-1] > 60 else ""


@dataclass(frozen=True)
class Watcher:
    """Callbacks during a run: after each epoch, and after each batch.

    That is called with the epoch's number, the share of it that is done, the learning rate and the loss.
    """

    batch: Callable[[int, float, float, float], None] = lambda *_: None
    epoch: Callable[[Epoch], None] = lambda _: None


SILENT = Watcher()
