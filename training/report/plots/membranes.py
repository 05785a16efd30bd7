"""The membranes of one sample: in each layer, those of the most active and of the median neuron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.neurons import Adaptive
from spikeserve.models.spec.nodes import Spiking
from spikeserve.training.report.plots.recorded import RecordedSample
from spikeserve.training.report.plots.style import BLUE, GREY, VERMILION, counted, drawn, heading, size_of


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
