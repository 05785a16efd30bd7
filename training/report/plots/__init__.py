"""The plots of a run and of one of its samples; `save_plots` draws all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikeserve.models.engines import Engine
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.report.epochs import Epoch
from spikeserve.training.report.evaluate import Evaluation
from spikeserve.training.report.plots.run import save_confusion, save_curves
from spikeserve.training.report.plots.sample import RecordedSample, save_raster

__all__ = ["save_plots"]


def save_plots(
    folder: Path,
    engine: Engine,
    data: Dataset,
    evaluation: Evaluation,
    epochs: Sequence[Epoch],
) -> None:
    """Draw a run into its folder: over the epochs, over the test split, and of the first test sample.

    The files are curves.png, confusion.png and raster.png.
    """
    save_curves(epochs, folder / "curves.png")
    save_confusion(evaluation.confusion, data.class_names, folder / "confusion.png")
    sample = RecordedSample.of(engine, data.test[:1].cut().samples[0])
    true, predicted = data.class_names[int(data.test.labels[0])], data.class_names[sample.predicted]
    title = f"Test sample 0: true class {true}, predicted {predicted}"
    save_raster(sample, title, folder / "raster.png")
