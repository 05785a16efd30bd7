"""One recorded sample over time: its input, and every layer's spikes, or a readout's membranes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import Engine, Record
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.plugins.report.plots.style import (
    BLUE,
    GREY,
    INTENSITY,
    SAME,
    TimeAxis,
    counted,
    drawn,
    heading,
    shortened,
    size_of,
)

MOST_LINES = 300  # neurons that a raster shows one by one; more are shown in groups
GROUPS = 100
FEW_CHANNELS = 4  # that would say too little: of fewer, as an event camera's two, each row of pixels is shown
TALLEST = 16.0  # inches, of a raster with many layers
MOST_NAMED = 12  # classes whose names have room beside the output layer


@dataclass(frozen=True)
class RecordedSample:
    """A sample's run: `inputs` (1 or time_steps, *shape), and what each layer did.

    `rasters` and `membranes` name to (time_steps, *shape); a readout that does not spike has a membrane alone.
    """

    spec: Spec
    inputs: FloatArray
    rasters: Mapping[str, NDArray[np.int32]]
    membranes: Mapping[str, FloatArray]
    time: TimeAxis
    predicted: int

    @classmethod
    def of(cls, engine: Engine, sample: FloatArray) -> RecordedSample:
        """Run one raw sample and record it."""
        encoded: DenseInputs = encode(sample[np.newaxis], engine.spec)
        result, _ = engine.run(encoded, record=Record.RASTER | Record.MEMBRANE)
        return cls(
            spec=engine.spec,
            inputs=encoded.steps[:, 0],
            rasters={name: raster[:, 0] for name, raster in result.rasters.items()},
            membranes={name: membrane[:, 0] for name, membrane in result.membranes.items()},
            time=TimeAxis(encoded.time_steps, engine.spec.dt),
            predicted=int(result.class_index[0]),
        )


def save_raster(sample: RecordedSample, title: str, path: Path) -> None:
    """Draw a panel for the input, one for each layer's spikes, and one for a membrane that the class is read from.

    A layer of up to MOST_LINES neurons has a line for each spike. A convolution has its channels' firing rates as
    colours, and another large layer those of groups of neurons.
    """
    silent = {name: sample.membranes[name] for name in sample.membranes if name not in sample.rasters}
    heights = [1.0, *(_height(raster[0].size) for raster in sample.rasters.values()), *(1.3 for _ in silent)]
    height = min(TALLEST, sum(heights) + 0.45 * len(heights) + 0.5)
    with drawn(path, height=height) as figure:
        figure.suptitle(title)
        panels = np.atleast_1d(figure.subplots(len(heights), 1, height_ratios=heights))
        _draw_input(panels[0], sample)
        for axes, (name, raster) in zip(panels[1:], sample.rasters.items(), strict=False):
            heading(
                axes,
                size_of(name, raster.shape[1:]),
                f"{counted(int(raster.sum()))}, {raster.mean():.3f} per neuron and step",
            )
            draw_spikes(axes, raster, sample.time)
            if name == sample.spec.nodes[-1].name and raster[0].size <= MOST_NAMED:
                axes.set_yticks(range(raster[0].size), [shortened(label) for label in sample.spec.labels], fontsize=8)
                axes.set_ylabel("class")
        for axes, (name, membrane) in zip(panels[1 + len(sample.rasters) :], silent.items(), strict=True):
            _draw_readout(axes, name, membrane, sample)
        for axes in panels[1:]:
            sample.time.apply(axes, named=axes is panels[-1])


def _height(neurons: int) -> float:
    """Return the height of a layer's panel in inches, from 0.9 for a few neurons to 2."""
    return float(np.clip(0.35 * np.log2(max(neurons, 2)) - 0.2, 0.9, 2.0))


