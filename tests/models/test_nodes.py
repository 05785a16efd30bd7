"""Connections and joins on numbers that are worked out by hand, on every engine; and what is refused of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import EngineName, create, plain
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.fan_out import fan_out
from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import ConvTranspose2d
from spikeserve.models.spec.parameters import Shape
from tests.networks import network_of
from tests.same import EVERYTHING

every_engine = pytest.mark.parametrize("engine", list(EngineName))


def summed(nodes: list[dict[str, Any]], tensors: dict[str, Any], shape: Shape, outputs: int, **spec: Any) -> Network:
    """Return nodes before an I, whose membrane is the sum over the steps of what leaves them."""
    return network_of(
        [*nodes, {"type": "Flatten", "name": "flat"}, {"type": "I", "name": "out"}],
        tensors,
        **{"input": {"shape": shape, "low": -100, "high": 100}, "coding": "current", "readout": "last_membrane"} | spec,
        labels=[str(label) for label in range(outputs)],
    )


def leaving(
    engine: EngineName,
    nodes: list[dict[str, Any]],
    tensors: dict[str, Any],
    values: list[Any],
    outputs: int,
    shape: Shape | None = None,
) -> Any:
    """Return the output of nodes at each step of one sample's `values`, one for each step, as nested lists."""
    steps = np.array(values, np.float32)[:, np.newaxis]
    network = summed(nodes, tensors, shape or steps.shape[2:], outputs, time_steps=len(steps))
    result, _ = create(engine, network).run(DenseInputs(steps, len(steps)), record=EVERYTHING)
    return np.diff(result.membranes["out"][:, 0], axis=0, prepend=np.float32(0)).tolist()


# Of an input of eight values the first four and the last four, as two signals.
HALVES: list[dict[str, Any]] = [
    {"type": "Linear", "name": name, "inputs": ["input"], "in_features": 8, "out_features": 4, "bias": False}
    for name in ("first", "second")
]
SPLIT = {"first.weight": np.eye(8)[:4], "second.weight": np.eye(8)[4:]}


@every_engine
def test_a_channel_is_scaled_and_then_shifted_by_its_own(engine: EngineName) -> None:
    # Channel 0: 2 * 1 + 0.5, 2 * 2 + 0.5. Channel 1: -1 * 3 + 10, -1 * 0 + 10, of a value that is no event.
    node: dict[str, Any] = {"type": "Scale", "name": "norm", "scale": "per_channel", "offset": "per_channel"}
    tensors = {"norm.scale": [2, -1], "norm.offset": [0.5, 10]}
    assert leaving(engine, [node], tensors, [[[1, 2], [3, 0]]], 4) == [[2.5, 4.5, 7.0, 10.0]]


@every_engine
def test_a_scale_rounds_the_product_before_it_adds(engine: EngineName) -> None:
    # (1 + e)**2 = 1 + 2e + e**2 rounds to 1 + 2e, which the offset takes away. A fused multiply-add would leave e**2.
    e = float(np.finfo(np.float32).eps)
    node: dict[str, Any] = {"type": "Scale", "name": "norm", "scale": 1 + e, "offset": -(1 + 2 * e)}
    assert leaving(engine, [node], {}, [[1 + e]], 1) == [[0.0]]


PER_STEP: dict[str, Any] = {"type": "Scale", "name": "norm", "scale": "per_channel", "offset": 0.5, "steps": 3}
STEPS: dict[str, Any] = {"norm.scale": [[1], [2], [4]]}


@every_engine
def test_each_step_takes_the_parameters_of_its_number(engine: EngineName) -> None:
    # 1 * 1 + 0.5, then 2 * 1 + 0.5 and 4 * 1 + 0.5, of an input that is the same at every step.
    network = summed([PER_STEP], STEPS, (1, 1), 1, coding="direct", time_steps=3)
    runner, sample = create(engine, network), np.ones((1, 1, 1, 1), np.float32)
    whole, _ = runner.run(DenseInputs(sample, 3), record=EVERYTHING)
    assert whole.membranes["out"].ravel().tolist() == [1.5, 4.0, 8.5]


@every_engine
def test_more_steps_than_there_are_parameters_for_are_refused_in_a_sentence(engine: EngineName) -> None:
    network = summed([PER_STEP], STEPS, (1, 1), 1, coding="direct", time_steps=3)
    runner, sample = create(engine, network), np.ones((1, 1, 1, 1), np.float32)
    _, state = runner.run(DenseInputs(sample, 2))
    sentence = "^time_steps is 4 since rest, but node 'norm' has parameters for 3$"
    with pytest.raises(InvalidInput, match=sentence):
        runner.run(DenseInputs(sample, 2), state)
    with pytest.raises(InvalidInput, match=sentence):
        encode(sample[0], network.spec, 4)
    with pytest.raises(InvalidSpec, match=sentence[1:]):
        summed([PER_STEP], STEPS, (1, 1), 1, coding="direct", time_steps=4)


