"""The plot of a learning-rate range test: the loss over the learning rate, and the rate that it suggests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikeserve.training.report.plots.style import BLUE, GREY, VERMILION, apply_log, drawn, heading


def save_rate_range(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float, path: Path
) -> None:
    """Draw each step's loss and the smoothed loss over the learning rate, both axes logarithmic."""
    with drawn(path, height=3.4, width=7.0) as figure:
        axes = figure.subplots()
        axes.plot(rates, losses, ".", color=GREY, markersize=3, label="batch")
        axes.plot(rates, smoothed, color=BLUE, label="smoothed")
        axes.axvline(suggestion, color=VERMILION, linestyle="--", label=f"suggested: {suggestion:.2g}")
        heading(axes, "Learning-rate range test", f"{len(rates)} steps")
        axes.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (log scale)")
        apply_log(axes, [*losses, *smoothed])
        axes.grid(visible=True)
        axes.legend(fontsize=8)
