"""Two runs, or two states, that must agree to the last bit."""

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import Engine, Record, RunResult, State

EVERYTHING = Record.RASTER | Record.MEMBRANE


def assert_same_runs(inputs: Inputs, engine: Engine, *others: Engine) -> RunResult:
    """Require that engines give the same result, of every kind, and the same state; return the result."""
    expected, expected_state = engine.run(inputs, record=EVERYTHING)
    for other in others:
        result, state = other.run(inputs, record=EVERYTHING)
        assert_same(result, expected)
        assert_same_state(state, expected_state)
    return expected


def assert_same(result: RunResult, expected: RunResult) -> None:
    np.testing.assert_array_equal(result.spike_counts, expected.spike_counts)
    np.testing.assert_array_equal(result.readout, expected.readout)
    np.testing.assert_array_equal(result.synaptic_operations, expected.synaptic_operations)
    for found, wanted in (
        (result.spikes_per_node, expected.spikes_per_node),
        (result.rasters, expected.rasters),
        (result.membranes, expected.membranes),
    ):
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert found[name].dtype == array.dtype, name
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def assert_same_state(state: State, expected: State) -> None:
    np.testing.assert_array_equal(state.steps, expected.steps)
    assert state.steps.dtype == expected.steps.dtype
    assert state.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert state.arrays[name].dtype == array.dtype, name
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)
