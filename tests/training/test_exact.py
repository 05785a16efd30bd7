"""The dyadic grid: sums that are exact in any order, and weights that hardly move."""

from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.training.fit.exact import round_to_grid
from tests.networks import network_of, task

LIF: dict[str, Any] = {"type": "LIF", "decay": 0.77}
CUBA: dict[str, Any] = {"type": "CubaLIF", "decay": 0.77, "syn_decay": 0.61}


def digits_network(
    seed: int, scale: float = 1 / 16, kernel: int = 2, recurrent: bool = False, neuron: dict[str, Any] = LIF
) -> Network:
    spec = Spec.read(
        {
            "input": {"shape": [1, 8, 8], "low": 0, "high": 16, "scale": scale},
            "time_steps": 5,
            "labels": ["a", "b", "c"],
            "nodes": [
                {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 6, "kernel_size": 3},
                neuron | {"name": "lif1"},
                {"type": "AvgPool2d", "name": "pool", "kernel_size": kernel},
                {"type": "Flatten", "name": "flat"},
                {"type": "Linear", "name": "fc", "in_features": 6 * (6 // kernel) ** 2, "out_features": 3},
                neuron | {"name": "lif2", "recurrent": {"bias": True} if recurrent else None},
            ],
        }
    )
    rng = np.random.default_rng(seed)
    return Network(
        spec, {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in spec.tensor_shapes.items()}
    )


def test_a_sum_on_the_grid_is_the_same_in_any_order() -> None:
    network = round_to_grid(digits_network(0)).network
    weight = network.tensors["fc.weight"][0]
    spikes = np.random.default_rng(0).integers(0, 5, weight.shape).astype(np.float32) / 4  # what a 2×2 average leaves
    terms = weight * spikes
    orders = [np.random.default_rng(seed).permutation(len(terms)) for seed in range(200)]
    sums = {float(np.add.accumulate(terms[order], dtype=np.float32)[-1]) for order in orders}
    assert len(sums) == 1
    assert sums == {float(terms.sum(dtype=np.float64))}


def test_weights_move_by_less_than_training_can_tell() -> None:
    network = digits_network(1)
    rounded = round_to_grid(network).network
    for name, tensor in network.tensors.items():
        assert np.abs(rounded.tensors[name] - tensor).max() < 2.0**-14


def test_what_is_on_its_grid_stays_as_it_is() -> None:
    once = round_to_grid(digits_network(2)).network
    twice = round_to_grid(once).network
    for name, tensor in once.tensors.items():
        np.testing.assert_array_equal(twice.tensors[name], tensor)


@pytest.mark.parametrize(("scale", "kernel"), [(1 / 15, 2), (1 / 16, 3)])
def test_a_normalisation_or_window_that_is_no_power_of_two_is_said_to_end_it(scale: float, kernel: int) -> None:
    assert not round_to_grid(digits_network(0, scale, kernel)).exact


FC: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 1}
SERIES: dict[str, Any] = {"low": -4, "high": 4, "coding": "current"}
# Nodes before the neuron, fields around them, and whether its sums are exact in any order once weights are rounded.
ROUNDED: list[tuple[list[dict[str, Any]], dict[str, Any], bool]] = [
    *(
        ([{"name": "before", "type": kind} | fields, FC], {}, exact)
        for kind, fields, exact in (
            ("Delay", {"delay": 2}, True),
            ("Scale", {"scale": 0.75}, True),
            ("Scale", {"scale": 0.3}, False),  # of 24 bits, which leave the weights none
            ("Threshold", {}, True),
            ("Threshold", {"fire": "multiple"}, False),  # nobody knows how many spikes at most
        )
    ),
    *(
        ([FC], SERIES | declared, exact)
        for declared, exact in (
            ({"scale": [0.5, 0.75]}, True),
            ({"scale": [0.5, 0.1]}, False),  # of 24 bits
            ({"scale": 0.5, "offset": [0.25, 0.1]}, False),
            ({"scale": [0.1, 0.3], "offset": 0.7, "resolution": 2**-6}, True),
            ({"scale": 0, "offset": [0, 0.5]}, True),
        )
    ),
]


@pytest.mark.parametrize(("nodes", "around", "exact"), ROUNDED)
def test_sums_are_said_to_be_exact_where_nothing_before_them_takes_their_bits(
    nodes: list[dict[str, Any]], around: dict[str, Any], exact: bool
) -> None:
    network = network_of(
        [*nodes, CUBA | {"name": "out"}],
        {"fc.weight": [[0.1, -0.7]], "fc.bias": [0.3]},
        **task(2, 2, 1, **{"coding": "spikes"} | around),
    )
    assert round_to_grid(network).exact is exact


def test_two_connections_that_meet_are_said_to_end_it_where_their_sum_leaves_24_bits() -> None:
    # Each is exact by itself, on a grid of its own: multiples of 2**-24 up to 0.75, and of 2**-14 up to 768.
    linear = FC | {"in_features": 1, "bias": False, "inputs": ["input"]}
    out = {"type": "IF", "name": "out", "inputs": ["small", "large"]}
    nodes = [linear | {"name": "small"}, linear | {"name": "large"}, out]
    network = network_of(nodes, {"small.weight": [[0.75]], "large.weight": [[768]]}, **task(1, 1, 1, "spikes"))
    assert not round_to_grid(network).exact


def test_a_mean_of_four_spikes_comes_in_quarters_so_that_the_weights_after_it_lose_two_bits() -> None:
    # Sums of less than 1 lie on multiples of 2**-24. Quarters leave a weight multiples of 2**-22: the 2**-24 is lost.
    network = network_of(
        [
            {"type": "AvgPool2d", "name": "pool", "kernel_size": 2},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            LIF | {"name": "out"},
        ],
        {"fc.weight": [[0.75 + 2.0**-24]]},
        **task((1, 2, 2), 1, 1, "spikes"),
    )
    rounded = round_to_grid(network)
    assert network.tensors["fc.weight"].item() == 0.75 + 2.0**-24
    assert rounded.network.tensors["fc.weight"].item() == 0.75
    assert rounded.exact


@pytest.mark.parametrize("coding", list(Coding))
def test_every_coding_has_its_grid(coding: Coding) -> None:
    network = digits_network(0)
    assert round_to_grid(Network(network.spec.model_copy(update={"coding": coding}), network.tensors)).exact


def test_weights_that_are_all_zero_are_exact() -> None:
    network = digits_network(0)
    silent = Network(network.spec, {name: np.zeros_like(tensor) for name, tensor in network.tensors.items()})
    assert round_to_grid(silent).exact


def test_a_sum_that_rounding_raises_leaves_room_for_the_recurrent_sum_beside_it() -> None:
    # With 1 that comes back, the weights' sum of 3 - g / 2 is just below 4, so that g = 4 / 2**24 is the grid. There
    # the first three are half a grid below a multiple and round up, to 3 + g in all: a grid of 2 g is needed.
    g = 2.0**-22
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 4, "out_features": 1, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5, "recurrent": {"bias": False}},
        ],
        {"fc.weight": [[0.75 - g / 2, 0.75 - g / 2, 0.75 - g / 2, 0.75 + g]], "out.recurrent.weight": [[1]]},
        **task(4, 2, 1, "spikes"),
    )
    rounded = round_to_grid(network)
    assert rounded.exact
    assert rounded.network.tensors["fc.weight"].tolist() == [[0.75, 0.75, 0.75, 0.75]]
