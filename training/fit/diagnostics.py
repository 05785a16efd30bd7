"""What looks wrong about a run, in a sentence for each kind of trouble, once: at its start, in an epoch, at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from spikeserve.training.config import UPDATES, TrainingConfig
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.report.epochs import CLIP_NORM, ENOUGH, Epoch, kept
from spikeserve.training.report.evaluate import Evaluation

EXPLODING = 1000.0  # times CLIP_NORM: the median length of the gradient over an epoch
VANISHING = 1e-5  # the same, while the loss is not small
SILENT, SATURATED = 1e-4, 0.9  # spikes per neuron and step
PATIENCE = 5  # epochs, before accuracy at chance is worth a sentence
MUCH_FIRING = 0.15  # spikes per neuron and step, above which a penalty for firing is worth a sentence


def at_start(config: TrainingConfig, data: Dataset) -> Iterator[str]:
    """Yield what of the configuration and of the sizes of the data may spoil a run."""
    updates = config.optimisation.updates(len(data.training))
    if updates < UPDATES // 4:
        yield (
            f"{len(data.training)} training samples in batches of {config.optimisation.batch_size} are {updates} "
            f"updates of the weights, which usually need {UPDATES}: more --epochs or a smaller --batch-size may help"
        )
    few = f"{len(data.validation)} validation samples are too few to choose an epoch by, expected {ENOUGH}"
    if not len(data.validation):
        few = "nothing is held out for validation, since a class or the groups have too few samples"
    if len(data.validation) < ENOUGH:
        yield f"{few}: {kept(len(data.validation))}"


def chance(evaluation: Evaluation) -> str | None:
    """Return a sentence where the test accuracy is no better than always naming the most frequent class."""
    often = float(np.bincount(evaluation.labels).max()) / len(evaluation.labels)
    if evaluation.accuracy > often:
        return None
    return f"the test accuracy is {evaluation.accuracy:.1%}, and always naming the most frequent class has {often:.1%}"


def at_end(config: TrainingConfig, data: Dataset, evaluation: Evaluation) -> Iterator[str]:
    """Yield what looks wrong about the answers to the test samples."""
    if sentence := chance(evaluation):
        yield sentence
    absent = set(evaluation.labels.tolist()) - set(evaluation.class_index.tolist())
    if absent:
        names = ", ".join(f"'{data.class_names[index]}'" for index in sorted(absent))
        hint = "" if config.network.kernels else ": where a class is rare, class_weights in its file may help"
        yield f"no test sample is taken for {names}{hint}"
    for layer, rate in evaluation.firing_rates.items():
        if MUCH_FIRING < rate <= SATURATED and not config.optimisation.rate_penalty:
            yield (
                f"{layer} fires {rate:.0%} of the time, where less usually does: rate_penalty in its file lowers it, "
                "and the synaptic operations with it"
            )


class Diagnostics:
    """The warnings of a run, epoch by epoch; each kind of trouble is reported once for each layer."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.told: set[str] = set()

    def of(self, epoch: Epoch) -> tuple[str, ...]:
        """Return the warnings of an epoch that were not given before."""
        warnings = {kind: sentence for kind, sentence in self._all(epoch) if kind not in self.told}
        self.told |= warnings.keys()
        return tuple(warnings.values())

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
                "--surrogate superspike, or a lower --learning-rate, may help",
            )
        elif norm < VANISHING and epoch.training_loss > 0.1 * math.log(len(self.data.class_names)):
            yield (
                "vanishing",
                f"gradients vanish: their median length is {norm:.1e}; a lower slope in its file may help",
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
