"""Connections and joins on numbers that are worked out by hand, on every engine; and what is refused of them.

A Delay with several taps: what leaves it at each step, on every engine, and what is refused of it.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, EventInputs, encode
from spikeserve.models.engines import ENGINES, create, plain
from spikeserve.models.engines.base import Record, State
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.fan_out import fan_out
from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import ConvTranspose2d
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.price import Price
from tests.networks import network_of, task
from tests.same import EVERYTHING

Node = dict[str, Any]
every_engine = pytest.mark.parametrize("engine", list(ENGINES))


def summed(nodes: list[dict[str, Any]], tensors: dict[str, Any], shape: Shape, outputs: int, **spec: Any) -> Network:
    """Return nodes before an I, whose membrane is the sum over the steps of what leaves them."""
    return network_of(
        [*nodes, {"type": "Flatten", "name": "flat"}, {"type": "I", "name": "out"}],
        tensors,
        **{"input": {"shape": shape, "low": -100, "high": 100}, "coding": "current", "readout": "last_membrane"} | spec,
        labels=[str(label) for label in range(outputs)],
    )


# Of an input of eight values the first four and the last four, as two signals.
HALVES: list[Node] = [
    {"type": "Linear", "name": name, "inputs": ["input"], "in_features": 8, "out_features": 4, "bias": False}
    for name in ("first", "second")
]
SPLIT = {"first.weight": np.eye(8)[:4], "second.weight": np.eye(8)[4:]}


EPS = float(np.finfo(np.float32).eps)
EDGE, FIVE = {"kernel_size": 2, "overhang": True}, [[-1, -2, -3, -4, -5]]
CONV1, CONV2 = ({"type": f"Conv{axes}d", "in_channels": 1, "out_channels": 1, "bias": False} for axes in (1, 2))
UP = {"type": "ConvTranspose1d", "in_channels": 1, "out_channels": 1, "kernel_size": 3, "stride": 2}
GROUPED = {"in_channels": 2, "out_channels": 2, "kernel_size": 1, "groups": 2}
SAME = {"padding": "same"}
BOTH: list[Node] = [*HALVES, {"type": "Multiply", "name": "and", "inputs": ["first", "second"]}]
IMAGE = [[[1, 2, 3], [4, 5, 6]]]
# Nodes, their tensors, one sample, and what leaves the last of them, flat. The last node is called "node".
BY_HAND: dict[str, tuple[list[Node], dict[str, Any], Any, Sequence[Any]]] = {
    # Channel 0: 2 * 1 + 0.5, 2 * 2 + 0.5. Channel 1: -1 * 3 + 10, -1 * 0 + 10, of a value that is no event.
    "scaled by channel": (
        [{"type": "Scale", "scale": "per_channel", "offset": "per_channel"}],
        *({"node.scale": [2, -1], "node.offset": [0.5, 10]}, [[1, 2], [3, 0]], [2.5, 4.5, 7.0, 10.0]),
    ),
    "scaled": ([{"type": "Scale", "scale": 0.5}], {}, [1, 5], [0.5, 2.5]),
    "scaled by value": ([{"type": "Scale", "scale": "per_neuron"}], {"node.scale": [-2, 0]}, [1, 5], [-2, 0]),
    # (1 + e)**2 = 1 + 2e + e**2 rounds to 1 + 2e, which the offset takes away. A fused multiply-add would leave e**2.
    "rounded twice": ([{"type": "Scale", "scale": 1 + EPS, "offset": -(1 + 2 * EPS)}], {}, [1 + EPS], [0.0]),
    # Windows of two with a stride of two: (1, 2), (-2, 0) and (5, 0); the seventh value is in no window.
    **{
        kind: ([{"type": kind, "kernel_size": 2}], {}, [[1, 2, -2, 0, 5, 0, 9]], expected)
        for kind, expected in (("SumPool1d", [3, -2, 5]), ("AvgPool1d", [1.5, -1, 2.5]), ("MaxPool1d", [2, 0, 5]))
    },
    # Windows of two with a stride of two: (-1, -2), (-3, -4), and (-5) with one place over the end.
    "sums over the end": ([{"type": "SumPool1d"} | EDGE], {}, FIVE, [-3, -7, -5]),
    "means over the end": ([{"type": "AvgPool1d"} | EDGE], {}, FIVE, [-1.5, -3.5, -5]),
    "maxima over the end": ([{"type": "MaxPool1d"} | EDGE], {}, FIVE, [-1, -3, -5]),
    # With padding (0, -1), (-2, -3), (-4, -5); a fourth would begin in the padding at the end, and is none.
    "means of padding": ([{"type": "AvgPool1d", "padding": 1} | EDGE], {}, FIVE, [-0.5, -2.5, -4.5]),
    "means without padding": (
        [{"type": "AvgPool1d", "kernel_size": 2, "count_padding": False, "padding": 1}],
        {},
        FIVE,
        [-1, -2.5, -4.5],
    ),
    # With a stride of three (0, -1), (-3, -4); with an overhang no third one, which would begin at the padding.
    "maxima of padding": ([{"type": "MaxPool1d", "padding": 1, "stride": 3} | EDGE], {}, FIVE, [-1, -3]),
    # Four of the first ten spike and one of the last ten: SpikingJelly's VotingLayer, with Reshape before and behind.
    "votes": (
        [{"type": "Reshape", "shape": [1, 20]}, {"type": "AvgPool1d", "kernel_size": 10}],
        *({}, [1] * 4 + [0] * 15 + [1], [np.float32(0.4), np.float32(0.1)]),
    ),
    "turned": ([{"type": "Permute", "order": [1, 0]}], {}, [[0, 1, 2], [3, 4, 5]], [0, 3, 1, 4, 2, 5]),
    "reshaped": ([{"type": "Reshape", "shape": [3, 1, 2]}], {}, [[0, 1, 2], [3, 4, 5]], [0, 1, 2, 3, 4, 5]),
    # Rows (0, 1), (2, 3), (4, 5), of which the columns become rows.
    "reshaped and turned": (
        [{"type": "Reshape", "shape": [3, 1, 2]}, {"type": "Permute", "order": [2, 1, 0]}],
        *({}, [[0, 1, 2], [3, 4, 5]], [0, 2, 4, 1, 3, 5]),
    ),
    # s1 is 0011 and s2 0101; (1 - s1) * s2 = s2 - s1 * s2
    "and": ([*BOTH, {"type": "Flatten"}], SPLIT, [0, 0, 1, 1, 0, 1, 0, 1], [0, 0, 0, 1]),
    "iand": (
        [*BOTH, {"type": "Scale", "name": "not", "scale": -1}, {"type": "Flatten", "inputs": ["second", "not"]}],
        *(SPLIT, [0, 0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0]),
    ),
    # 1 * (1, 10, 100) from 0 on, and 2 * (1, 10, 100) from 2 on; dilated at 0, 2, 4 and at 2, 4, 6
    **{
        f"transposed {fields}": (
            [UP | fields],
            *({"node.weight": [[[1, 10, 100]]], "node.bias": [0.5]}, [[1, 2]], [value + 0.5 for value in expected]),
        )
        for fields, expected in (
            ({}, [1, 10, 102, 20, 200]),
            ({"padding": 1}, [10, 102, 20]),
            ({"padding": 1, "output_padding": 1}, [10, 102, 20, 200]),
            ({"dilation": 2}, [1, 0, 12, 0, 120, 0, 200]),
        )
    },
    # 1 2 3 4 under a kernel of 1 10: x[k] + 10 x[k + 1]. "same" pads an even kernel more behind: one 0 after it; three
    # zeros are one before and two after.
    **{
        f"along a length {fields} {kernel}": (
            [CONV1 | {"kernel_size": len(kernel)} | fields],
            {"node.weight": [[kernel]]},
            [[1, 2, 3, 4]],
            expected,
        )
        for fields, kernel, expected in (
            ({}, [1, 10], [21, 32, 43]),
            ({"stride": 2, "padding": 1}, [1, 10], [10, 32, 4]),
            ({"dilation": 2}, [1, 10], [31, 42]),
            (SAME, [1, 10], [21, 32, 43, 4]),
            (SAME, [1, 10, 100, 1000], [3210, 4321, 432, 43]),
            (SAME | {"dilation": 2}, [1, 10], [20, 31, 42, 3]),
        )
    },
    # "same" pads an even kernel by a row of zeros below and a column to the right; one that is even along one axis
    # only, of 3 rows and 2 columns, by rows on both sides and one column.
    **{
        f"over an image {fields} {kernel}": (
            [CONV2 | {"kernel_size": list(np.shape(kernel))} | fields],
            {"node.weight": [[kernel]]},
            IMAGE,
            expected,
        )
        for fields, kernel, expected in (
            ({"dilation": [1, 2]}, [[1, 10]], [31, 64]),
            (SAME, [[1, 10], [100, 1000]], [5421, 6532, 603, 54, 65, 6]),
            (SAME, [[1, 0], [10, 0], [100, 1000]], [5410, 6520, 630, 41, 52, 63]),
            (SAME | {"dilation": [1, 2]}, [[1, 10]], [20, 31, 2, 50, 64, 5]),
        )
    },
    # Two channels in two groups: the first is doubled, the second tripled, and each has its own bias.
    "groups along a length": (
        [{"type": "Conv1d"} | GROUPED],
        *({"node.weight": [[[2]], [[3]]], "node.bias": [0.5, 0]}, [[1, 2], [3, 4]], [2.5, 4.5, 9.0, 12.0]),
    ),
    "groups over an image": (
        [{"type": "Conv2d"} | GROUPED],
        *({"node.weight": [[[[2]]], [[[3]]]], "node.bias": [0.5, 0]}, [[[1, 2]], [[3, 4]]], [2.5, 4.5, 9.0, 12.0]),
    ),
    # Two heads of rows 1 and columns 1: (1, 2) · (5, 6) = 17 and (3, 4) · (7, 8) = 53.
    "a product for each head": (
        [
            *HALVES,
            {"type": "Reshape", "name": "a", "inputs": ["first"], "shape": [2, 1, 2]},
            {"type": "Reshape", "name": "b", "inputs": ["second"], "shape": [2, 2, 1]},
            {"type": "MatMul", "inputs": ["a", "b"]},
        ],
        *(SPLIT, [1, 2, 3, 4, 5, 6, 7, 8], [17, 53]),
    ),
    # Q = K = V = X, two tokens of two heads, each one wide. Head 0 has (1, 1): X Xᵀ is all ones, and times X (2, 2).
    # Head 1 has (0, 1): X Xᵀ is 1 for token 1 alone, and times X (0, 1). Then scaled by 1/4, tokens first again.
    "attention": (
        [
            {"type": "Reshape", "name": "heads", "shape": [2, 2, 1]},
            {"type": "Permute", "name": "q", "order": [1, 0, 2]},
            {"type": "Permute", "name": "k", "order": [0, 2, 1]},
            {"type": "MatMul", "name": "attention", "inputs": ["q", "k"]},
            {"type": "Scale", "name": "scaled", "scale": 0.25},
            {"type": "MatMul", "name": "values", "inputs": ["scaled", "q"]},
            {"type": "Permute", "order": [1, 0, 2]},
        ],
        *({}, [[1, 0], [1, 1]], [0.5, 0, 0.5, 0.25]),
    ),
}


@every_engine
@pytest.mark.parametrize("name", BY_HAND)
def test_a_node_gives_what_is_worked_out_by_hand(engine: str, name: str) -> None:
    nodes, tensors, sample, expected = BY_HAND[name]
    named = [{"name": f"n{place}"} | node for place, node in enumerate(nodes[:-1])] + [{"name": "node"} | nodes[-1]]
    network = summed(named, tensors, np.shape(sample), len(expected), time_steps=1)
    result, _ = create(engine, network).run(DenseInputs(np.array(sample, np.float32)[np.newaxis, np.newaxis], 1))
    assert result.readout.tolist() == [list(expected)]


PER_STEP: dict[str, Any] = {"type": "Scale", "name": "norm", "scale": "per_channel", "offset": 0.5, "steps": 3}
STEPS: dict[str, Any] = {"norm.scale": [[1], [2], [4]]}


@every_engine
def test_each_step_takes_the_parameters_of_its_number(engine: str) -> None:
    # 1 * 1 + 0.5, then 2 * 1 + 0.5 and 4 * 1 + 0.5, of an input that is the same at every step.
    network = summed([PER_STEP], STEPS, (1, 1), 1, coding="direct", time_steps=3)
    runner, sample = create(engine, network), np.ones((1, 1, 1, 1), np.float32)
    whole, _ = runner.run(DenseInputs(sample, 3), record=EVERYTHING)
    assert whole.membranes["out"].ravel().tolist() == [1.5, 4.0, 8.5]


@every_engine
def test_more_steps_than_there_are_parameters_for_are_refused_in_a_sentence(engine: str) -> None:
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
    ("delay", "of_steps", "of_a_constant"),
    [
        (0, [[1, 5], [2, 6], [3, 7], [4, 8]], [[1, 5]] * 4),
        (1, [[0, 0], [1, 5], [2, 6], [3, 7]], [[0, 0], [1, 5], [1, 5], [1, 5]]),
        (9, [[0, 0]] * 4, [[0, 0]] * 4),
        ("per_neuron", [[1, 0], [2, 0], [3, 0], [4, 5]], [[1, 0], [1, 0], [1, 0], [1, 5]]),
    ],
)
def test_a_delay_gives_each_element_some_steps_later_and_0_until_then(
    engine: str, delay: Any, of_steps: list[list[int]], of_a_constant: list[list[int]]
) -> None:
    tensors = {"late.delay": [0, 3]} if delay == "per_neuron" else {}
    values = np.array([[1, 5], [2, 6], [3, 7], [4, 8]], np.float32)[:, np.newaxis]
    for coding, steps, expected in (("current", values, of_steps), ("direct", values[:1], of_a_constant)):
        network = summed(
            [{"type": "Delay", "name": "late", "delay": delay}], tensors, (2,), 2, coding=coding, time_steps=4
        )
        result, _ = create(engine, network).run(DenseInputs(steps, 4), record=EVERYTHING)
        assert np.diff(result.membranes["out"][:, 0], axis=0, prepend=np.float32(0)).tolist() == expected


@every_engine
def test_what_a_delay_leaves_is_not_the_same_at_every_step_and_counts_as_often(engine: str) -> None:
    # Under `direct` a weight before the delay would be met once; after a delay of 1 it is met in the 2 steps left of 3.
    network = network_of(
        [
            {"type": "Delay", "name": "delay", "delay": 1},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": [[1]]},
        **task(1, 3, 1),
    )
    result, _ = create(engine, network).run(encode(np.array([[1]], np.float32), network.spec), record=EVERYTHING)
    assert result.rasters["out"][:, 0, 0].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(result.synaptic_operations, [2])


@every_engine
def test_an_uneven_padding_leaves_fewer_windows_over_the_first_inputs(engine: str) -> None:
    # Length 4, kernel 2, "same": the first input lies under one window, each other under two. Two groups: an input
    # meets the one channel of its own group.
    network = network_of(
        [
            {"type": "Conv1d", "name": "conv", "in_channels": 2, "out_channels": 2, "kernel_size": 2, "groups": 2,
             "padding": "same"},
            {"type": "Flatten", "name": "flat"},
            {"type": "IF", "name": "out"},
        ],
        {"conv.weight": np.ones((2, 1, 2)), "conv.bias": [0, 0]},
        **task((2, 4), 1, 8, "spikes")
    )  # fmt: skip
    spikes = np.zeros((3, 1, 2, 4), np.float32)
    spikes[0, 0, 0, 0] = spikes[1, 0, 1, 3] = 1
    spikes[2] = 1
    result, _ = create(engine, network).run(encode(spikes, network.spec))
    np.testing.assert_array_equal(result.synaptic_operations, [1, 2, 14])


@every_engine
def test_a_concatenation_has_its_inputs_in_order_even_where_one_is_constant(engine: str) -> None:
    # The IF fires at steps 1 and 3 of a constant 0.5; behind it stands the constant.
    nodes: list[dict[str, Any]] = [
        {"type": "IF", "name": "spikes"},
        {"type": "Concatenate", "name": "both", "inputs": ["spikes", "input"], "axis": 1},
    ]
    network = summed(nodes, {}, (1, 1), 2, coding="direct", time_steps=4)
    run, _ = create(engine, network).run(DenseInputs(np.full((1, 1, 1, 1), 0.5, np.float32), 4), record=EVERYTHING)
    assert np.diff(run.membranes["out"][:, 0], axis=0, prepend=0).tolist() == [[0, 0.5], [1, 0.5], [0, 0.5], [1, 0.5]]


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
    reached = plain.Connections(network).connect(node, alone).sum(axis=(1, 2, 3)).reshape(shape)
    assert fan_out(node, shape).tolist() == reached.tolist()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "Reshape", "name": "n", "shape": [5]}, "shape is 5, 5 values, but its input has shape 2×2, 4 values"),
    ({"type": "Permute", "name": "n", "order": [0]}, "order has 1 axes, but its input has shape 2×2"),
    ({"type": "Permute", "name": "n", "order": [0, 0]}, "order is [0, 0], expected each axis from 0 to 1 once"),
    ({"type": "Multiply", "name": "n", "inputs": ["a", "b"]}, "'a' and 'b' are multiplied, but have shapes 2×2 and 4"),
    ({"type": "Concatenate", "name": "n", "inputs": ["a", "b"]}, "'a' and 'b' are joined along axis 0, but have shape"),
    ({"type": "Concatenate", "name": "n", "inputs": ["b", "a"], "axis": 1}, "axis is 1, but its input 'b' has shape 4"),
    (
        {"type": "MatMul", "name": "n", "inputs": ["a", "b"]},
        "'a' and 'b' have shapes 2×2 and 4, expected (heads, rows, inner) and (heads, inner, columns)",
    ),
    ({"type": "MaxPool1d", "name": "n", "kernel_size": 2, "padding": 2}, "padding is 2, expected at most half of"),
    ({"type": "Scale", "name": "n", "scale": 2, "steps": 4}, "4, but scale 2 and offset 0 are the same at each"),
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
    before = [{"type": "Flatten", "name": "b"}, {"type": "Reshape", "name": "a", "inputs": ["input"], "shape": [2, 2]}]
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


Nodes = list[dict[str, Any]]
TAPS: Nodes = [{"type": "Delay", "name": "seen", "taps": [0, 2, 3]}]


def recorded(nodes: Nodes, shape: Sequence[int], leaving: int, coding: str = "spikes", tensors: Any = None) -> Network:
    """Return nodes before an LI that keeps nothing, so that its membranes are what leaves them."""
    last: Nodes = [{"type": "Flatten", "name": "flat"}, {"type": "LI", "name": "out", "decay": 0.0}]
    around = task(shape, 6, leaving, coding, readout="last_membrane", low=-8, high=8)
    return network_of([*nodes, *last], tensors or {}, **around)


def tapped(x: FloatArray, taps: Sequence[int]) -> FloatArray:
    """Return the inputs (steps, batch, *shape) of each so many steps before, side by side."""
    steps = len(x)
    before = np.concatenate([np.zeros((max(taps), *x.shape[1:]), np.float32), x])
    return np.concatenate([before[max(taps) - tap :][:steps] for tap in taps], axis=2)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("taps", [[0], [3], [0, 1, 5], [0, 2, 4, 6, 40], [1, 90000]])
@pytest.mark.parametrize("shape", [(3,), (5, 2), (3, 2, 2)])
def test_each_taps_input_leaves_side_by_side(engine: str, taps: list[int], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(taps))
    nodes: Nodes = [{"type": "Delay", "name": "seen", "taps": taps}]
    network = recorded(nodes, shape, len(taps) * int(np.prod(shape)))
    found = create(engine, network)
    spikes = (rng.random((6, 2, *shape)) < 0.5).astype(np.float32)
    values = rng.integers(-8, 9, spikes.shape).astype(np.float32)
    for x in (spikes, values, np.zeros_like(spikes)):
        expected = tapped(x, taps).reshape(6, 2, -1)
        for inputs in (DenseInputs(x, 6), EventInputs.of(DenseInputs(x, 6))):
            result, whole = found.run(inputs, record=Record.MEMBRANE)
            np.testing.assert_array_equal(result.membranes["out"], expected)
        state: State | None = None
        for step in range(6):
            result, state = found.run(DenseInputs(x[step : step + 1], 1), state, record=Record.MEMBRANE)
            np.testing.assert_array_equal(result.membranes["out"][0], expected[step])
        assert state is not None
        line = np.concatenate([np.zeros((taps[-1], *x.shape[1:]), np.float32), x])[6:].swapaxes(0, 1)
        for each in (state, whole):  # the last inputs once, whatever the taps
            np.testing.assert_array_equal(each.arrays["seen.line"], line)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_constant_input_arrives_at_each_tap_when_it_is_due_through_two_delays(engine: str) -> None:
    # Taps 0 and 2 of a constant 3, and then 0 and 1 of both: [x, x two ago] and the same of the step before.
    nodes: Nodes = [
        {"type": "Delay", "name": "first", "taps": [0, 2]},
        {"type": "Delay", "name": "second", "taps": [0, 1]},
    ]
    inputs = DenseInputs(np.full((1, 1, 1), 3, np.float32), 4)
    result, _ = create(engine, recorded(nodes, (1,), 4, "direct")).run(inputs, record=Record.MEMBRANE)
    np.testing.assert_array_equal(
        result.membranes["out"][:, 0], [[3, 0, 0, 0], [3, 0, 3, 0], [3, 3, 3, 0], [3, 3, 3, 3]]
    )


@pytest.mark.parametrize("engine", list(ENGINES))
def test_taps_and_a_linear_are_a_causal_convolution_over_time(engine: str) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.integers(-4, 5, (3, 4, 3)).astype(np.float32)  # (outputs, inputs, taps), the newest first
    linear = {"type": "Linear", "name": "over", "in_features": 12, "out_features": 3, "bias": False}
    weight = kernel.transpose(0, 2, 1).reshape(3, 12)
    network = recorded([*TAPS, linear], (4,), 3, tensors={"over.weight": weight})
    x = (rng.random((6, 2, 4)) < 0.4).astype(np.float32)
    result, _ = create(engine, network).run(DenseInputs(x, 6), record=Record.MEMBRANE)
    for t in range(6):
        expected = sum(x[t - tap] @ kernel[:, :, k].T for k, tap in enumerate((0, 2, 3)) if tap <= t)
        np.testing.assert_array_equal(result.membranes["out"][t], expected)
    # A spike meets a row of weights at each of its taps that come within the run.
    spikes = x.sum(axis=2)
    np.testing.assert_array_equal(
        result.synaptic_operations, 3 * sum(spikes[: 6 - tap].sum(axis=0) for tap in (0, 2, 3)).astype(np.int64)
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "node 'seen': has neither delay nor taps, expected one of them"),
        ({"delay": 1, "taps": [0]}, "node 'seen': has delay and taps, expected one of them"),
        ({"taps": []}, "taps.*at least 1 item"),
        ({"taps": [-1, 0]}, "taps.*greater than or equal to 0"),
        ({"taps": [0, 100_001]}, "taps.*less than or equal to 100000"),
        ({"taps": [0, 2, 2]}, "node 'seen': taps has 2 after 2, expected ascending steps"),
        ({"taps": [0, 1.5]}, "taps.*integer"),
        ({"taps": [*range(100_000)]}, r"node 'seen': its output has shape 3000000000, 3000000000 values"),
    ],
)
def test_taps_that_are_none_are_refused_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    inputs = 30_000 if len(fields.get("taps", ())) > 10 else 1
    around = task(inputs, 6, 1, "spikes", readout="last_membrane")
    with pytest.raises(InvalidSpec, match=sentence) as raised:
        Spec.read({"nodes": [TAPS[0] | {"taps": None} | fields, {"type": "LI", "name": "out", "decay": 0.5}], **around})
    assert "\n" not in str(raised.value)


def test_the_price_is_one_line_of_inputs_and_an_output_for_each_tap() -> None:
    few, many = (
        Price.of(recorded([{"type": "Delay", "name": "seen", "taps": taps}], (10,), 10 * len(taps)).spec).nodes[1]
        for taps in ([9], [*range(10)])
    )
    assert few.carried == many.carried == 4 * 9 * 10
    assert (many.per_step, many.running) == (10 * few.per_step, 10 * few.running)
