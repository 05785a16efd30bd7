"""A sum is exact and rounds once: on numbers that float32 cannot add up, every target reads the same by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.sums import Summation, sums_of
from tests.contracts.targets import JOINED
from tests.networks import network_of, task

every_target = pytest.mark.parametrize("target", JOINED)

LINEAR: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 1, "bias": False}
FLAT: dict[str, Any] = {"type": "Flatten", "name": "flat"}
UP: dict[str, Any] = {"name": "fc", "in_channels": 3, "out_channels": 1, "bias": False}
SUMS: dict[str, tuple[list[dict[str, Any]], Any, dict[str, Any], Sequence[float], str, Summation | None, float]] = {
    # Nodes before a membrane that keeps nothing, a Linear's weights, the input, one step of it, whose sum it is, how it
    # is added up (if None, in any way but float32), and what is read.
    #
    # 1 + 2**-24 lies halfway between two floats and rounds to 1; the third weight, 2**-28, decides for the upper one.
    # A float32 sum loses either small weight beside the 1. Weights of up to 2 leave a grid of 2**-29.
    "rounds once": ([LINEAR], [1, 2**-24, 2**-28], {"shape": [3]}, [1, 1, 1], "fc", Summation.INTEGER, 1 + 2**-23),
    # Of the grid 2**-126, the weights are 64, three quarters (nearest: 1) and far less than a half (nearest: 0).
    "of tiny weights": (
        [LINEAR],
        [2.0**-120, 0.75 * 2.0**-126, 2.0**-149],
        {"shape": [3]},
        [1, 1, 1],
        "fc",
        Summation.INTEGER,
        65 * 2.0**-126,
    ),
    # 2**24 + 1 - 2**24, whose partial sum float32 cannot hold.
    "of weights that cancel": ([LINEAR], [2**24, 1, -(2**24)], {"shape": [3]}, [1, 1, 1], "fc", None, 1),
    # 2**13 + 2**-12 - 2**13, of which float32 would lose the middle: the first part alone is on a grid of 1.
    "of parts on other grids": (
        [
            {"type": "Scale", "name": "whole", "scale": 1.0, "inputs": ["input"]},
            {"type": "Scale", "name": "small", "scale": 2.0**-12, "inputs": ["input"]},
            {"type": "Concatenate", "name": "both", "inputs": ["whole", "small", "whole"], "axis": 0},
            LINEAR,
        ],
        [2**13, 1, -(2**13)],
        {"shape": [1]},
        [1],
        "fc",
        None,
        2**-12,
    ),
    # Each input is 1 + 2**-12: beside 2**13 + 2 of the first, float32 would lose the last bit of the second.
    "behind an offset": (
        [{"type": "Scale", "name": "shifted", "scale": 1.0, "offset": 2.0**-12}, LINEAR],
        [2**13, 1, -(2**13)],
        {"shape": [3]},
        [1, 1, 1],
        "fc",
        None,
        1 + 2**-12,
    ),
    # 2**24 + 1 + 1, of which float32 would lose both ones, since it holds no odd number beyond 2**24.
    "of a pool": (
        [{"type": "SumPool2d", "name": "pool", "kernel_size": [1, 4]}, FLAT],
        None,
        {"shape": [1, 1, 4], "high": 2**24, "resolution": 1.0},
        [2**24, 1, 1, 0],
        "pool",
        Summation.FLOAT64,
        2**24 + 2,
    ),
    # 2**12 * 2**12 + 1 + 1: each product fits 24 bits, and their sum does not.
    "of a product of matrices": (
        [
            {"type": "Permute", "name": "turned", "order": [1, 0]},
            {"type": "MatMul", "name": "product", "inputs": ["input", "turned"]},
            FLAT,
        ],
        None,
        {"shape": [1, 4], "high": 2**12, "resolution": 1.0},
        [2**12, 1, 1, 0],
        "product",
        Summation.FLOAT64,
        2**24 + 2,
    ),
    # One spike of four, and one of the three that are left: 3 times float32's third is 1 + 2**-25, which is no float32.
    "of averages of windows of several sizes": (
        [{"type": "AvgPool1d", "name": "pool", "kernel_size": 4, "overhang": True}, FLAT, LINEAR | {"in_features": 2}],
        [-4, 3],
        {"shape": [1, 7]},
        [1, 0, 0, 0, 0, 1, 0],
        "fc",
        Summation.FLOAT64,
        2**-25,
    ),
    # Each tap adds x, x * 2**-24 and x * 2**-28 from three channels, as the first row does.
    **{
        f"of a transposed convolution along {axes}": (
            [UP | {"type": f"ConvTranspose{axes}d", "kernel_size": [1] * axes if axes == 2 else 1}, FLAT],
            np.reshape([1, 2**-24, 2**-28], (3, *[1] * axes)),
            {"shape": [3, *[1] * axes], "low": 0, "high": 1},
            *([1, 1, 1], "fc", Summation.FLOAT64, 1 + 2**-23),
        )
        for axes in (1, 2)
    },
    # S is just under 1, so that the grid of 2**-30 is as fine as it gets, and every weight of nearly 2**-14 rounds up
    # to 2**16 of it. 4096 inputs of 4 reach 2**30 or -2**30. Half that grid would make it 2**31, which is no int32.
    **{
        f"the largest, {sign}": (
            [{"type": "SumPool2d", "name": "pool", "kernel_size": [1, 4]}, FLAT, LINEAR | {"in_features": 4096}],
            sign * np.full(4096, 2.0**-14 * (1 - 2.0**-24)),
            {"shape": [1, 1, 4 * 4096]},
            *([1] * 4 * 4096, "fc", Summation.INTEGER, sign),
        )
        for sign in (1, -1)
    },
    # Beside 2**19, float32 has a last bit of 2**-4: it holds sums of sixteenths. Of 32nds it would lose all eight.
    **{
        f"of values of {value} beside a large one": (
            [LINEAR | {"in_features": 9}],
            [2.0**19, *[1] * 8],
            {"shape": [9], "low": 0, "high": 1},
            *([1, *[value] * 8], "fc", Summation.FLOAT64, 2**19 + 8 * value),
        )
        for value in (1 / 16, 1 / 32, 1 / 4)
    },
    "of no weight but 0": ([LINEAR], [0, 0, 0], {"shape": [3]}, [1, 1, 1], "fc", Summation.FLOAT32, 0),
}


@every_target
@pytest.mark.parametrize("kind", SUMS)
def test_a_sum_that_float32_cannot_hold_is_exact_and_rounds_once(target: str, kind: str) -> None:
    nodes, weight, declared, values, summing, by, expected = SUMS[kind]
    network = summed(nodes, weight, declared)
    found = sums_of(network)[summing].by
    assert found is by if by else found is not Summation.FLOAT32
    inputs = np.array(values, np.float32).reshape(1, 1, *declared["shape"])
    for run in JOINED[target].ways(network):
        assert run(DenseInputs(inputs, 1)).readout.item() == expected


def summed(nodes: list[dict[str, Any]], weight: Any, declared: dict[str, Any]) -> Network:
    """Return nodes before a membrane that keeps nothing; `weight` is that of the one called "fc"."""
    return network_of(
        [*nodes, {"type": "LI", "name": "out", "decay": 0.0}],
        {} if weight is None else {"fc.weight": [weight]},
        input=declared,
        coding="current" if "high" in declared else "spikes",
        time_steps=1,
        labels=["only"],
        readout="last_membrane",
    )


def test_a_weight_moves_by_half_a_grid_at_most_and_a_large_one_not_at_all() -> None:
    weight = np.random.default_rng(1).normal(0, 1, 1000).astype(np.float32)
    network = summed([LINEAR | {"in_features": 1000}], weight, {"shape": [1000]})
    grid, largest = sums_of(network)["fc"].grid, np.abs(weight.astype(np.float64)).sum()
    assert largest * 2**-30 <= grid <= largest * 2**-29
    assert 0 < np.abs(sums_of(network).weights["fc.weight"].astype(np.float64) - weight).max() <= grid / 2
    # S is 2.1: all of them are above 2**-5 of it. And those that training has rounded stay.
    for few in ([1.0, 0.7, 0.3], [0.5, 0.25, -0.125]):
        network = summed([LINEAR], few, {"shape": [3]})
        np.testing.assert_array_equal(sums_of(network).weights["fc.weight"], network.tensors["fc.weight"])


@every_target
@pytest.mark.parametrize(
    ("feeding", "by"),
    [([1 + 2**-23, 0, 0], Summation.FLOAT32), ([1, 2**-24, 2**-28], Summation.INTEGER)],
    ids=["currents that fit float32", "currents that do not"],
)
def test_a_recurrent_sum_rounds_apart_from_its_current(target: str, feeding: list[float], by: Summation) -> None:
    # All fire at both steps. At the second, 4 - 4 comes back to the last neuron, beside a current of 1 + 2**-23: it is
    # that current which is left. Added weight by weight, 5 + 2**-23 rounds to 5, and 1 would be left.
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 3, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.0, "threshold": 0.5, "reset": "none", "recurrent": {}},
        ],
        {"fc.weight": [[1, 0, 0], [1, 0, 0], feeding], "out.recurrent.weight": [[0, 0, 0], [0, 0, 0], [4, -4, 0]]},
        **task(3, 2, "abc", "spikes", readout="last_membrane"),
    )
    rules = sums_of(network)
    assert rules["fc"].by is by
    assert rules["out.recurrent"].by is Summation.FLOAT32
    for run in JOINED[target].ways(network):
        assert run(DenseInputs(np.ones((2, 1, 3), np.float32), 2)).readout.tolist() == [[1, 1, 1 + 2**-23]]