@every_engine
@pytest.mark.parametrize(
    ("kind", "expected"), [("SumPool1d", [3, -2, 5]), ("AvgPool1d", [1.5, -1, 2.5]), ("MaxPool1d", [2, 0, 5])]
)
def test_a_pool_over_a_length_takes_each_channels_windows(engine: EngineName, kind: str, expected: list[float]) -> None:
    # Windows of two with a stride of two: (1, 2), (-2, 0) and (5, 0); the seventh value is in no window.
    node: dict[str, Any] = {"type": kind, "name": "pool", "kernel_size": 2}
    assert leaving(engine, [node], {}, [[[1, 2, -2, 0, 5, 0, 9]]], 3) == [expected]


@every_engine
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Windows of two with a stride of two: (-1, -2), (-3, -4), and (-5) with one place over the end.
        ({"type": "SumPool1d", "overhang": True}, [-3, -7, -5]),
        ({"type": "AvgPool1d", "overhang": True}, [-1.5, -3.5, -5]),
        ({"type": "MaxPool1d", "overhang": True}, [-1, -3, -5]),
        # With padding (0, -1), (-2, -3), (-4, -5); a fourth would begin in the padding at the end, and is none.
        ({"type": "AvgPool1d", "overhang": True, "padding": 1}, [-0.5, -2.5, -4.5]),
        ({"type": "AvgPool1d", "count_padding": False, "padding": 1}, [-1, -2.5, -4.5]),
        # With a stride of three (0, -1), (-3, -4); with an overhang no third one, which would begin at the padding.
        ({"type": "MaxPool1d", "overhang": True, "padding": 1, "stride": 3}, [-1, -3]),
    ],
)
def test_windows_at_an_edge_cover_what_is_there(
    engine: EngineName, fields: dict[str, Any], expected: list[float]
) -> None:
    node = {"name": "pool", "kernel_size": 2} | fields
    assert leaving(engine, [node], {}, [[[-1, -2, -3, -4, -5]]], len(expected)) == [expected]


@every_engine
def test_ten_neurons_vote_by_an_average_over_a_flat_axis(engine: EngineName) -> None:
    # Four of the first ten spike and one of the last ten: SpikingJelly's VotingLayer, with Reshape before and behind.
    nodes: list[dict[str, Any]] = [
        {"type": "Reshape", "name": "one", "shape": [1, 20]},
        {"type": "AvgPool1d", "name": "votes", "kernel_size": 10},
        {"type": "Reshape", "name": "flat_again", "shape": [2]},
    ]
    assert leaving(engine, nodes, {}, [[1] * 4 + [0] * 15 + [1]], 2) == [pytest.approx([0.4, 0.1])]


@every_engine
def test_reshape_keeps_the_order_and_permute_turns_the_axes(engine: EngineName) -> None:
    values = [[[0, 1, 2], [3, 4, 5]]]
    turned: dict[str, Any] = {"type": "Permute", "name": "turned", "order": [1, 0]}
    assert leaving(engine, [turned], {}, values, 6) == [[0, 3, 1, 4, 2, 5]]
    shaped: dict[str, Any] = {"type": "Reshape", "name": "shaped", "shape": [3, 1, 2]}
    assert leaving(engine, [shaped], {}, values, 6) == [[0, 1, 2, 3, 4, 5]]
    # Rows (0, 1), (2, 3), (4, 5), of which the columns become rows.
    last_first: dict[str, Any] = {"type": "Permute", "name": "turned", "order": [2, 1, 0]}
    assert leaving(engine, [shaped, last_first], {}, values, 6) == [[0, 2, 4, 1, 3, 5]]


@every_engine
def test_and_and_iand_are_products_of_spikes(engine: EngineName) -> None:
    spikes = [[0, 0, 1, 1, 0, 1, 0, 1]]  # s1 and s2
    both: list[dict[str, Any]] = [*HALVES, {"type": "Multiply", "name": "and", "inputs": ["first", "second"]}]
    assert leaving(engine, both, SPLIT, spikes, 4) == [[0, 0, 0, 1]]
    # (1 - s1) * s2 = s2 - s1 * s2
    negative: dict[str, Any] = {"type": "Scale", "name": "not", "scale": -1}
    iand: dict[str, Any] = {"type": "Flatten", "name": "iand", "inputs": ["second", "not"]}
    assert leaving(engine, [*both, negative, iand], SPLIT, spikes, 4) == [[0, 1, 0, 0]]


