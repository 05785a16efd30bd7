"""The complexity of networks and runs: numbers worked out by hand, and every node against the engines' own counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.complexity import ESTIMATES, Complexity, operations
from spikeserve.models.complexity.energy import DRAM, SRAM_1M, SRAM_8K, SRAM_32K, access
from spikeserve.models.engines import Record, RunResult, plain
from spikeserve.models.engines.anytime import AnytimeRunner, StopRule
from spikeserve.models.engines.event import EventEngine
from spikeserve.models.engines.fan_out import dense_operations
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.stop import Stop
from spikeserve.models.errors import Stopped
from spikeserve.models.spec.network import FloatArray, Network
from tests.networks import Case, dyadic_cases, network_of, task, toy
from tests.same import EVERYTHING

Report = dict[str, NDArray[Any]]


def inputs_of(*samples: Any) -> DenseInputs:
    """Return samples of (time_steps, *shape)."""
    steps = np.array(samples, np.float32).swapaxes(0, 1).copy()
    return DenseInputs(steps, len(steps))


def reported(network: Network, inputs: Inputs) -> Report:
    engine = EventEngine(network)
    result = Complexity(network).reported(lambda part, record: engine.run(part, record=record)[0], inputs, Record.NONE)
    return dict(result.report)


def one_layer(
    weight: Any, coding: str = "spikes", neuron: dict[str, Any] | None = None, recurrent: Any = None
) -> Network:
    """Return a Linear without bias and neurons that are IF with a threshold of 1."""
    weight = np.array(weight, np.float32)
    return network_of(
        [
            {
                "type": "Linear",
                "name": "fc",
                "in_features": weight.shape[1],
                "out_features": len(weight),
                "bias": False,
            },
            {"type": "IF", "name": "out", **(neuron or {})},
        ],
        {"fc.weight": weight} | ({} if recurrent is None else {"out.recurrent.weight": recurrent}),
        **task(weight.shape[1], 3, len(weight), coding, low=-2, high=2),
    )


# Of six weights two are 0: the first input meets one that is not, the second none, the third two.
SPARSE = [[0.5, 0, 2], [0, 0, -1]]
SAMPLE = [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_weights_of_0_count_in_dense_operations_alone() -> None:
    report = reported(one_layer(SPARSE), inputs_of(SAMPLE))
    assert report["Effective_ACs"].tolist() == [1 + 2]
    assert report["Effective_MACs"].tolist() == [0]
    assert report["Dense"].tolist() == [3 * 6]
    # The engine's own count has every weight: four inputs that are not 0, two weights each.
    assert EventEngine(one_layer(SPARSE)).run(inputs_of(SAMPLE))[0].synaptic_operations == [8]


def test_a_step_multiplies_where_one_of_its_inputs_is_neither_0_nor_1_nor_minus_1() -> None:
    # Step 0 has 1 and 0.5, so that all of it multiplies; step 1 has 1 and -1.
    values = [[1, 0.5, 0], [1, 0, -1], [0, 0, 0]]
    report = reported(one_layer(np.ones((2, 3)), "current"), inputs_of(values, SAMPLE))
    assert report["Effective_MACs"].tolist() == [4, 0]
    assert report["Effective_ACs"].tolist() == [4, 8]


def test_a_constant_input_counts_at_every_step_though_the_engine_computes_it_once() -> None:
    network = one_layer([[0.5, 0.5]], "direct")
    inputs = DenseInputs(np.array([[[1.5, 1]]], np.float32), 3)
    report = reported(network, inputs)
    assert (report["Effective_MACs"].tolist(), report["Dense"].tolist()) == ([3 * 2], [3 * 2])
    assert EventEngine(network).run(inputs)[0].synaptic_operations == [2]


def test_a_membrane_counts_in_the_first_step_and_where_a_step_changes_it() -> None:
    # Two membranes in the first step; the first neuron's becomes 0.5 at step 1, and nothing changes at step 2.
    network = one_layer(np.eye(2), "current")
    report = reported(network, inputs_of([[0, 0], [0.5, 0], [0, 0]]))
    assert report["MembraneUpdates"].tolist() == [2 + 1]
    no_membrane = network_of(
        [{"type": "Threshold", "name": "out"}], {}, input={"shape": [2]}, time_steps=3, labels=["a", "b"]
    )
    assert reported(no_membrane, DenseInputs(np.ones((1, 1, 2), np.float32), 3))["MembraneUpdates"].tolist() == [0]


def test_activation_sparsity_is_the_share_of_outputs_that_are_0_however_often_a_neuron_fires() -> None:
    # The first of two neurons fires twice at step 0 and once at step 1: two of six outputs are not 0.
    network = one_layer(2 * np.eye(2), neuron={"fire": "multiple"})
    report = reported(network, inputs_of([[1, 0], [0.5, 0], [0, 0]]))
    assert report["ActivationSparsity"].tolist() == [4 / 6]


def test_footprint_parameters_and_sparsity_are_those_of_the_tensors() -> None:
    # 2 × 2 weights of float32, and no bias; the neurons' decay is one number, and no tensor.
    assert (Complexity(toy()).parameter_count, Complexity(toy()).footprint) == (4, 16)
    assert Complexity(one_layer(SPARSE)).connection_sparsity == 0.5  # three of six
    assert Complexity(one_layer([[1, 0, 1]])).connection_sparsity == 0.3333


def test_only_what_was_run_counts_for_a_sample_that_ended_early() -> None:
    network = one_layer(np.eye(3))
    ends, goes_on = np.tile(np.eye(3)[0], (6, 1)), np.tile(np.eye(3), (2, 1))
    inputs = inputs_of(ends, goes_on)
    runner = AnytimeRunner(EventEngine(network), network.spec)

    def run(part: Inputs, record: Record) -> RunResult:
        return runner.run(part, StopRule.DECIDED, record=record)

    result = Complexity(network).reported(run, inputs, Record.NONE)
    assert result.steps_used is not None
    assert result.steps_used.tolist() == [4, 6]  # 4 ahead of 2
    shorter = reported(network, inputs.between(0, 4)[:1])
    assert {name: column[0] for name, column in result.report.items()} == {
        name: column[0] for name, column in shorter.items()
    }
    assert result.report["Dense"].tolist() == [4 * 9, 6 * 9]


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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=dyadic_cases())
def test_a_report_does_not_depend_on_how_many_steps_are_looked_at_at_once_nor_on_the_batch(case: Case) -> None:
    complexity, engine = Complexity(case.network), ReferenceEngine(case.network)
    whole = complexity.reported(lambda part, record: engine.run(part, record=record)[0], case.inputs, Record.NONE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(operations, "BLOCK_VALUES", 1)
        patched.setattr("spikeserve.models.complexity.complexity.GROUP_BYTES", 1)
        events = case.inputs if case.inputs.constant else EventInputs.of(case.inputs)
        alone = complexity.reported(lambda part, record: engine.run(part, record=record)[0], events, Record.NONE)
    for name, column in whole.report.items():
        np.testing.assert_array_equal(alone.report[name], column, err_msg=name)
    assert not alone.rasters
    assert not alone.membranes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
        single: FloatArray = np.eye(connection.inputs, dtype=np.float32)
        if name.endswith(".recurrent"):
            met = single @ ones[f"{name}.weight"].T
        else:
            met = plain.Connections(counting).connect(nodes[name], single.reshape(-1, *spec.input_shapes[name]))
        found = met.reshape(connection.inputs, -1).sum(axis=1)
        assert connection.fan_out.tolist() == found.tolist(), name


def test_a_report_of_a_run_that_nobody_waits_for_ends() -> None:
    network, stop = one_layer(SPARSE), Stop()
    engine = EventEngine(network)

    def run(part: Inputs, record: Record) -> RunResult:
        result, _ = engine.run(part, record=record)
        stop.request()
        return result

    with pytest.raises(Stopped):
        Complexity(network).reported(run, inputs_of(SAMPLE), Record.NONE, stop)


def test_a_memory_is_the_smallest_that_holds_it() -> None:
    words = [access(8, size) for size in (1, 2**13, 2**13 + 1, 2**15 + 1, 2**20 + 1)]
    assert words == [each.picojoules for each in (SRAM_8K, SRAM_8K, SRAM_32K, SRAM_1M, DRAM)]
    assert access(4, 1) == 5.0


def test_an_estimate_is_its_constants_times_what_was_counted() -> None:
    # Two inputs, one neuron, three steps: at step 0 both inputs are 1, and at step 1 one of them is 0.5.
    network = one_layer([[1, 1]], "current")
    report = reported(network, inputs_of([[1, 1], [0.5, 0], [0, 0]]))
    assert (report["Effective_ACs"].tolist(), report["Effective_MACs"].tolist()) == ([2], [1])
    found = {name: report[name][0] for name in ESTIMATES}
    # float32: an addition is 0.9 and a multiplication 3.7; all memories are below 8 KiB, where 4 bytes take 5.
    assert found["operations"] == pytest.approx(2 * 0.9 + 4.6)
    traffic, neurons = 3 * (5 + 2 * 5), 3 * (4.6 + 2 * 5)
    assert found["with_memory"] == pytest.approx(2 * 0.9 + 4.6 + traffic + neurons)
    # Weights of a byte, which takes 1.25, times what is added to a sum of 4 bytes: 0.2 and 0.1.
    assert found["int8_operations"] == pytest.approx(2 * 0.1 + 0.3)
    assert found["int8_with_memory"] == pytest.approx(2 * 0.1 + 0.3 + 3 * (1.25 + 10) + 3 * (0.3 + 10))
    # A value for each step: three passes of two operations, each of which reads a weight and an input, and one output.
    assert found["without_spikes_operations"] == pytest.approx(3 * 2 * 0.3)
    assert found["without_spikes_with_memory"] == pytest.approx(3 * (2 * 0.3 + 2 * 2.5 + 1.25))


def test_a_network_without_spikes_takes_one_pass_for_a_sample_that_is_the_same_at_every_step() -> None:
    report = reported(one_layer([[1, 1]], "direct"), DenseInputs(np.ones((1, 2, 2), np.float32), 3))
    assert report["without_spikes_operations"].tolist() == pytest.approx([2 * 0.3] * 2)
