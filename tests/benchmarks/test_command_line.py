"""The command line of benchmarks.engines, and the file that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.engines import main

PROMISED = {"workload", "activity", "batch", "contestant", "threads", "median_ms", "spikes_equal"}


def test_a_quick_run_writes_a_row_for_each_contestant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    main(output=figures, quick=True, workload=["shd"], batch=[1], contestant=["onnx", "torch"])
    assert "700-256R-20 LIF" in capsys.readouterr().out
    rows = json.loads(figures.read_text())
    assert [row["contestant"] for row in rows] == ["onnx", "torch"]
    for row in rows:
        assert row.keys() >= PROMISED
        assert (row["workload"], row["activity"], row["batch"]) == ("shd", 1.5, 1)
        assert row["threads"] in (1, 2)
        assert row["median_ms"] > 0
        assert row["spikes_equal"] is True


def test_a_workload_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match="error: --workload is 'mnist', expected one of mlp, conv"):
        main(workload=["mnist"])
