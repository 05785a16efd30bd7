"""The benchmark's networks: they fire as they should, and our engines agree on each before anything is timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import build
from benchmarks.engines import main
from benchmarks.workloads import WORKLOADS, Activity, Workload
from models.engines import EngineName, create

CASES = [(work, activity) for work in WORKLOADS for activity in work.activities]


@pytest.mark.parametrize(("workload", "activity"), CASES, ids=lambda value: getattr(value, "name", value))
def test_our_engines_agree_on_every_workload_and_each_layer_fires(workload: Workload, activity: Activity) -> None:
    case = build(workload, activity, 2)
    expected = create(EngineName.REFERENCE, case.network).run(case.inputs)
    for engine in (EngineName.EVENT, EngineName.ONNX, EngineName.TORCH):
        found = create(engine, case.network).run(case.inputs)
        np.testing.assert_array_equal(found.spike_counts, expected.spike_counts)
        np.testing.assert_array_equal(found.synaptic_operations, expected.synaptic_operations)
    assert all(spikes.sum() > 0 for spikes in expected.spikes_per_node.values())


def test_a_run_writes_what_others_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(output=tmp_path / "figures.json", quick=True, workload=["shd"], batch=[1], contestant=["event", "onnx"])
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert {row["contestant"] for row in rows} == {"event", "onnx"}
    for row in rows:
        assert (row["workload"], row["activity"], row["batch"], row["spikes_equal"]) == ("shd", 1.5, 1, True)
        assert row["median_ms"] > 0
        assert row["threads"] in (1, 2)
    assert "Medians in milliseconds" in capsys.readouterr().out
