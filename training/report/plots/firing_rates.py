"""The firing rates of the neurons of each layer, as histograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from spikeserve.models.coding import encode
from spikeserve.models.engines import Engine, Record
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.data.datasets import Split
from spikeserve.training.report.plots.style import BLUE, VERMILION, drawn, heading, size_of

SAMPLES = 256  # at most, of the test split
MAX_RASTER = 2**24  # neurons times steps times samples that are recorded at once, 64 MiB of spikes
BINS = 40


def neuron_rates(engine: Engine, split: Split) -> dict[str, FloatArray]:
    """Return each neuron's spikes per step over the first SAMPLES samples, by layer and in the layer's shape."""
    sums: dict[str, FloatArray] = {}
    samples, spec = split.samples[:SAMPLES], engine.spec
    steps = samples.shape[1] if spec.coding.per_step else spec.time_steps
    batch = max(1, MAX_RASTER // (steps * max(1, spec.recordable)))
    for start in range(0, len(samples), batch):
        result, _ = engine.run(encode(samples[start : start + batch], spec), record=Record.RASTER)
        for name, raster in result.rasters.items():
            sums[name] = sums.get(name, np.float32(0)) + raster.sum(axis=1, dtype=np.int64).mean(axis=0)
    return {name: (total / len(samples)).astype(np.float32) for name, total in sums.items()}


def save_firing_rates(rates: Mapping[str, FloatArray], samples: int, path: Path) -> None:
    """Draw a histogram for each layer: how many of its neurons fire how often, on the same axis for all layers."""
    most = max(float(np.max(each)) for each in rates.values())
    edges = np.linspace(0, max(most, 0.01), BINS + 1)
    columns = min(2, len(rates))
    rows = -(-len(rates) // columns)
    with drawn(path, height=1.9 * rows + 0.6) as figure:
        figure.suptitle(f"Firing rates of the neurons, on {samples} test samples")
        panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True)).ravel()
        for axes, (name, values) in zip(panels, rates.items(), strict=False):
            flat = values.ravel()
            axes.hist(flat, edges, weights=np.full(flat.size, 1 / flat.size), color=BLUE)
            axes.axvline(float(flat.mean()), color=VERMILION, linestyle="--", label=f"mean {flat.mean():.3f}")
            heading(axes, size_of(name, values.shape), f"{float((flat == 0).mean()):.0%} silent")
            axes.legend(fontsize=8, loc="upper right")
            axes.set(xlim=(0, edges[-1]))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            axes.grid(visible=True, axis="y")
        for axes in panels[len(rates) - columns : len(rates)]:
            axes.tick_params(labelbottom=True)  # the last of its column, even where the row below has a panel
        for axes in panels[len(rates) :]:
            axes.set_visible(False)
        figure.supylabel("share of the layer's neurons", fontsize=9)
        figure.supxlabel("spikes per step", fontsize=9)
