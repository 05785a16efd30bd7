"""What is measured: networks that are valid and fire as they should, on which all engines agree to the last count."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cases import build
from benchmarks.workloads import GRID, MLP, TRAINED, WORKLOADS, Activity, Workload, is_dense
from spikeserve.models.engines import available, create
from spikeserve.models.spec import Spec


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


def test_the_first_samples_do_not_hang_on_the_batch() -> None:
    large, small = build(MLP, 5, 3).first(2), build(MLP, 5, 2)
    assert np.array_equal(large.inputs.steps, small.inputs.steps)
    assert np.array_equal(large.spike_counts, small.spike_counts)
