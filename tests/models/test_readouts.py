"""What an answer is read from, worked out by hand, on every engine; `test_parity` draws the rest."""

from typing import Any

import numpy as np
import onnxruntime
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, create
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Readout, Scores, Spec
from spikeserve.models.spec.network import Network
from spikeserve.plugins.onnx.graph import build
from tests.networks import network_of

every_engine = pytest.mark.parametrize("engine", list(ENGINES))

PASSED_ON = [{"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False}]
FIRING = [{"type": "IF", "name": "out"}]


def reading(readout: str, nodes: list[dict[str, Any]], **spec: Any) -> Network:
    weights = {f"{node['name']}.weight": np.eye(2) for node in nodes if node["type"] == "Linear"}
    values = {"shape": [2], "low": -8, "high": 8}
    fields = {"input": values, "coding": "current", "time_steps": 3, "labels": ["a", "b"]}
    return network_of(nodes, weights, readout=readout, **fields | spec)


def read(engine: str, network: Network, steps: list[Any]) -> tuple[list[float], list[int]]:
    """Return the readout and the counts of one sample, run in one call."""
    shape = (len(steps), 1, *network.spec.input.shape)
    result, _ = create(engine, network).run(DenseInputs(np.array(steps, np.float32).reshape(shape), len(steps)))
    return result.readout[0].tolist(), result.spike_counts[0].tolist()


@every_engine
@pytest.mark.parametrize(
    ("readout", "expected"), [("sum", [3, 2]), ("mean", [1, np.float32(2 / 3)]), ("max", [3, 4]), ("last", [-1, 4])]
)
def test_a_connection_is_read_over_time_by_itself(engine: str, readout: str, expected: list[float]) -> None:
    steps = [[1, -2], [3, 0], [-1, 4]]
    assert read(engine, reading(readout, PASSED_ON), steps) == (expected, [0, 0])


@every_engine
@pytest.mark.parametrize(
    ("readout", "expected"),
    [
        # The first charges to 0.5, 1 (a spike), 0.25; the second to 0, 0, 1 (a spike).
        ("spike_count", [1, 1]),
        ("first_spike", [2, 1]),  # of three steps, at step 1 and at step 2
        ("sum", [1, 1]),
        ("mean", [np.float32(1 / 3), np.float32(1 / 3)]),
        ("max", [1, 1]),
        ("last", [0, 1]),
        # After the reset they are 0.5, 0, 0.25 and 0, 0, 0.
        ("sum_membrane", [0.75, 0]),
        ("mean_membrane", [0.25, 0]),
        ("max_membrane", [0.5, 0]),
        ("last_membrane", [0.25, 0]),
    ],
)
def test_a_layer_that_fires_is_read_and_counted(engine: str, readout: str, expected: list[float]) -> None:
    steps = [[0.5, 0], [0.5, 0], [0.25, 1]]
    assert read(engine, reading(readout, FIRING), steps) == (expected, [1, 1])


@every_engine
def test_a_neuron_that_never_fires_has_no_first_spike_and_the_earliest_wins(engine: str) -> None:
    readout, counts = read(engine, reading("first_spike", FIRING), [[0, 1], [0, 1], [0, 0]])
    assert (readout, counts) == ([0, 3], [0, 2])


@every_engine
@pytest.mark.parametrize(
    "behind",
    [[], [{"type": "Flatten", "name": "flat"}], [{"type": "Reshape", "name": "shaped", "shape": [1, 2]}]],
    ids=["bare", "flattened", "reshaped"],
)
@pytest.mark.parametrize("readout", ["spike_count", "last", "last_membrane"])
def test_an_output_of_any_shape_is_read_flat(engine: str, readout: str, behind: list[dict[str, Any]]) -> None:
    # Two channels of one pixel each, as a convolution leaves them; the second fires at its second step.
    network = reading(readout, [*FIRING, *behind], input={"shape": [2, 1, 1], "low": -8, "high": 8})
    expected = {"spike_count": [0, 1], "last": [0, 1], "last_membrane": [0.5, 0.25]}
    assert read(engine, network, [[0.25, 0.5], [0.25, 0.75]]) == (expected[readout], [0, 1])


@every_engine
def test_votes_are_the_mean_over_the_neurons_of_each_class(engine: str) -> None:
    # Two neurons for each of two classes: at the first step one votes for a and both for b, at the second one for b.
    votes = {"type": "AvgPool2d", "name": "votes", "kernel_size": [1, 2]}
    network = reading("mean", [*FIRING, votes], input={"shape": [1, 2, 2], "low": -8, "high": 8})
    assert read(engine, network, [[1, 0, 1, 1], [0, 0, 1, 0]])[0] == [0.25, 0.75]


@every_engine
def test_an_output_that_is_the_same_at_every_step_counts_at_every_step(engine: str) -> None:
    network = reading("sum", PASSED_ON, coding="direct")
    result, state = create(engine, network).run(DenseInputs(np.array([[[1, 2]]], np.float32), 3))
    assert result.readout[0].tolist() == [3, 6]
    result, _ = create(engine, network).run(DenseInputs(np.array([[[1, 0]]], np.float32), 2), state)
    assert result.readout[0].tolist() == [5, 6]


@every_engine
def test_a_sum_is_of_float64s_from_rest_on(engine: str) -> None:
    # 2**24 + 1 + 1 is 2**24 + 2, but in float32 2**24 + 1 is 2**24 and the sum stays there.
    big = 2.0**24
    network = reading("sum", PASSED_ON, input={"shape": [2], "low": 0, "high": big})
    assert read(engine, network, [[big, 0], [1, 0], [1, 0]])[0] == [big + 2, 0]


@pytest.mark.parametrize("readout", list(Readout))
def test_a_bundles_onnx_graph_reads_out_by_itself(readout: Readout) -> None:
    network = reading(readout, FIRING)
    steps = np.array([[0.5, 0], [0.5, 0], [0.25, 1]], np.float32)[:, np.newaxis]
    session = onnxruntime.InferenceSession(build(network).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["readout"], {"inputs": steps})
    expected, _ = create("reference", network).run(DenseInputs(steps, 3))
    np.testing.assert_array_equal(found, expected.readout)


@pytest.mark.parametrize(
    ("readout", "nodes", "sentence"),
    [
        (
            "spike_count",
            PASSED_ON,
            r"^the spec is invalid: node 'fc': readout 'spike_count' needs a spiking last node, not Linear$",
        ),
        (
            "first_spike",
            PASSED_ON,
            r"^the spec is invalid: node 'fc': readout 'first_spike' needs a spiking last node, not Linear$",
        ),
        (
            "max_membrane",
            PASSED_ON,
            r"^the spec is invalid: node 'fc': readout 'max_membrane' needs a neuron as the last node, not "
            r"Linear; 'max' reads any node's output$",
        ),
    ],
)
def test_a_readout_the_last_node_lacks_is_refused(readout: str, nodes: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        reading(readout, nodes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"units": ["m", "s"]},
            r"^the spec is invalid: units: \['m', 's'\] given, but scores is 'softmax', which has none$",
        ),
        (
            {"scores": "values", "units": ["m"]},
            r"^the spec is invalid: units: 1 given, expected one for each of the 2 labels$",
        ),
    ],
)
def test_units_are_those_of_values_and_one_for_each(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        reading("last", PASSED_ON, **fields)


def test_what_an_older_bundle_says_means_what_it_did() -> None:
    # Of before `scores`: it has neither field, and its readout's name still is one.
    spec = reading("max_membrane", [{"type": "LI", "name": "out", "decay": 0.5}]).spec
    older = spec.model_dump(mode="json", exclude={"scores", "units"})
    assert older["readout"] == "max_membrane"
    assert Spec.read(older) == spec
    assert (spec.scores, spec.units) == (Scores.SOFTMAX, None)


def test_probabilities_are_the_softmax_of_scores_or_are_there_already() -> None:
    readout = np.array([[0.25, 0.75]], np.float32)
    assert Scores.PROBABILITIES.probabilities(readout).tolist() == [[0.25, 0.75]]
    # exp(0.25) / (exp(0.25) + exp(0.75)) = 1 / (1 + exp(0.5))
    np.testing.assert_allclose(Scores.SOFTMAX.probabilities(readout)[0, 0], 1 / (1 + np.exp(0.5)), rtol=1e-6)
