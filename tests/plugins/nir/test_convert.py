"""What each NIR node becomes: its fields, its tensors, its shape, and what is mended about its parameters.

A graph of any make in order: cycles, graphs in graphs, sums, names, and what there is no order for.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Coding, Readout
from spikeserve.plugins.nir.dialects import DialectName, GraphReset, Rules
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.options import Options
from tests.nir_graphs import (
    EULER,
    converted,
    ends,
    flatten,
    full,
    graph,
    integrate_and_fire,
    lif,
    membranes_of,
    padded,
    spikes_of,
    stack,
)

RNG = np.random.default_rng(0)


def li(*shape: int) -> Any:
    return nir.LI(tau=full(0.5, *shape), r=full(1, *shape), v_leak=full(0, *shape))


def test_a_convolutional_graph_keeps_its_shapes_strides_groups_and_biases(tmp_path: Path) -> None:
    weight = RNG.normal(size=(4, 1, 3, 3))
    made = stack(
        (2, 8, 8), (10,),
        conv=nir.Conv2d((8, 8), weight, (2, 1), (1, 1), (1, 1), 2, np.array([1.0, 0, 0, 0])),
        if1=integrate_and_fire(4, 4, 8, r=4.0),
        pool=nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        flat=flatten((4, 2, 4)),
        fc=nir.Affine(RNG.normal(size=(10, 32)), np.zeros(10)),
        if2=integrate_and_fire(10),
    )  # fmt: skip
    network = converted(tmp_path, made).network
    conv: Any = network.spec.nodes[0]
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.groups) == (
        2, 4, (3, 3), (2, 1), (1, 1), 2,
    )  # fmt: skip
    assert list(network.spec.output_shapes.values()) == [
        (2, 8, 8), (4, 4, 8), (4, 4, 8), (4, 2, 4), (32,), (10,), (10,),
    ]  # fmt: skip
    assert network.spec.coding is Coding.SPIKES
    assert network.spec.labels == tuple("0123456789")
    assert network.spec.dt == 0.25
    # Rounded to float32 once; a bias of zeros is none; a parameter that is the same everywhere is a number: dt * r = 1.
    np.testing.assert_array_equal(network.tensors["conv.weight"], weight.astype(np.float32))
    assert sorted(network.tensors) == ["conv.bias", "conv.weight", "fc.weight"]
    if1: Any = network.spec.nodes[1]
    assert (if1.type, if1.gain, if1.threshold) == ("IF", 1.0, 1.0)


@pytest.mark.parametrize(
    ("padding", "membranes"), [("same", [1.5, 3.0, 2.0]), ("valid", [1.5, 3.0]), (1, [0.5, 1.5, 3.0, 2.0])]
)
def test_a_padding_may_be_a_word_of_which_same_pads_an_even_kernel_behind(
    tmp_path: Path, padding: Any, membranes: list[float]
) -> None:
    # A kernel of 2 sees each value and the one after it. dt/tau is 1/2: the membrane is half of what arrives.
    size = len(membranes)
    conv = padded(nir.Conv1d(3, np.ones((1, 1, 2)), 1, 0, 1, 1, np.zeros(1)), padding)
    made = stack((1, 3), (size,), conv=conv, flat=flatten((1, size)), li=li(size))
    assert membranes_of(converted(tmp_path, made).network, [[[1, 2, 4]]])["li"].tolist() == [membranes]


def test_scale_delay_threshold_and_pools(tmp_path: Path) -> None:
    made = stack(
        (1, 2, 2), (1,),
        scale=nir.Scale(np.array([[[1.0, 2.0], [3.0, 4.0]]])),
        delay=nir.Delay(full(0.5, 1, 2, 2)),
        pool=nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        flat=flatten((1, 1, 1)),
        threshold=nir.Threshold(np.array([2.5])),
    )  # fmt: skip
    network = converted(tmp_path, made).network
    assert [node.type for node in network.spec.nodes] == ["Scale", "Delay", "AvgPool2d", "Flatten", "Threshold"]
    # The mean of 1, 2, 3, 4 is 2.5, two steps of 0.25 s later; a threshold is fired above, not at: 1.25 times fires.
    at, above = np.ones((1, 2, 2)), np.full((1, 2, 2), 1.25)
    assert spikes_of(network, [at, above, 0 * at, 0 * at])["threshold"].ravel().tolist() == [0, 0, 0, 1]


def test_an_integrator_at_the_end_is_read_by_its_greatest_membrane_unless_another_is_named(tmp_path: Path) -> None:
    made = stack((2,), (2,), i=nir.I(full(2, 2)))
    network = converted(tmp_path, made).network
    assert network.spec.readout is Readout.MAX_MEMBRANE
    # dt * r = 0.5
    assert membranes_of(network, [[1, 0], [1, 4]])["i"].tolist() == [[0.5, 0], [1, 2]]
    last = converted(tmp_path, made, options=Options(readout=Readout.LAST_MEMBRANE, time_steps=7, labels=("a", "b")))
    assert last.network.spec.readout is Readout.LAST_MEMBRANE
    assert (last.network.spec.time_steps, last.network.spec.labels) == (7, ("a", "b"))


CHANNELS = [[[1, 1], [1, 1]], [[2, 2], [2, 2]], [[3, 3], [3, 3]]]
ONES, COUNTED = np.ones((3, 2, 2)), np.arange(1, 13).reshape(3, 2, 2)


@pytest.mark.parametrize(
    ("shape", "expected", "warning"),
    [
        ((1,), ONES, None),
        ((1, 1, 1), ONES, None),
        ((3, 1, 1), CHANNELS, None),
        ((3,), CHANNELS, "node 'if1': r has shape 3 in a layer of 3×2×2; it is taken as one value per channel"),
        ((12,), COUNTED, "node 'if1': r has shape 12 in a layer of 3×2×2; its values are taken in order"),
        ((1, 3, 2, 2), COUNTED, None),
    ],
)  # fmt: skip
def test_parameters_fill_the_layer(tmp_path: Path, shape: tuple[int, ...], expected: Any, warning: str | None) -> None:
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    made = stack(
        (3, 2, 2), (12,), if1=nir.IF(r=values, v_threshold=np.ones(shape)), flat=flatten((3, 2, 2)),
        if2=integrate_and_fire(12),
    )  # fmt: skip
    conversion = converted(tmp_path, made)
    gain = conversion.network.parameter(conversion.network.spec.nodes[0], "gain")
    np.testing.assert_array_equal(np.broadcast_to(gain, (3, 2, 2)), 0.25 * np.array(expected))
    told = [sentence for sentence in conversion.warnings if "'if1': r has" in sentence]
    assert told == ([warning] if warning else [])


def test_a_parameter_of_as_many_channels_as_columns_is_read_as_pytorch_does_and_told(tmp_path: Path) -> None:
    node = nir.IF(r=np.array([1.0, 2.0]), v_threshold=np.ones(2))
    conversion = converted(tmp_path, stack((2, 2), (4,), if1=node, flat=flatten((2, 2)), if2=lif(4)))
    assert conversion.network.tensors["if1.gain"].tolist() == [[0.25, 0.5], [0.25, 0.5]]
    assert any("taken along the last axis" in sentence for sentence in conversion.warnings)


@pytest.mark.parametrize(
    ("start", "end", "mended"), [(0, -1, False), (0, 2, False), (1, -1, True), (1, 3, True), (-3, -1, False)]
)
def test_a_flatten_may_count_a_batchs_axis_or_not(tmp_path: Path, start: int, end: int, mended: bool) -> None:
    made = stack((2, 3, 4), (24,), flat=flatten((2, 3, 4), start, end), lif=lif(24))
    conversion = converted(tmp_path, made)
    assert conversion.network.spec.output_shapes["flat"] == (24,)
    assert bool(conversion.warnings) is mended


def test_a_flatten_that_is_missing_is_put_where_it_belongs_and_a_late_one_stays(tmp_path: Path) -> None:
    missing = converted(tmp_path, stack((2, 1, 2), (3,), fc=nir.Linear(np.ones((3, 4))), lif=lif(3)))
    assert [node.name for node in missing.network.spec.nodes] == ["fc_flatten", "fc", "lif"]
    assert missing.warnings == ("node 'fc': takes 2×1×2 as a list; a Flatten is put before it",)
    late = stack((2, 1, 2), (4,), lif=lif(2, 1, 2), flat=flatten((2, 1, 2)))
    assert [node.name for node in converted(tmp_path, late).network.spec.nodes] == ["lif", "flat"]
    none = converted(tmp_path, stack((2, 1, 2), (2, 1, 2), lif=lif(2, 1, 2, tau=np.arange(1, 5).reshape(2, 1, 2))))
    assert [node.name for node in none.network.spec.nodes] == ["lif"]
    np.testing.assert_array_equal(none.network.tensors["lif.rate"].ravel(), np.float32(0.25 / np.arange(1, 5)))


@pytest.mark.parametrize(("said", "warns"), [((3,), False), ((1, 3), True), ((1, 1, 3), True), ((5, 3), True)])
def test_an_input_may_have_axes_its_first_node_cannot_take(tmp_path: Path, said: tuple[int, ...], warns: bool) -> None:
    conversion = converted(tmp_path, stack(said, (2,), fc=nir.Linear(np.ones((2, 3))), lif=lif(2)))
    assert conversion.network.spec.input.shape == (3,)
    assert bool(conversion.warnings) is warns


@pytest.mark.parametrize(
    ("node", "rules", "sentence"),
    [
        (lif(1, tau=5.0), Rules(DialectName.NIR, 1e-4, GraphReset.ZERO), "which is 5e+04 steps of dt"),
        (lif(1, tau=1e-5), Rules(DialectName.NIR, 1e-4, GraphReset.ZERO), "less than dt = 0.0001"),
        (lif(1, tau=1e-2), Rules(DialectName.SINABS, 1e-4, GraphReset.SUBTRACT), "which looks like seconds"),
        (lif(1, leak=2.0), EULER, "v_leak is above v_threshold, so that it fires by itself"),
        (integrate_and_fire(1), EULER, "dialect 'nir' multiplies what arrives by dt = 0.25"),
        (nir.Delay(full(0.3, 1)), EULER, "a delay of 1.2 steps is rounded"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_read_and_told(tmp_path: Path, node: Any, rules: Rules, sentence: str) -> None:
    warnings = converted(tmp_path, stack((1,), (1,), node=node, last=nir.Threshold(full(1, 1))), rules).warnings
    assert len(warnings) == 1
    assert sentence in warnings[0]


EYE = np.eye(2)


def loop(w_rec: Any) -> Any:
    """Two LIF neurons that feed themselves through `w_rec`; the names have dots, as snnTorch writes them."""
    own = {"lif1.lif": lif(2, tau=0.25), "lif1.w_rec": w_rec}
    return wired("lif1.w_rec lif1.lif, input fc lif1.lif lif1.w_rec, lif1.lif output", **own)


NODES = {"a": lif(2), "b": lif(2), "also": ends((2,), (2,))["input"], "large": lif(2), **ends((2,), (2,))}
NODES |= dict.fromkeys(("up", "down", "w", "w1", "w2", "fc"), nir.Linear(EYE))


def wired(text: str, **nodes: Any) -> Any:
    """Return a graph of chains of names with commas between them; `nodes` are others than NODES."""
    edges = [edge for chain in text.split(", ") for edge in pairwise(chain.split())]
    known = NODES | nodes
    return graph({name: known[name] for edge in edges for name in edge if name in known}, edges)


@pytest.mark.parametrize("bias", [False, True])
def test_a_cycle_through_a_dense_connection_is_a_recurrent_layer(tmp_path: Path, bias: bool) -> None:
    weight = np.array([[0.0, 2.0], [0.0, 0.0]])
    w_rec = nir.Affine(weight, np.array([0.0, 0.5])) if bias else nir.Linear(weight)
    network = converted(tmp_path, loop(w_rec)).network
    assert [node.name for node in network.spec.nodes] == ["fc", "lif1_lif"]
    node: Any = network.spec.nodes[1]
    assert (node.recurrent.bias, node.recurrent.bias_at_start) == (bias, True)
    np.testing.assert_array_equal(network.tensors["lif1_lif.recurrent.weight"], weight)
    # dt/tau is 1: a neuron holds what arrives. Neuron 1 fires at step 0, and so neuron 0 at step 1.
    raster = spikes_of(network, [[0, 2], [0, 0], [0, 0]])["lif1_lif"]
    assert raster.tolist() == [[0, 1], [1, 0], [0, 0]]


def test_an_edge_from_neurons_to_themselves_is_a_recurrent_layer_of_ones(tmp_path: Path) -> None:
    network = converted(tmp_path, wired("input a a output")).network
    np.testing.assert_array_equal(network.tensors["a.recurrent.weight"], EYE)


@pytest.mark.parametrize("deep", [1, 3])
def test_graphs_in_graphs_become_one(tmp_path: Path, deep: int) -> None:
    inner = wired("input lif w lif output", lif=lif(2, tau=0.25))
    for _ in range(deep - 1):
        inner = stack((2,), (2,), wrapped=inner)
    network = converted(tmp_path, stack((2,), (2,), fc=nir.Linear(EYE), rnn=inner)).network
    name = "_".join(["rnn", *["wrapped"] * (deep - 1), "lif"])
    assert [node.name for node in network.spec.nodes] == ["fc", name]
    assert f"{name}.recurrent.weight" in network.tensors


def test_edges_that_meet_are_summed_and_branches_are_kept(tmp_path: Path) -> None:
    network = converted(tmp_path, wired("fc a, b fc, b a, w b, input w, a output")).network
    assert [node.name for node in network.spec.nodes] == ["w", "b", "fc", "a"]
    assert network.spec.sources["a"] == ("fc", "b")


LARGE = {"large": lif(10_000), **ends((10_000,), (10_000,))}  # which would have 10**8 weights
REFUSED = [
    (wired("input a up b down a, b output"), "the cycle 'a' → 'up' → 'b' → 'down' → 'a' cannot be served"),
    (wired("input a w1 a, a w2 a, a output"), "node 'a': has two recurrent connections"),
    (wired("input a w a, a b, w b, b output"), "the cycle 'a' → 'w' → 'a' cannot be served"),
    (wired("input fc fc a output"), "node 'fc': Linear feeds itself"),
    (wired("input a output, a ghost"), "an edge names the node 'ghost'"),
    (wired("input a, b output"), "node 'b': nothing leads to it from the input"),
    (wired("input a output, input b output"), "the output sums 'a', 'b'"),
    (wired("input a output, also a"), "the graph has 2 nodes of type Input, 'also', 'input', expected one"),
    (wired("input large large output", **LARGE), "'large': feeds itself through a weight that has shape 10000×10000"),
    (wired("fc a"), "the graph has 0 nodes of type Input,"),
    (wired("input output"), "the input is the output"),
    (wired("input fc c output, input c", fc=nir.Linear(np.ones((3, 2))), c=integrate_and_fire(3)),
        "node 'c': sums 'fc' and 'input', whose shapes are 3 and 2"),
    (loop(nir.Linear(np.ones((3, 3)))), "node 'lif1.w_rec': weight has shape 3×3"),
    (stack((2,), (2,), lif=lif(2, threshold=0.0)), "node 'lif': v_threshold is 0, expected more than 0"),
    (stack((2,), (2,), lif=lif(2, tau=0.0)), "node 'lif': tau is 0, expected more than 0"),
    (stack((2,), (2,), lif=lif(2, r=np.nan)), "node 'lif': r holds NaN or infinite values"),
    (stack((2,), (2,), lif=lif(3)), "has shape 3 in a layer of 2, which do not fit"),
    (stack((2,), (2,), fc=nir.Linear(full(1e39, 2, 2)), lif=lif(2)), "tensor 'fc.weight': holds NaN or infinite value"),
    (stack((2,), (2,), fc=nir.Linear(np.ones((1, 2, 2))), lif=lif(2)), "weight has shape 1×2×2, expected (out, in)"),
    (stack((2,), (2,), fc=nir.Affine(np.ones((2, 2)), np.ones(3)), lif=lif(2)), "node 'fc': bias has shape 3, "),
]  # fmt: skip


@pytest.mark.parametrize(("made", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_a_graph_that_cannot_be_served_is_one_sentence(tmp_path: Path, made: Any, sentence: str) -> None:
    with pytest.raises((InvalidGraph, InvalidSpec)) as refused:
        converted(tmp_path, made)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
