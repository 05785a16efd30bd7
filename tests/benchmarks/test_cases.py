"""What is measured: networks that are valid and fire as they should, on which all engines agree to the last count."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cases import Case, build
from benchmarks.workloads import GRID, WORKLOADS, is_dense
from spikeserve.models.engines import available, create
from spikeserve.models.spec import Spec

CASES = [(workload, activity) for workload in WORKLOADS for activity in workload.activities]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    workload, activity = request.param
    return build(workload, activity, 2)


def test_a_network_is_a_spec_like_any_other(case: Case) -> None:
    assert Spec.read(case.network.spec.model_dump_json()) == case.network.spec


def test_layers_fire_within_the_band_that_is_promised(case: Case) -> None:
    low, high = (0.4, 0.6) if is_dense(case.input_activity) else (0.02, 0.15)
    given, *layers = case.activity.values()
    assert all(low <= rate <= high for rate in layers), case.activity
    if case.input_activity != "direct":
        assert given == pytest.approx(case.input_activity / 100, rel=0.2)


def test_all_engines_agree_on_every_count(case: Case) -> None:
    for engine in available():
        result, _ = create(engine, case.network).run(case.inputs)
        assert (result.spike_counts == case.spike_counts).all(), engine
        assert np.asarray(result.synaptic_operations).sum() == case.synaptic_operations, engine


def test_every_weight_is_on_the_grid(case: Case) -> None:
    for name, tensor in case.network.tensors.items():
        assert (tensor % GRID == 0).all(), name
        assert tensor.any(), name


def test_the_first_samples_do_not_hang_on_the_batch() -> None:
    large = build(WORKLOADS[0], 5, 3)
    small = build(WORKLOADS[0], 5, 2)
    assert np.array_equal(large.first(2).inputs.steps, small.inputs.steps)
    assert np.array_equal(large.first(2).spike_counts, small.spike_counts)


def test_every_workload_has_a_name_of_its_own_and_quick_is_a_part_of_it() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
    for workload in WORKLOADS:
        assert set(workload.quick) <= set(workload.activities)
