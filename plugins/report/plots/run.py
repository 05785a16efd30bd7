"""What a whole run did: curves over the epochs, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from spikeserve.models.engines.base import Counts
from spikeserve.plugins.report.plots.style import BLUE, VERMILION, apply_log, drawn, heading, shortened
from spikeserve.training.report.epochs import Epoch


def save_curves(epochs: Sequence[Epoch], path: Path) -> None:
    """Draw loss, accuracy and firing rates over the epochs, with the best epoch marked."""
    numbers = [epoch.number + 1 for epoch in epochs]
    best = epochs[0]
    for epoch in epochs:
        best = epoch if epoch.better_than(best) else best
    with drawn(path, height=3.0) as figure:
        loss, accuracy, rates = figure.subplots(1, 3)
        for axes, training, validation in (
            (loss, [each.training_loss for each in epochs], [each.validation_loss for each in epochs]),
            (accuracy, [each.training_accuracy for each in epochs], [each.validation_accuracy for each in epochs]),
        ):
            axes.plot(numbers, training, color=BLUE, label="training", **_marked(numbers))
            axes.plot(numbers, validation, color=VERMILION, label="validation", **_marked(numbers))
        heading(loss, "Loss")
        loss.set_ylabel("loss (log scale)")
        apply_log(loss, [value for each in epochs for value in (each.training_loss, each.validation_loss)])
        if best.chooses:
            heading(accuracy, "Accuracy", f"best: {best.validation_accuracy:.1%} in epoch {best.number + 1}")
        else:
            heading(accuracy, "Accuracy")
        accuracy.plot([best.number + 1], [best.validation_accuracy], "o", color=VERMILION, markersize=7, zorder=3)
        accuracy.set(ylabel="share of samples that are right")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
        for layer in epochs[0].firing_rates:
            rates.plot(
                numbers, [each.firing_rates[layer] for each in epochs], label=shortened(layer), **_marked(numbers)
            )
        heading(rates, "Firing rates on the validation split")
        rates.set(ylabel="spikes per neuron and step", ylim=(0, None))
        for axes in (loss, accuracy, rates):
            axes.set(xlabel="epoch", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
            axes.grid(visible=True)
            if axes.lines:
                axes.legend(ncols=2 if len(axes.lines) > 6 else 1, fontsize=8)


def _marked(points: Sequence[Any]) -> dict[str, Any]:
    """Return the look of a line: with dots where there are so few points that one could miss them."""
    return {"marker": "o", "markersize": 3} if len(points) <= 3 else {}


MOST_NUMBERED = 30  # classes whose cells have room for a number
MOST_NAMED = 60  # classes whose names have room beside the axes


def save_confusion(confusion: Counts, labels: tuple[str, ...], path: Path) -> None:
    """Draw how often samples of class `row` were predicted as `column`: as a number, and as a colour for its share."""
    classes = len(labels)
    names = [shortened(label) for label in labels]
    longest = max(map(len, names))
    size = float(np.clip(0.42 * classes, 3.0, 11.0))
    margin = 0.075 * longest
    upright = margin > size / classes  # a name is wider than its column
    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    with drawn(path, height=size + margin + 0.8, width=size + margin + 1.6) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        ticks = range(0, classes, -(-classes // MOST_NAMED))
        shown = [names[tick] for tick in ticks]
        axes.set_xticks(ticks, shown, rotation=90 if upright else 0)
        axes.set_yticks(ticks, shown)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        right, total = int(confusion.trace()), int(confusion.sum())
        heading(axes, f"Test split: {right / total:.1%} of {total} right")
        if classes <= MOST_NUMBERED:
            for row, column in zip(*np.nonzero(confusion), strict=True):
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour, fontsize=8)
        colours = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, label="share of the true class")
        colours.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        colours.outline.set_visible(False)
