"""A graph of any make in order: cycles, graphs in graphs, sums, names, and what there is no order for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from spikeserve.models.errors import InvalidSpec
from spikeserve.training.errors import InvalidGraph
from tests.nir_graphs import converted, ends, graph, integrate_and_fire, lif, spikes_of, stack

EYE = np.eye(2)


def loop(w_rec: Any) -> Any:
    """Two LIF neurons that feed themselves through `w_rec`; the names have dots, as snnTorch writes them."""
    nodes = ends((2,), (2,)) | {"fc": nir.Linear(EYE), "lif1.lif": lif(2, tau=0.25), "lif1.w_rec": w_rec}
    edges = [
        ("lif1.w_rec", "lif1.lif"), ("input", "fc"), ("fc", "lif1.lif"), ("lif1.lif", "lif1.w_rec"),
        ("lif1.lif", "output"),
    ]  # fmt: skip
    return graph(nodes, edges)


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
    nodes = ends((2,), (2,)) | {"lif": lif(2)}
    network = converted(tmp_path, graph(nodes, [("input", "lif"), ("lif", "lif"), ("lif", "output")])).network
    np.testing.assert_array_equal(network.tensors["lif.recurrent.weight"], EYE)


@pytest.mark.parametrize("deep", [1, 3])
def test_graphs_in_graphs_become_one(tmp_path: Path, deep: int) -> None:
    inner = graph(
        ends((2,), (2,)) | {"lif": lif(2, tau=0.25), "w_rec": nir.Linear(EYE)},
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )
    for _ in range(deep - 1):
        inner = stack((2,), (2,), wrapped=inner)
    network = converted(tmp_path, stack((2,), (2,), fc=nir.Linear(EYE), rnn=inner)).network
    name = "_".join(["rnn", *["wrapped"] * (deep - 1), "lif"])
    assert [node.name for node in network.spec.nodes] == ["fc", name]
    assert f"{name}.recurrent.weight" in network.tensors


def test_edges_that_meet_are_summed_and_branches_are_kept(tmp_path: Path) -> None:
    nodes = ends((2,), (2,)) | {
        "last": lif(2, tau=0.25), "b": nir.Linear(EYE), "a": nir.Linear(2 * EYE), "first": lif(2, tau=0.25),
    }  # fmt: skip
    edges = [("a", "last"), ("first", "last"), ("first", "a"), ("b", "first"), ("input", "b"), ("last", "output")]
    network = converted(tmp_path, graph(nodes, edges)).network
    assert [node.name for node in network.spec.nodes] == ["b", "first", "a", "last"]
    assert network.spec.sources["last"] == ("a", "first")


def test_what_does_not_reach_the_output_is_left_out_and_told_and_an_edge_counts_once(tmp_path: Path) -> None:
    nodes = ends((2,), (2,)) | {"lif": lif(2), "probe": lif(2)}
    edges = [("input", "lif"), ("lif", "output"), ("lif", "output"), ("lif", "probe")]
    conversion = converted(tmp_path, graph(nodes, edges))
    assert [node.name for node in conversion.network.spec.nodes] == ["lif"]
    assert conversion.warnings == ("node 'probe': no path leads from it to the output; it is left out",)


two = ends((2,), (2,)) | {"a": lif(2), "b": lif(2)}
REFUSED = {
    "a cycle of two layers": (
        graph(
            two | {"up": nir.Linear(EYE), "down": nir.Linear(EYE)},
            [("input", "a"), ("a", "up"), ("up", "b"), ("b", "down"), ("down", "a"), ("b", "output")],
        ),
        "the cycle 'a' → 'up' → 'b' → 'down' → 'a' cannot be served",
    ),
    "two loops": (
        graph(
            two | {"w1": nir.Linear(EYE), "w2": nir.Linear(EYE)},
            [("input", "a"), ("a", "w1"), ("w1", "a"), ("a", "w2"), ("w2", "a"), ("a", "output")],
        ),
        "node 'a': has two recurrent connections",
    ),
    "a loop through a connection that goes elsewhere too": (
        graph(
            two | {"w": nir.Linear(EYE)},
            [("input", "a"), ("a", "w"), ("w", "a"), ("a", "b"), ("w", "b"), ("b", "output")],
        ),
        "the cycle 'a' → 'w' → 'a' cannot be served",
    ),
    "a loop through a connection that others feed too": (
        graph(two | {"w": nir.Linear(EYE)}, [("input", "a"), ("input", "w"), ("a", "w"), ("w", "a"), ("a", "output")]),
        "the cycle 'a' → 'w' → 'a' cannot be served",
    ),
    "a connection that feeds itself": (
        graph(two | {"fc": nir.Linear(EYE)}, [("input", "fc"), ("fc", "fc"), ("fc", "a"), ("a", "output")]),
        "node 'fc': Linear feeds itself",
    ),
    "an edge of nobody": (graph(two, [("input", "a"), ("a", "ghost")]), "an edge names the node 'ghost'"),
    "no path": (graph(two, [("input", "a"), ("b", "output")]), "node 'b': nothing leads to it from the input"),
    "a sum at the output": (
        graph(two, [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]),
        "the output sums 'a', 'b'",
    ),
    "two inputs": (
        graph(two | {"also": two["input"]}, [("input", "a"), ("also", "a"), ("a", "output")]),
        "the graph has 2 nodes of type Input, 'also', 'input', expected one",
    ),
    "no ends": (
        graph({"fc": nir.Linear(EYE), "lif": lif(2)}, [("fc", "lif")]),
        "the graph has 0 nodes of type Input, expected one",
    ),
    "no node": (graph(ends((2,), (2,)), [("input", "output")]), "the input is the output"),
    "sizes that do not meet": (
        stack((2,), (3,), fc=nir.Linear(np.ones((3, 3))), lif=lif(3)),
        "node 'fc': in_features is 3, but its input has shape 2",
    ),
    "a loop of another size": (loop(nir.Linear(np.ones((3, 3)))), "node 'lif1.w_rec': weight has shape 3×3"),
    "a sum of two shapes": (
        graph(
            two | {"fc": nir.Linear(np.ones((3, 2))), "c": integrate_and_fire(3)},
            [("input", "fc"), ("fc", "c"), ("input", "c"), ("c", "output")],
        ),
        "node 'c': sums 'fc' and 'input', whose shapes are 3 and 2",
    ),
}


@pytest.mark.parametrize(("made", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_graph_that_cannot_be_served_is_one_sentence(tmp_path: Path, made: Any, sentence: str) -> None:
    with pytest.raises((InvalidGraph, InvalidSpec)) as refused:
        converted(tmp_path, made)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
