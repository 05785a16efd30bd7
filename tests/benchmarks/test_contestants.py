"""The contestants: each that is installed gives the same counts, and each that cannot run says why.

What is measured: networks that are valid and fire as they should, on which all engines agree to the last count.

The command line of benchmarks.engines, and the file that it writes.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import Case, build
from benchmarks.contestants import CONTESTANTS, choose, prepare
from benchmarks.contestants.base import Job, Skipped, stages
from benchmarks.engines import main
from benchmarks.workloads import (
    GRID,
    IF,
    LIF,
    MLP,
    RECURRENT_LIF,
    TRAINED,
    WORKLOADS,
    Activity,
    Workload,
    conv,
    is_dense,
    linear,
    pool,
)
from spikeserve.models.engines import available, create
from spikeserve.models.spec import Spec
from tests.networks import network_of, task

EVERYTHING = Workload(
    name="everything",
    title="what workloads are made of, small",
    input=(2, 8, 8),
    nodes=(
        *(conv(2, 4, 3, stride=2, padding=1), LIF, pool("Max", 2)),
        *(conv(4, 4, 3, padding=1), IF, pool("Sum", 2), {"type": "Flatten"}),
        *(linear(4, 16), RECURRENT_LIF, linear(16, 3), IF),
    ),
    time_steps=12,
    activities=(20, "direct"),
)


LINEAR = Workload(
    name="linear",
    title="what a library without convolutions runs too",
    input=(12,),
    nodes=(linear(12, 16), RECURRENT_LIF, linear(16, 3), IF),
    time_steps=12,
    activities=(20, "direct"),
)
CASES = [(work, activity, bits) for work in (EVERYTHING, LINEAR) for activity in work.activities for bits in (None, 6)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].name}-{case[1]}-{case[2]}")
def case(request: pytest.FixtureRequest) -> Case:
    work, activity, bits = request.param
    return build(work, activity, 3, bits)


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name != "torch_compile"])
def test_a_contestant_gives_the_counts_that_it_should_each_time(case: Case, name: str) -> None:
    try:
        run = prepare(name, Job(case.network, case.inputs, threads=1))
    except Skipped as reason:
        pytest.skip(str(reason))
    for counts in (run(), run()):
        assert counts.dtype == np.int64
        assert np.array_equal(counts, case.spike_counts)


def test_a_library_that_is_missing_is_left_out_by_name(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.NEEDS, "norse", ("torch", "a_library_that_is_nowhere"))
    with pytest.raises(Skipped, match="the package a_library_that_is_nowhere is not installed here"):
        prepare("norse", Job(case.network, case.inputs, threads=1))


def test_a_network_that_is_no_stack_is_left_out_with_its_node() -> None:
    network = network_of(
        [
            {"type": "Linear", "name": "a", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "IF", "name": "b", "inputs": ["a", "input"]},
        ],
        {"a.weight": [[1, 0], [0, 1]]},
        **task(2, 2, ["left", "right"]),
    )
    with pytest.raises(Skipped, match="node 'b' makes the network more than a stack"):
        stages(network)


@pytest.mark.parametrize("workloads", [WORKLOADS, TRAINED], ids=["inference", "training"])
def test_every_workload_is_a_valid_network_with_a_name_of_its_own(workloads: tuple[Workload, ...]) -> None:
    assert len({workload.name for workload in workloads}) == len(workloads)
    for workload in workloads:
        assert set(workload.quick) <= set(workload.activities)
        spec = workload.spec(workload.activities[0])
        assert Spec.read(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("workload", "activity"), [(each, activity) for each in WORKLOADS for activity in each.quick] + [(MLP, "direct")]
)
def test_layers_fire_within_the_band_and_all_engines_agree_on_counts(workload: Workload, activity: Activity) -> None:
    case = build(workload, activity, 2)
    low, high = (0.4, 0.6) if is_dense(activity) else (0.02, 0.15)
    given, *layers = case.activity.values()
    assert all(low <= rate <= high for rate in layers), case.activity
    if activity != "direct":
        assert given == pytest.approx(activity / 100, rel=0.2)
    for engine in available():
        result, _ = create(engine, case.network).run(case.inputs)
        assert (result.spike_counts == case.spike_counts).all(), engine
        assert np.asarray(result.synaptic_operations).sum() == case.synaptic_operations, engine
    for name, tensor in case.network.tensors.items():
        assert (tensor % GRID == 0).all(), name
        assert tensor.any(), name


PROMISED = {"workload", "activity", "batch", "contestant", "threads", "median_ms", "spikes_equal"}


@pytest.mark.deep
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
