"""What looks wrong about a run, in a sentence for each kind of trouble, once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from spikeserve.training.data.dataset import Dataset
from spikeserve.training.report.epochs import CLIP_NORM, Epoch

EXPLODING = 1000.0  # times CLIP_NORM: the median length of the gradient over an epoch
VANISHING = 1e-5  # the same, while the loss is not small
SILENT, SATURATED = 1e-4, 0.9  # spikes per neuron and step
PATIENCE = 5  # epochs, before accuracy at chance is worth a sentence


class Diagnostics:
    """The warnings of a run, epoch by epoch; each kind of trouble is reported once for each layer."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.told: set[str] = set()

    def of(self, epoch: Epoch) -> tuple[str, ...]:
        """Return the warnings of an epoch that were not given before."""
        found = {kind: sentence for kind, sentence in self._all(epoch) if kind not in self.told}
        self.told |= found.keys()
        return tuple(found.values())

    def _all(self, epoch: Epoch) -> Iterator[tuple[str, str]]:
        yield from self._gradients(epoch)
        for layer, rate in epoch.firing_rates.items():
            if rate < SILENT:
                yield (
                    f"silent {layer}",
                    f"{layer} is silent: {rate:.2g} spikes per neuron and step, so it learns little",
                )
            elif rate > SATURATED:
                yield f"saturated {layer}", f"{layer} fires at nearly every step ({rate:.0%}), which carries little"
        yield from self._chance(epoch)

    def _gradients(self, epoch: Epoch) -> Iterator[tuple[str, str]]:
        norm = epoch.gradient_norm
        if not math.isfinite(epoch.training_loss):
            yield "loss", f"the training loss is {epoch.training_loss}: a lower --learning-rate may help"
        if norm is None:
            return
        if not norm <= EXPLODING * CLIP_NORM:
            yield (
                "exploding",
                f"gradients explode: their median length is {norm:.1e} before they are clipped to {CLIP_NORM:g}; "
                "--surrogate superspike, a lower --slope or --learning-rate may help",
            )
        elif norm < VANISHING and epoch.training_loss > 0.1 * math.log(len(self.data.class_names)):
            yield (
                "vanishing",
                f"gradients vanish: their median length is {norm:.1e}; a lower --slope widens the surrogate",
            )

    def _chance(self, epoch: Epoch) -> Iterator[tuple[str, str]]:
        if epoch.number + 1 < PATIENCE:
            return
        labels = self.data.training.labels
        chance = float(np.bincount(labels).max()) / len(labels)
        by_luck = chance + 3 * math.sqrt(chance * (1 - chance) / len(labels))
        if epoch.training_accuracy <= by_luck:
            yield (
                "chance",
                f"after {epoch.number + 1} epochs the training accuracy is {epoch.training_accuracy:.1%}, which chance "
                f"can explain: always naming the most frequent class is right in {chance:.1%}, and in up to "
                f"{by_luck:.1%} of {len(labels)} samples by luck",
            )
