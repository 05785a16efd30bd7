"""The complexity of networks and runs: numbers worked out by hand, and every node against the engines' own counts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines import RunResult, plain
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.fan_out import dense_operations
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.plugins.report.complexity import Complexity, operations
from tests.networks import Case, dyadic_cases, network_of, task, toy
from tests.same import EVERYTHING

Report = dict[str, NDArray[Any]]


def inputs_of(*samples: Any) -> DenseInputs:
    """Return samples of (time_steps, *shape)."""
    steps = np.array(samples, np.float32).swapaxes(0, 1).copy()
    return DenseInputs(steps, len(steps))


def counts(network: Network, inputs: Inputs, result: RunResult) -> Report:
    """Return NeuroBench's whole numbers of a recorded run, name to (batch,)."""
    work = Complexity(network).work(inputs, result)
    return {
        "Effective_MACs": sum(work.macs.values(), np.zeros(inputs.batch, int)),
        "Effective_ACs": sum(work.acs.values(), np.zeros(inputs.batch, int)),
        "MembraneUpdates": sum(work.membrane_updates.values(), np.zeros(inputs.batch, int)),
        "active": sum(work.active.values(), np.zeros(inputs.batch, int)),
    }


def one_layer(weight: Any, coding: str = "spikes", fire: str = "at_threshold") -> Network:
    """Return a Linear without bias and neurons that are IF with a threshold of 1."""
    weight = np.array(weight, np.float32)
    outputs, inputs = weight.shape
    nodes: list[dict[str, Any]] = [
        {"type": "Linear", "name": "fc", "in_features": inputs, "out_features": outputs, "bias": False},
        {"type": "IF", "name": "out", "fire": fire},
    ]
    return network_of(nodes, {"fc.weight": weight}, **task(inputs, 3, outputs, coding, low=-2, high=2))