@every_engine
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 10, 102, 20, 200]),  # 1 * (1, 10, 100) from 0 on, and 2 * (1, 10, 100) from 2 on
        ({"padding": 1}, [10, 102, 20]),
        ({"padding": 1, "output_padding": 1}, [10, 102, 20, 200]),
        ({"dilation": 2}, [1, 0, 12, 0, 120, 0, 200]),  # 1, 10, 100 at 0, 2, 4, and 2, 20, 200 at 2, 4, 6
    ],
)
def test_a_transposed_convolution_spreads_each_input_over_the_outputs(
    engine: EngineName, fields: dict[str, Any], expected: list[float]
) -> None:
    node: dict[str, Any] = {
        "type": "ConvTranspose1d",
        "name": "up",
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": 3,
        "stride": 2,
    }
    tensors = {"up.weight": [[[1, 10, 100]]], "up.bias": [0.5]}
    expected = [value + 0.5 for value in expected]
    assert leaving(engine, [node | fields], tensors, [[[1, 2]]], len(expected)) == [expected]


@every_engine
def test_a_concatenation_has_its_inputs_in_order_even_where_one_is_constant(engine: EngineName) -> None:
    # The IF fires at steps 1 and 3 of a constant 0.5; behind it stands the constant.
    nodes: list[dict[str, Any]] = [
        {"type": "IF", "name": "spikes"},
        {"type": "Concatenate", "name": "both", "inputs": ["spikes", "input"], "axis": 1},
    ]
    network = summed(nodes, {}, (1, 1), 2, coding="direct", time_steps=4)
    run, _ = create(engine, network).run(DenseInputs(np.full((1, 1, 1, 1), 0.5, np.float32), 4), record=EVERYTHING)
    assert np.diff(run.membranes["out"][:, 0], axis=0, prepend=0).tolist() == [[0, 0.5], [1, 0.5], [0, 0.5], [1, 0.5]]


@every_engine
def test_a_matrix_product_is_of_two_signals_for_each_head(engine: EngineName) -> None:
    # Two heads of rows 1 and columns 1: (1, 2) · (5, 6) = 17 and (3, 4) · (7, 8) = 53.
    shapes: list[dict[str, Any]] = [
        {"type": "Reshape", "name": "a", "inputs": ["first"], "shape": [2, 1, 2]},
        {"type": "Reshape", "name": "b", "inputs": ["second"], "shape": [2, 2, 1]},
    ]
    product: dict[str, Any] = {"type": "MatMul", "name": "product", "inputs": ["a", "b"]}
    assert leaving(engine, [*HALVES, *shapes, product], SPLIT, [[1, 2, 3, 4, 5, 6, 7, 8]], 2) == [[17, 53]]


@every_engine
def test_attention_over_spikes_is_made_of_matrix_products(engine: EngineName) -> None:
    # Q = K = V = X, two tokens of two heads, each one wide. Head 0 has (1, 1): X Xᵀ is all ones, and times X (2, 2).
    # Head 1 has (0, 1): X Xᵀ is 1 for token 1 alone, and times X (0, 1). Then scaled by 1/4, tokens first again.
    nodes: list[dict[str, Any]] = [
        {"type": "Reshape", "name": "heads", "shape": [2, 2, 1]},
        {"type": "Permute", "name": "q", "order": [1, 0, 2]},
        {"type": "Permute", "name": "k", "order": [0, 2, 1]},
        {"type": "MatMul", "name": "attention", "inputs": ["q", "k"]},
        {"type": "Scale", "name": "scaled", "scale": 0.25},
        {"type": "MatMul", "name": "values", "inputs": ["scaled", "q"]},
        {"type": "Permute", "name": "back", "order": [1, 0, 2]},
        {"type": "Reshape", "name": "tokens", "shape": [2, 2]},
    ]
    assert leaving(engine, nodes, {}, [[[1, 0], [1, 1]]], 4) == [[0.5, 0, 0.5, 0.25]]


def test_what_becomes_0_in_a_product_costs_nothing_behind_it() -> None:
    nodes: list[dict[str, Any]] = [
        {"type": "Scale", "name": "shifted", "scale": 1, "offset": -1, "inputs": ["input"]},
        {"type": "Multiply", "name": "product", "inputs": ["shifted", "input", "shifted"]},
        {"type": "Linear", "name": "fc", "in_features": 8, "out_features": 5, "bias": False},
    ]
    network = summed(nodes, {"fc.weight": np.ones((5, 8))}, (8,), 5, time_steps=2)
    inputs = np.zeros((2, 1, 8), np.float32)
    inputs[:, 0, :3] = 2.0, 1.0, 3.0  # of (x - 1)² x the first and the third are not 0: 2 and 12
    result, _ = EventEngine(network).run(DenseInputs(inputs, 2))
    assert result.readout.tolist() == [[28.0] * 5]
    assert result.synaptic_operations is not None
    assert result.synaptic_operations.tolist() == [2 * 2 * 5]


