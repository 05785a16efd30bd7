"""The plots of a run: learning curves, confusion matrix, and the raster of one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from models.engines.base import Counts, RunResult
from training.report.epochs import Epoch


def save_curves(epochs: list[Epoch], path: Path) -> None:
    """Draw loss, accuracy and firing rates over the epochs."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    numbers = [epoch.number + 1 for epoch in epochs]
    loss.plot(numbers, [epoch.training_loss for epoch in epochs], label="training")
    loss.plot(numbers, [epoch.validation_loss for epoch in epochs], label="validation")
    loss.set(xlabel="epoch", ylabel="loss", yscale="log")
    accuracy.plot(numbers, [epoch.training_accuracy for epoch in epochs], label="training")
    accuracy.plot(numbers, [epoch.validation_accuracy for epoch in epochs], label="validation")
    accuracy.set(xlabel="epoch", ylabel="accuracy")
    for layer in epochs[0].firing_rates:
        rate.plot(numbers, [epoch.firing_rates[layer] for epoch in epochs], label=layer)
    rate.set(xlabel="epoch", ylabel="firing rate, spikes per neuron and step")
    for axes in (loss, accuracy, rate):
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=130)


def save_confusion(confusion: Counts, labels: tuple[str, ...], path: Path) -> None:
    """Draw the confusion matrix: how often class `row` was predicted as class `column`."""
    size = max(4.0, 0.5 * len(labels))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="predicted", ylabel="true")
    if len(labels) <= 30:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, dpi=130)


def save_raster(result: RunResult, sample: int, title: str, path: Path) -> None:
    """Draw the raster of one sample of a recorded run, one panel per layer."""
    layers = {name: raster[:, sample].reshape(len(raster), -1) for name, raster in result.rasters.items()}
    figure = Figure(figsize=(8, 1.8 * len(layers) + 0.6), layout="constrained")
    rows = np.atleast_1d(figure.subplots(len(layers), 1, sharex=True))
    for axes, (name, raster) in zip(rows, layers.items(), strict=True):
        steps, units = np.nonzero(raster)
        size = 6 if raster.shape[1] > 50 else 40  # of one spike; multiplied by the number of spikes in a step
        axes.scatter(steps, units, s=size * raster[steps, units], marker="|", color="black")
        axes.set(ylabel=name, ylim=(-0.5, raster.shape[1] - 0.5), xlim=(-0.5, len(raster) - 0.5))
        axes.set_title(f"{raster.sum()} spikes, {raster.mean():.3f} per neuron and step", fontsize=8, loc="right")
    rows[-1].set(xlabel="step")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
