"""What the tables say of figures that are given."""

from __future__ import annotations

from functools import cache

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.cases import Case, build
from benchmarks.measure import Figure
from benchmarks.workloads import WORKLOADS, Activity


@cache
def case(activity: Activity) -> Case:
    return build(WORKLOADS[0], activity, 1)


def figures(case: Case, **medians: float) -> list[Figure]:
    return [Figure(case, name, 1, ms, (ms, ms), {1: ms}, 1, 0.0) for name, ms in medians.items()]


def text(table: Table | None) -> str:
    assert table is not None
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_ratios_are_to_the_fastest_of_each_group_and_their_mean_is_geometric() -> None:
    # Beside event's 1 ms: the libraries take 12 and 48 ms, of which the geometric mean is 24; the rest 2 and 4.5, so 3.
    measured = figures(case(2), event=1.0, norse=12.0, sinabs=13.0, onnx=2.0, jax_scan=3.0)
    measured += figures(case(5), event=1.0, norse=50.0, sinabs=48.0, onnx=4.5)
    lines = text(report.ratios_table(measured, 1)).splitlines()
    assert any("2 %" in line and "12.0 norse met" in line and "2.0 onnx met" in line for line in lines)
    assert any("5 %" in line and "48.0 sinabs met" in line for line in lines)
    assert any("geometric mean" in line and "24.0 met" in line and "3.0 short" in line for line in lines)


def test_the_dense_case_must_not_be_slower_and_is_no_part_of_the_mean() -> None:
    measured = figures(case(50), event=2.0, norse=2.2, onnx=1.0) + figures(case(2), event=1.0, norse=10.0, onnx=4.0)
    lines = text(report.ratios_table(measured, 1)).splitlines()
    assert any("dense" in line and "1.1 norse met" in line and "0.5 onnx short" in line for line in lines)
    assert any("geometric mean" in line and "10.0 short" in line and "4.0 met" in line for line in lines)


def test_there_are_no_ratios_without_the_event_engine() -> None:
    assert report.ratios_table(figures(case(2), norse=1.0), 1) is None


def test_the_limit_counts_the_cores_in_use_and_counts_that_differ_are_shown_as_a_share() -> None:
    figure = figures(case(2), event=1000.0)[0]
    # In one second, at a rate of twice its operations a second, it did half of what it could.
    assert report.of_limit(figure, 2.0 * figure.case.synaptic_operations) == pytest.approx(0.5)
    different = Figure(case(2), "norse", 1, 1.0, (1.0, 1.0), {1: 1.0}, 1, 0.0125)
    assert not different.spikes_equal
    assert "1.25% differ" in text(report.figures_table([different], None))