def test_an_input_of_a_transposed_convolution_costs_the_weights_that_it_meets() -> None:
    node = ConvTranspose2d(
        name="up", in_channels=4, out_channels=6, groups=2, kernel_size=(3, 2), stride=(2, 1), padding=(1, 1),
        output_padding=(1, 0), dilation=(1, 2), bias=False,
    )  # fmt: skip
    shape = (4, 3, 4)
    spec = Spec.read(
        {
            "input": {"shape": shape},
            "time_steps": 1,
            "readout": "last_membrane",
            "labels": [str(label) for label in range(int(np.prod(node.output_shape(shape))))],
            "nodes": [node.model_dump(), {"type": "Flatten", "name": "flat"}, {"type": "I", "name": "out"}],
        }
    )
    network = Network(spec, {"up.weight": np.ones((6, 2, 3, 2), np.float32)})
    alone = np.eye(48, dtype=np.float32).reshape(48, *shape)  # every weight is 1: what leaves is how many are met
    reached = plain.connect(node, network, alone).sum(axis=(1, 2, 3)).reshape(shape)
    assert fan_out(node, shape).tolist() == reached.tolist()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "Reshape", "name": "n", "shape": [5]}, "shape is 5, 5 values, but its input has shape 2×2, 4 values"),
    ({"type": "Permute", "name": "n", "order": [0]}, "order has 1 axes, but its input has shape 2×2"),
    ({"type": "Permute", "name": "n", "order": [0, 0]}, "order is [0, 0], expected each axis from 0 to 1 once"),
    ({"type": "Multiply", "name": "n", "inputs": ["a", "b"]}, "'a' and 'b' are multiplied, but have shapes 2×2 and 4"),
    (
        {"type": "Concatenate", "name": "n", "inputs": ["a", "b"]},
        "'a' and 'b' are joined along axis 0, but have shapes 2×2 and 4",
    ),
    ({"type": "Concatenate", "name": "n", "inputs": ["b", "a"], "axis": 1}, "axis is 1, but its input 'b' has shape 4"),
    (
        {"type": "MatMul", "name": "n", "inputs": ["a", "b"]},
        "'a' and 'b' have shapes 2×2 and 4, expected (heads, rows, inner) and (heads, inner, columns)",
    ),
    ({"type": "MaxPool1d", "name": "n", "kernel_size": 2, "padding": 2}, "padding is 2, expected at most half of"),
    (
        {"type": "Scale", "name": "n", "scale": 2, "steps": 4},
        "steps is 4, but scale 2 and offset 0 are the same at each",
    ),
    (
        {"type": "ConvTranspose1d", "name": "n", "in_channels": 2, "out_channels": 1, "kernel_size": 1, "padding": 1},
        "a kernel of 1 with its padding leaves nothing of an input of 2×2",
    ),
    (
        {"type": "ConvTranspose1d", "name": "n", "in_channels": 2, "out_channels": 1, "kernel_size": 1}
        | {"output_padding": 1},
        "output_padding is 1, expected less than the stride 1",
    ),
]


@pytest.mark.parametrize(("node", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_does_not_fit_is_refused_in_a_sentence_that_names_the_node(node: dict[str, Any], sentence: str) -> None:
    before = [
        {"type": "Flatten", "name": "b"},
        {"type": "Reshape", "name": "a", "inputs": ["input"], "shape": [2, 2]},
    ]
    with pytest.raises(InvalidSpec, match=re.escape(sentence)) as refused:
        Spec.read(
            {
                "input": {"shape": [4]},
                "time_steps": 1,
                "labels": ["a"],
                "nodes": [*before, node, {"type": "IF", "name": "out", "inputs": ["n", "b"]}],
            }
        )
    assert "'n'" in str(refused.value)


def test_a_join_of_one_input_is_refused() -> None:
    nodes = [{"type": "Multiply", "name": "n", "inputs": ["input"]}, {"type": "IF", "name": "out"}]
    with pytest.raises(InvalidSpec, match="inputs"):
        Spec.read({"input": {"shape": [1]}, "time_steps": 1, "labels": ["a"], "nodes": nodes})
