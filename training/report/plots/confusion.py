"""The confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from spikeserve.models.engines.base import Counts
from spikeserve.training.report.plots.style import drawn, heading, shortened

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
