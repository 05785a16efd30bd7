"""The builder that every importer fills: names, inputs, parameters rounded once, and one sentence for what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import IF, LI, LIF, Delay, Flatten, Scale
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Builder, Draft, Options
from tests.nir_graphs import spikes_of


def threshold(value: Any, shape: tuple[int, ...] = (2,)) -> Network:
    """Return a network of one IF with that threshold."""
    builder = Builder(shape)
    builder.add(Draft("if", IF, {"threshold": value}))
    if len(shape) > 1:
        builder.add(Draft("flat", Flatten))
        builder.add(Draft("last", IF))
    return builder.network(Options(), dt=None)


def test_a_node_may_take_the_sum_of_several_that_are_named() -> None:
    # A residual sum: the input, and twice the input. Both 1 give 3, which reaches the threshold; 0.5 gives 1.5.
    builder = Builder((1,))
    twice = builder.add(connections.linear("twice", np.array([[2.0]]), None))
    builder.add(Draft("out", IF, {"threshold": 3.0}), ["input", twice])
    network = builder.network(Options(time_steps=1), dt=None)
    assert [node.inputs for node in network.spec.nodes] == [None, ("input", "twice")]
    assert spikes_of(network, [[1.0]])["out"].tolist() == [[1.0]]
    assert spikes_of(network, [[0.5]])["out"].tolist() == [[0.0]]


def test_shapes_that_cannot_be_summed_are_one_sentence() -> None:
    builder = Builder((2,))
    wide = builder.add(connections.linear("wide", np.ones((3, 2)), None))
    with pytest.raises(InvalidGraph, match=r"^node 'out': sums 'input' and 'wide', whose shapes are 2 and 3$"):
        builder.add(Draft("out", IF), ["input", wide])


def test_names_are_made_such_as_a_spec_can_have_and_that_are_free() -> None:
    builder = Builder((1,))
    names = [builder.add(Draft(name, IF)) for name in ("a.b", "a_b", "0", "é", "input", "x" * 80)]
    assert names == ["a_b", "a_b_2", "node_0", "node__", "input_2", "x" * 60]


@pytest.mark.parametrize("value", [0.1, np.float64(0.1), np.array(0.1), np.full(2, 0.1), np.full((1, 2), 0.1)])
def test_a_parameter_that_is_the_same_everywhere_is_a_number_rounded_to_float32(value: Any) -> None:
    network = threshold(value)
    assert network.spec.nodes[0].threshold == float(np.float32(0.1))  # type: ignore[union-attr]
    assert network.tensors == {}


def test_a_parameter_that_differs_is_an_array_of_the_layer_as_pytorch_spreads_it() -> None:
    network = threshold(np.array([[[1.0]], [[2.0]]]), (2, 1, 2))
    assert network.spec.nodes[0].threshold == "per_neuron"  # type: ignore[union-attr]
    assert network.tensors["if.threshold"].tolist() == [[[1, 1]], [[2, 2]]]
    assert network.tensors["if.threshold"].dtype == np.float32


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.array([1.0, 2.0, 3.0]), "node 'if': threshold has shape 3, which does not spread over 2 neurons"),
        (-1.0, "node 'if': threshold"),
        (np.array(1e39), "node 'if': threshold"),  # beyond float32
        (np.array([]), "node 'if': threshold has shape 0, which does not spread over 2 neurons"),
    ],
)
def test_a_parameter_that_cannot_be_served_names_the_node(value: Any, sentence: str) -> None:
    with pytest.raises(InvalidGraph) as refused:
        threshold(value)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_delays_are_whole_numbers_of_steps() -> None:
    builder = Builder((2,))
    builder.add(Draft("same", Delay, {"delay": np.full(2, 3.0)}))
    builder.add(Draft("apart", Delay, {"delay": np.array([1.0, 2.0])}))
    assert [node.delay for node in builder.nodes if isinstance(node, Delay)] == [3, "per_neuron"]


@pytest.mark.parametrize(
    ("kernel", "kinds"), [((2, 2), ["SumPool2d"]), ((4, 1), ["SumPool2d"]), ((3, 3), ["AvgPool2d", "Scale"])]
)
def test_an_average_is_a_sum_only_where_that_does_not_round(kernel: tuple[int, int], kinds: list[str]) -> None:
    assert [draft.kind.__name__ for draft in connections.sum_by_averaging("pool", kernel, kernel)] == kinds


@pytest.mark.parametrize(
    ("weight", "bias", "sentence"),
    [
        (np.ones(2), None, r"node 'fc': weight has shape 2, expected \(out, in\)"),
        (np.ones((3, 2)), np.ones(2), "node 'fc': bias has shape 2, expected 3 values"),
    ],
)
def test_a_weight_or_bias_of_another_shape_is_one_sentence(weight: Any, bias: Any, sentence: str) -> None:
    with pytest.raises(InvalidGraph, match=sentence):
        connections.linear("fc", weight, bias)


def test_a_layer_that_is_too_large_or_does_not_fit_or_is_missing_is_one_sentence() -> None:
    with pytest.raises(InvalidGraph, match="the input has shape 100000000, expected at most 67,108,864 values"):
        Builder((10**8,))
    builder = Builder((2**10,))
    with pytest.raises(InvalidSpec, match="node 'fc': in_features is 3, but its input has shape 1024"):
        builder.add(connections.linear("fc", np.ones((2, 3)), None))
    with pytest.raises(InvalidGraph, match="the network has no layer"):
        builder.network(Options(), dt=None)


def test_after_a_node_of_unknown_shape_only_a_nodes_own_faults_are_found() -> None:
    builder = Builder((2,))
    builder.shapes[builder.last] = None
    builder.add(connections.linear("fc", np.ones((2, 3)), None))  # it does not fit the input, which is not known now
    with pytest.raises(InvalidGraph, match=r"^node 'lif': threshold"):
        builder.add(Draft("lif", LIF, {"decay": 0.5, "threshold": -1.0}))


def test_the_options_win_over_the_source_and_the_source_over_the_usual() -> None:
    def readout(options: Options, said: Readout | None) -> Readout:
        builder = Builder((3,))
        builder.add(Draft("li", LI, {"decay": 0.5}))
        network = builder.network(options, dt=1e-3, readout=said)
        assert (network.spec.dt, network.spec.labels) == (1e-3, ("0", "1", "2"))
        return network.spec.readout

    assert readout(Options(), None) is Readout.MAX_MEMBRANE
    assert readout(Options(), Readout.MEAN_MEMBRANE) is Readout.MEAN_MEMBRANE
    assert readout(Options(readout=Readout.LAST_MEMBRANE), Readout.MEAN_MEMBRANE) is Readout.LAST_MEMBRANE


@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize(
    ("last", "usual"),
    [
        (Draft("last", LI, {"decay": 0.5}), Readout.MAX_MEMBRANE),
        (Draft("last", LIF, {"decay": 0.5}), Readout.SPIKE_COUNT),
        (Draft("last", Scale, {"scale": 2.0}), Readout.MEAN),
    ],
)
def test_what_no_source_says_is_read_as_fits_the_last_node(last: Draft, usual: Readout, flattened: bool) -> None:
    builder = Builder((3, 1, 1))
    builder.add(last)
    if flattened:
        builder.add(Draft("flat", Flatten))
    spec = builder.network(Options(), dt=None).spec
    assert (spec.readout, spec.labels) == (usual, ("0", "1", "2"))