def draw_spikes(axes: Any, raster: NDArray[Any], time: TimeAxis) -> None:
    """Draw spikes (time_steps, *shape) as lines, or as the firing rates of channels or of groups of neurons."""
    neurons = raster[0].size
    if neurons <= MOST_LINES:
        flat = raster.reshape(len(raster), -1)
        steps, units = np.nonzero(flat)
        x = time.at(steps)
        inches = (axes.figure.get_figwidth() - 1.2) / len(raster)  # of one step
        width = float(np.clip(72 * inches * 0.3, 0.6, 9.0)) * flat[steps, units]  # several spikes are a wider line
        axes.vlines(x, units - 0.42, units + 0.42, color="black", linewidth=width)
        axes.set(ylim=(neurons - 0.5, -0.5), ylabel="neuron")
    else:
        rows, label = _rates(raster)
        _draw_colours(axes, rows, time, "firing rate", cmap="Greys", vmin=0, vmax=max(float(rows.max()), 1e-9))
        axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _draw_colours(axes: Any, rows: NDArray[Any], time: TimeAxis, label: str, **colours: Any) -> None:
    """Draw values (time_steps, rows) as colours, with a bar that says what they are."""
    left, right = time.limits
    place = (left, right, len(rows[0]) - 0.5, -0.5)
    image = axes.imshow(rows.T, aspect="auto", interpolation="nearest", extent=place, **colours)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=12, label=label)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=3))


def _rates(raster: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return (time_steps, rows) of mean spikes per neuron, a row for each channel or group, and what a row is."""
    if raster.ndim == 4 and raster.shape[1] < FEW_CHANNELS:
        rows = raster.mean(axis=3).reshape(len(raster), -1)
        return rows, f"rows of {raster.shape[1]} channels" if raster.shape[1] > 1 else "row"
    if raster.ndim > 2:
        return raster.reshape(len(raster), len(raster[0]), -1).mean(axis=2), "channel"
    groups = np.array_split(raster, GROUPS, axis=1)
    return np.stack([group.mean(axis=1) for group in groups], axis=1), f"neurons in {GROUPS} groups"


def _draw_input(axes: Any, sample: RecordedSample) -> None:
    spec, inputs = sample.spec, sample.inputs
    shape = spec.input.shape
    if spec.coding is Coding.CURRENT:
        heading(axes, size_of("input", shape, "values"), "a current at each step")
        _draw_colours(axes, inputs.reshape(len(inputs), -1), sample.time, "current", cmap=INTENSITY)
        axes.set_ylabel("input")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        sample.time.apply(axes, named=False)
        return
    if len(inputs) > 1:
        heading(axes, size_of("input", shape, "values"), f"{spec.coding} coding, {_share(inputs)}")
        draw_spikes(axes, inputs, sample.time)
        axes.set_ylabel("input" if inputs[0].size <= MOST_LINES else axes.get_ylabel())
        sample.time.apply(axes, named=False)
        return
    heading(axes, f"{size_of('input', shape, 'values')}, {SAME}")
    if len(shape) == 3:
        # The channels side by side, with an empty column between them.
        gap = np.full((shape[1], 1), np.nan)
        image = np.concatenate([part for channel in inputs[0] for part in (channel, gap)][:-1], axis=1)
        axes.imshow(image, cmap=INTENSITY, interpolation="nearest", aspect="equal")
        axes.set_anchor("W")
        axes.set_axis_off()
    else:
        axes.bar(np.arange(inputs[0].size), inputs[0].ravel(), color=BLUE, width=0.8)
        axes.set(xlabel="input", ylabel="current", xlim=(-0.6, inputs[0].size - 0.4))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))


def _share(inputs: NDArray[Any]) -> str:
    return f"{counted(int(np.count_nonzero(inputs)))}, {np.count_nonzero(inputs) / inputs.size:.3f} per input and step"


def _draw_readout(axes: Any, name: str, membrane: NDArray[Any], sample: RecordedSample) -> None:
    flat = membrane.reshape(len(membrane), -1)
    x = sample.time.at(np.arange(len(flat)))
    for unit in range(flat.shape[1]):
        if unit != sample.predicted:
            axes.plot(x, flat[:, unit], color=GREY, linewidth=0.9)
    label = shortened(sample.spec.labels[sample.predicted])
    axes.plot(x, flat[:, sample.predicted], color=BLUE, label=f"{label} (predicted)")
    axes.plot([], [], color=GREY, linewidth=0.9, label="other classes")
    axes.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98), borderaxespad=0)
    heading(axes, f"{size_of(name, membrane.shape[1:])}, read by {sample.spec.readout.replace('_', ' ')}")
    axes.set_ylabel("membrane")
    axes.grid(visible=True)