# Of six weights two are 0: the first input meets one that is not, the second none, the third two.
SPARSE = [[0.5, 0, 2], [0, 0, -1]]
SAMPLE = [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
CONSTANT = DenseInputs(np.array([[[1.5, 1]]], np.float32), 3)
NO_MEMBRANE = network_of([{"type": "Threshold", "name": "out"}], {}, **task(2, 3, "ab"))
COUNTS: dict[str, tuple[Network, DenseInputs, dict[str, list[int]]]] = {
    "weights of 0 count in dense operations alone": (
        one_layer(SPARSE), inputs_of(SAMPLE), {"Effective_ACs": [1 + 2], "Effective_MACs": [0]}
    ),
    # Step 0 has 1 and 0.5, so that all of it multiplies; step 1 has 1 and -1.
    "a step multiplies where one of its inputs is neither 0 nor 1 nor -1": (
        one_layer(np.ones((2, 3)), "current"), inputs_of([[1, 0.5, 0], [1, 0, -1], [0, 0, 0]], SAMPLE),
        {"Effective_MACs": [4, 0], "Effective_ACs": [4, 8]},
    ),
    "a constant input counts at every step": (
        one_layer([[0.5, 0.5]], "direct"), CONSTANT, {"Effective_MACs": [3 * 2]}
    ),
    # Two membranes in the first step; the first neuron's becomes 0.5 at step 1, and nothing changes at step 2.
    "a membrane counts in the first step and where a step changes it": (
        one_layer(np.eye(2), "current"), inputs_of([[0, 0], [0.5, 0], [0, 0]]), {"MembraneUpdates": [2 + 1]}
    ),
    "without a membrane there is none to count": (
        NO_MEMBRANE, DenseInputs(np.ones((1, 1, 2), np.float32), 3), {"MembraneUpdates": [0]}
    ),
    # The first of two neurons fires twice at step 0 and once at step 1: two of six outputs are not 0.
    "an output is active at a step however often its neuron fires": (
        one_layer(2 * np.eye(2), fire="multiple"), inputs_of([[1, 0], [0.5, 0], [0, 0]]), {"active": [2]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTS)
def test_a_run_is_counted_as_worked_out_by_hand(what: str) -> None:
    network, inputs, counted = COUNTS[what]
    report = counts(network, inputs, EventEngine(network).run(inputs, record=EVERYTHING)[0])
    assert {name: report[name].tolist() for name in counted} == counted


def test_footprint_parameters_and_sparsity_are_those_of_the_tensors() -> None:
    # 2 × 2 weights of float32, and no bias; the neurons' decay is one number, and no tensor.
    assert (Complexity(toy()).parameter_count, Complexity(toy()).footprint) == (4, 16)
    assert Complexity(one_layer(SPARSE)).connection_sparsity == 0.5  # three of six
    assert Complexity(one_layer([[1, 0, 1]])).connection_sparsity == 0.3333


def steps_apart(inputs: Inputs) -> DenseInputs:
    """Return inputs whose steps are all there, so that none is computed once for all."""
    dense = inputs.dense()
    return DenseInputs(
        np.broadcast_to(dense.steps, (dense.time_steps, *dense.steps.shape[1:])).copy(), dense.time_steps
    )


def without_zeros(network: Network) -> Network:
    stored = network.spec.nonzero  # the others count nowhere
    tensors = {
        name: np.where(tensor == 0, np.float32(1), tensor)
        if name.endswith(".weight") and name not in stored
        else tensor
        for name, tensor in network.tensors.items()
    }
    return replace(network, tensors=tensors)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(case=dyadic_cases())
def test_all_weights_that_inputs_meet_are_what_the_engine_counts_whatever_the_network(case: Case) -> None:
    # Of the runs of a network, counted as if none of its weights were 0.
    inputs = steps_apart(case.inputs)
    result, _ = ReferenceEngine(case.network).run(inputs, record=EVERYTHING)
    replay = operations.Replay(case.network, Complexity(without_zeros(case.network)).connections)
    found = sum((each.count.sum(axis=0) for each in replay.operations(inputs, result)), np.zeros(inputs.batch, int))
    assert found.tolist() == np.asarray(result.synaptic_operations).tolist()
    # And the dense operations are those of a run in which nothing is 0.
    once, per_step = dense_operations(case.network.spec)
    assert once + per_step == Complexity(case.network).dense
    assert (once == 0) or case.network.spec.coding == "direct"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(case=dyadic_cases())
def test_what_is_counted_does_not_depend_on_how_many_steps_are_looked_at_at_once(case: Case) -> None:
    result, _ = ReferenceEngine(case.network).run(case.inputs, record=EVERYTHING)
    whole = counts(case.network, case.inputs, result)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(operations, "BLOCK_VALUES", 1)
        events = case.inputs if case.inputs.constant else EventInputs.of(case.inputs)
        alone = counts(case.network, events, result)
    for name, column in whole.items():
        np.testing.assert_array_equal(alone[name], column, err_msg=name)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(case=dyadic_cases())
def test_the_weights_that_are_not_0_are_those_that_bring_an_input_to_an_output(case: Case) -> None:
    # Each connection with weights of 0 and 1 and no bias: an input of a single 1 then sums to what it meets.
    network, spec = case.network, case.network.spec
    ones = {
        name: (tensor != 0).astype(np.float32) if name.endswith(".weight") else np.zeros_like(tensor)
        for name, tensor in network.tensors.items()
        if name.endswith((".weight", ".bias"))
    }
    counting = replace(network, tensors={**network.tensors, **ones})
    nodes = {node.name: node for node in spec.nodes}
    for name, connection in Complexity(network).connections.items():
        single: FloatArray = np.eye(connection.fan_out.size, dtype=np.float32)
        if name.endswith(".recurrent"):
            met = single @ ones[f"{name}.weight"].T
        else:
            met = plain.Connections(counting).connect(nodes[name], single.reshape(-1, *spec.input_shapes[name]))
        found = met.reshape(connection.fan_out.size, -1).sum(axis=1)
        assert connection.fan_out.tolist() == found.tolist(), name
