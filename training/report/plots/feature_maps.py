"""A convolution's spikes as feature maps: each channel as a small image, over all steps and in slices of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikeserve.models.spec import Coding
from spikeserve.training.report.plots.recorded import RecordedSample
from spikeserve.training.report.plots.style import INTENSITY, SAME, TimeAxis, drawn, heading, size_of

MOST_CHANNELS = 16
SLICES = 4
CELL = 0.55  # the height of a channel's image with its gap, in inches


def convolutions(sample: RecordedSample) -> dict[str, NDArray[np.int32]]:
    """Return the rasters (time_steps, channels, height, width) of the layers that have the form of an image."""
    return {name: raster for name, raster in sample.rasters.items() if raster.ndim == 4 and raster[0, 0].size > 1}


def save_feature_maps(sample: RecordedSample, title: str, path: Path) -> None:
    """Draw the input and each convolution's most active channels: spikes per step, over all steps and over slices."""
    layers: dict[str, NDArray[Any]] = dict(convolutions(sample))
    if sample.inputs.ndim == 4:
        layers = {"input": sample.inputs} | layers
    maps = {name: feature_maps(raster, sample.time) for name, raster in layers.items()}
    heights = [0.75 + CELL * len(rows) for _, rows, _ in maps.values()]
    with drawn(path, height=sum(heights) + 0.5) as figure:
        figure.suptitle(title)
        panels = np.atleast_1d(figure.subplots(len(layers), 1, height_ratios=heights))
        for axes, (name, raster) in zip(panels, layers.items(), strict=True):
            channels, rows, images = maps[name]
            mosaic, (down, across) = _mosaic(images)
            image = axes.imshow(
                mosaic, cmap=INTENSITY, interpolation="nearest", vmin=min(0.0, float(np.nanmin(mosaic)))
            )
            axes.set_anchor("W")
            axes.set_xticks(across, channels)
            axes.set_yticks(down, rows)
            axes.set_xlabel("channel")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
            most = "" if len(channels) == raster.shape[1] else f", the {len(channels)} most active channels"
            constant = len(raster) == 1 and name == "input"
            heading(axes, size_of(name, raster.shape[1:], "values" if name == "input" else "neurons") + most)
            if constant:
                axes.set_axis_off()
                heading(axes, f"{size_of(name, raster.shape[1:], 'values')}, {SAME}")
            else:
                width = CELL * len(channels)  # of the images
                beside = axes.inset_axes((1 + 0.1 / width, 0.0, 0.12 / width, 1.0))
                bar = figure.colorbar(image, cax=beside, label=_unit(sample, name))
                bar.outline.set_visible(False)
                bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _unit(sample: RecordedSample, name: str) -> str:
    return "current" if name == "input" and sample.spec.coding is Coding.CURRENT else "spikes per step"


def feature_maps(raster: NDArray[Any], time: TimeAxis) -> tuple[list[int], list[str], NDArray[Any]]:
    """Return the channels shown, what each row is, and spikes per step (rows, channels, height, width).

    The first row is the mean over all steps; the others are those of SLICES slices of time, if there are more steps.
    """
    activity = raster.sum(axis=(0, 2, 3))
    channels = np.sort(np.argsort(-activity, kind="stable")[:MOST_CHANNELS])
    chosen = raster[:, channels]
    rows, images = ["all steps"], [chosen.mean(axis=0)]
    if len(raster) > 1:
        for part in np.array_split(np.arange(len(raster)), min(SLICES, len(raster))):
            rows.append(_span(part, time))
            images.append(chosen[part].mean(axis=0))
    return channels.tolist(), rows, np.stack(images)


def _span(steps: NDArray[Any], time: TimeAxis) -> str:
    if time.dt is None:
        first, last = int(steps[0]) + 1, int(steps[-1]) + 1
        return f"step {first}" if first == last else f"steps {first} to {last}"
    return f"{steps[0] * time.width:g} to {(steps[-1] + 1) * time.width:g} ms"


def _mosaic(images: NDArray[Any]) -> tuple[NDArray[Any], tuple[list[float], list[float]]]:
    """Return images (rows, columns, height, width) side by side with gaps, and the middles of the rows and columns."""
    rows, columns, height, width = images.shape
    gap = max(1, round(0.08 * max(height, width)))
    mosaic = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            mosaic[top : top + height, left : left + width] = images[row, column]
    down = [row * (height + gap) + (height - 1) / 2 for row in range(rows)]
    across = [column * (width + gap) + (width - 1) / 2 for column in range(columns)]
    return mosaic, (down, across)
