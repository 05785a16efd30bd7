"""One recorded sample over time: its input, every layer's spikes, and membranes."""

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
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.neurons import Adaptive
from spikeserve.models.spec.nodes import Spiking
from spikeserve.training.report.plots.style import (
    BLUE,
    GREY,
    INTENSITY,
    SAME,
    VERMILION,
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

    network: Network
    inputs: FloatArray
    rasters: Mapping[str, NDArray[np.int32]]
    membranes: Mapping[str, FloatArray]
    time: TimeAxis
    predicted: int

    @property
    def spec(self) -> Spec:
        """The network's spec."""
        return self.network.spec

    @classmethod
    def of(cls, engine: Engine, network: Network, sample: FloatArray) -> RecordedSample:
        """Run one raw sample and record it."""
        encoded: DenseInputs = encode(sample[np.newaxis], network.spec)
        result, _ = engine.run(encoded, record=Record.RASTER | Record.MEMBRANE)
        return cls(
            network=network,
            inputs=encoded.steps[:, 0],
            rasters={name: raster[:, 0] for name, raster in result.rasters.items()},
            membranes={name: membrane[:, 0] for name, membrane in result.membranes.items()},
            time=TimeAxis.of(network.spec, encoded.time_steps),
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
        left, right = time.limits
        place = (left, right, len(rows[0]) - 0.5, -0.5)
        most = max(float(rows.max()), 1e-9)
        image = axes.imshow(
            rows.T, aspect="auto", interpolation="nearest", cmap="Greys", extent=place, vmin=0, vmax=most
        )
        axes.set_ylabel(label)
        _add_bar(axes, image, "firing rate")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _add_bar(axes: Any, image: Any, label: str) -> None:
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
        left, right = sample.time.limits
        values = inputs.reshape(len(inputs), -1).T
        place = (left, right, len(values) - 0.5, -0.5)
        _add_bar(
            axes, axes.imshow(values, aspect="auto", interpolation="nearest", cmap=INTENSITY, extent=place), "current"
        )
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


def save_membranes(sample: RecordedSample, title: str, path: Path) -> None:
    """Draw two neurons of each layer that fires: membrane after each step, threshold, and the spikes at the top."""
    layers = [node for node in sample.spec.nodes if isinstance(node, Spiking) and node.name in sample.membranes]
    with drawn(path, height=1.75 * len(layers) + 0.6) as figure:
        figure.suptitle(title)
        panels = np.atleast_1d(figure.subplots(len(layers), 1))
        figure.align_ylabels()
        for axes, node in zip(panels, layers, strict=True):
            raster, membrane = sample.rasters[node.name], sample.membranes[node.name]
            shape = raster.shape[1:]
            given = sample.network.parameter(node, "threshold") if "threshold" in node.values() else np.nan
            thresholds = np.broadcast_to(given, shape).ravel()  # NaN, and not drawn, where a program has none
            flat = membrane.reshape(len(membrane), -1)
            x = sample.time.at(np.arange(len(flat)))
            counts = raster.reshape(len(raster), -1).sum(axis=0)
            for kind, neuron, colour, top in zip(
                ("most active", "median"), chosen_neurons(counts, flat), (BLUE, VERMILION), (1.0, 0.9), strict=True
            ):
                place = ", ".join(str(int(each)) for each in np.unravel_index(neuron, shape))
                place = f"({place})" if len(shape) > 1 else place
                axes.plot(
                    x, flat[:, neuron], color=colour, marker="o" if len(x) < 30 else None, markersize=3,
                    label=f"{kind}: neuron {place}, {counted(int(counts[neuron]))}",
                )  # fmt: skip
                fired = np.nonzero(raster.reshape(len(raster), -1)[:, neuron])[0]
                axes.vlines(
                    x[fired], top - 0.08, top, color=colour, linewidth=1.2, transform=axes.get_xaxis_transform()
                )
                axes.axhline(thresholds[neuron], color=GREY, linestyle="--", linewidth=1.0, zorder=0)
            label = "threshold at rest" if isinstance(node, Adaptive) else "threshold"  # which spikes raise
            if "threshold" in node.values():
                axes.plot([], [], color=GREY, linestyle="--", linewidth=1.0, label=label)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.28 * (high - low))  # room for the spikes
            heading(axes, size_of(node.name, shape))
            axes.set_ylabel("membrane")
            axes.legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.98), borderaxespad=0)
            axes.grid(visible=True)
            sample.time.apply(axes, named=axes is panels[-1])


def chosen_neurons(counts: NDArray[Any], membranes: NDArray[Any]) -> tuple[int, int]:
    """Return the neuron with the most spikes, and one with the median number of them, another one if there is.

    `counts` (neurons,), `membranes` (time_steps, neurons). Of several with that number, the one whose membrane rises
    highest: it says more than one that nothing reaches.
    """
    peaks = membranes.max(axis=0)
    most = int(np.where(counts == counts.max(), peaks, -np.inf).argmax())
    candidates = np.flatnonzero(counts == np.sort(counts)[(len(counts) - 1) // 2])
    others = candidates[candidates != most]
    return most, int(others[peaks[others].argmax()]) if len(others) else most
