"""The plots of a run and of one of its samples, which the command `plot` draws of what the run's folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from spikeserve.models.engines import create
from spikeserve.plugins.report.plots.run import save_confusion, save_curves
from spikeserve.plugins.report.plots.sample import RecordedSample, save_raster
from spikeserve.training.commands.groups import program
from spikeserve.training.fit.folder import RunFolder


def plot(run: Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]) -> None:
    """Draw a run that has ended into its folder: curves.png over the epochs, confusion.png over the test split.

    raster.png has all spikes of the first test sample.
    """
    folder = RunFolder(run)
    network, evaluation = folder.network(), folder.evaluation()
    labels, classes = network.spec.labels, len(network.spec.labels)
    confusion = np.bincount(evaluation["y"] * classes + evaluation["class_index"], minlength=classes**2)
    save_curves(folder.epochs, run / "curves.png")
    save_confusion(confusion.reshape(classes, classes), labels, run / "confusion.png")
    own = int(evaluation["lengths"][0]) if "lengths" in evaluation else None
    sample = RecordedSample.of(create("torch", network), evaluation["x"][0][:own])
    title = f"Test sample 0: true class {labels[int(evaluation['y'][0])]}, predicted {labels[sample.predicted]}"
    save_raster(sample, title, run / "raster.png")


main = program("plot", plot)
