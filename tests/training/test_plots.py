"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from models.coding import encode
from models.engines import EngineName, Record, create
from tests.networks import network_of
from training.report.plots import save_raster


def test_a_raster_says_all_spikes_of_a_neuron_that_fires_several_times_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(
        [{"type": "Threshold", "name": "out", "fire": "multiple"}],
        {},
        input={"shape": [2], "low": 0, "high": 4},
        coding="spikes",
        time_steps=2,
        labels=["a", "b"],
    )
    inputs = encode(np.array([[[3.5, 0], [0, 1]]], np.float32), network.spec)
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, path: Path, *, dpi: int) -> None:
        drawn.append(figure)
        save(figure, path, dpi=dpi)

    monkeypatch.setattr(Figure, "savefig", keep)
    save_raster(create(EngineName.REFERENCE, network).run(inputs, record=Record.RASTER)[0], 0, "x", tmp_path / "x.png")
    axes = drawn[0].axes[0]
    # Three spikes of a at step 0 and one of b at step 1, of two neurons at two steps.
    assert axes.get_title(loc="right") == "4 spikes, 1.000 per neuron and step"
    assert axes.collections[0].get_offsets().tolist() == [[0, 0], [1, 1]]  # type: ignore[union-attr]
    assert axes.collections[0].get_sizes().tolist() == [120, 40]  # type: ignore[attr-defined]
