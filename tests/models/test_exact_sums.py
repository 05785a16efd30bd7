"""A sum is exact and rounds once: on any weights, every engine gives the same spikes and membranes to the last bit."""

from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec, sums
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.sums import Limbs, Multiples, Sum, Summation, lowest_bit, sums_of
from tests.networks import network_of, task
from tests.same import EVERYTHING, assert_same_runs

every_engine = pytest.mark.parametrize("engine", list(ENGINES))
OTHERS = ("event", "onnx", "torch")


def lif(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "LIF", "name": name, "decay": 0.77, "threshold": 0.9} | fields


WIDE = 3000  # inputs of a layer: enough for a float32 sum's last bits to hang on its order
LABELS = [str(label) for label in range(10)]


def wide_network(recurrent: Any = None, inputs: int = WIDE) -> Network:
    rng = np.random.default_rng(3)
    nodes = [
        {"type": "Linear", "name": "fc", "in_features": inputs, "out_features": 200},
        lif("hidden", recurrent=recurrent),
        {"type": "Linear", "name": "last", "in_features": 200, "out_features": 10},
        {"type": "LI", "name": "out", "decay": 0.9},
    ]
    spec: dict[str, Any] = {"input": {"shape": [inputs]}, "coding": "spikes", "time_steps": 12, "labels": LABELS}
    spec["readout"] = "max_membrane"
    shapes = Spec.read({"nodes": nodes} | spec).tensor_shapes
    return network_of(nodes, {name: rng.normal(0, 0.07, shape) for name, shape in shapes.items()}, **spec)


def raster(density: float, batch: int, network: Network, seed: int = 0) -> DenseInputs:
    steps = network.spec.time_steps
    random = np.random.default_rng(seed).random((steps, batch, *network.spec.input.shape))
    return DenseInputs((random < density).astype(np.float32), steps)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("density", [0.02, 0.3, 0.7])
@pytest.mark.parametrize("recurrent", [None, {"bias": True}, {"bias": True, "bias_at_start": False, "joins": "charge"}])
def test_a_wide_layer_is_the_same_at_any_density_and_batch(engine: str, density: float, recurrent: Any) -> None:
    network = wide_network(recurrent)
    for batch in (1, 7):
        inputs = raster(density, batch, network)
        found = assert_same_runs(inputs, ReferenceEngine(network), create(engine, network))
        assert found.rasters["hidden"].any()


def test_a_float32_sum_of_the_same_weights_does_hang_on_its_order() -> None:
    # The guard of the tests above: in two orders, many of the 200 sums of 3,000 weights differ in float32.
    weight = wide_network().tensors["fc.weight"]
    there, back = (np.add.accumulate(each, axis=1, dtype=np.float32)[:, -1] for each in (weight, weight[:, ::-1]))
    assert (there != back).mean() > 0.5


def one_sum(weight: Any, bias: Any = None, most: int = 1) -> tuple[Network, Sum]:
    """Return a layer of one output behind a sum pool of `most` inputs, and how its sum is computed."""
    weight = np.array(weight, np.float32)
    inputs = weight.shape[1]
    nodes: list[dict[str, Any]] = [
        {"type": "SumPool2d", "name": "pool", "kernel_size": [1, most]},
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": inputs, "out_features": 1, "bias": bias is not None},
        {"type": "LI", "name": "out", "decay": 0.0},
    ]
    network = network_of(
        nodes,
        {"fc.weight": weight} | ({} if bias is None else {"fc.bias": bias}),
        **task((1, 1, inputs * most), 1, 1, "spikes", readout="last_membrane"),
    )
    return network, sums_of(network)["fc"]


LINEAR: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 1, "bias": False}
FLAT: dict[str, Any] = {"type": "Flatten", "name": "flat"}
SUMS: dict[str, tuple[list[dict[str, Any]], Any, dict[str, Any], list[float], str, Summation | None, float]] = {
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
}


@every_engine
@pytest.mark.parametrize("kind", SUMS)
def test_a_sum_that_float32_cannot_hold_is_exact_and_rounds_once(engine: str, kind: str) -> None:
    nodes, weight, declared, values, summing, by, expected = SUMS[kind]
    network = network_of(
        [*nodes, {"type": "LI", "name": "out", "decay": 0.0}],
        {} if weight is None else {"fc.weight": [weight]},
        input=declared,
        coding="current" if "high" in declared else "spikes",
        time_steps=1,
        labels=["only"],
        readout="last_membrane",
    )
    found = sums_of(network)[summing].by
    assert found is by if by else found is not Summation.FLOAT32
    inputs = np.array(values, np.float32).reshape(1, 1, *declared["shape"])
    result, _ = create(engine, network).run(DenseInputs(inputs, 1))
    assert result.readout.item() == expected


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    "fields",
    [{}, {"padding": 2, "dilation": 3}, {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}],
    ids=str,
)
def test_a_transposed_convolution_rounds_once(engine: str, axes: int, fields: dict[str, int]) -> None:
    # As above: each tap of each output adds x, x * 2**-24 and x * 2**-28 from the three channels of its group.
    groups = fields.get("groups", 1)
    each = {"kernel_size": 2} | {name: value for name, value in fields.items() if name != "groups"}
    node: dict[str, Any] = {name: value if axes == 1 else [value] * axes for name, value in each.items()}
    node |= {"type": f"ConvTranspose{axes}d", "name": "up", "groups": groups, "bias": False}
    node |= {"in_channels": 3 * groups, "out_channels": groups}
    weight = np.broadcast_to(np.reshape([1, 2**-24, 2**-28], (1, 3, *[1] * axes)), (groups, 3, *[2] * axes))
    shape = [3 * groups, *[4] * axes]
    parts = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1} | fields
    size = 3 * parts["stride"] + parts["dilation"] + 1 - 2 * parts["padding"] + parts["output_padding"]
    network = network_of(
        [node, {"type": "Flatten", "name": "flat"}, {"type": "LI", "name": "out", "decay": 0.0}],
        {"up.weight": weight},
        **task(shape, 2, groups * size**axes, "current", low=0, high=1, readout="last_membrane"),
    )
    assert sums_of(network)["up"].by is Summation.FLOAT64
    inputs = np.zeros((2, 5, *shape), np.float32)
    inputs[1, 3] = 1  # the last step of one sample of five
    result, _ = create(engine, network).run(DenseInputs(inputs, 2), record=EVERYTHING)
    # How many taps reach a place along an axis.
    reached = np.zeros(3 * parts["stride"] + parts["dilation"] + 1 + parts["output_padding"])
    for value in range(4):
        reached[[value * parts["stride"], value * parts["stride"] + parts["dilation"]]] += 1
    line = reached[parts["padding"] :][:size]
    taps = line if axes == 1 else np.outer(line, line)
    wanted = np.zeros((5, groups * size**axes), np.float32)
    wanted[3] = np.tile(taps.reshape(-1), groups) * (1 + 2**-24 + 2**-28)
    np.testing.assert_array_equal(result.readout, wanted)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_fits_its_integer(engine: str, sign: int) -> None:
    # S is just under 1, so that the grid of 2**-30 is as fine as it gets, and every weight of nearly 2**-14 rounds up
    # to 2**16 of it. 4096 inputs of 4 reach 2**30 or -2**30. Half that grid would make it 2**31, which is no int32.
    network, rule = one_sum(sign * np.full((1, 4096), 2.0**-14 * (1 - 2.0**-24)), most=4)
    assert (rule.by, rule.grid) == (Summation.INTEGER, 2.0**-30)
    result, _ = create(engine, network).run(DenseInputs(np.ones((1, 1, 1, 1, 4 * 4096), np.float32), 1))
    assert result.readout.item() == sign * 1.0


def test_a_weight_moves_by_half_a_grid_at_most_and_a_large_one_not_at_all() -> None:
    weight = np.random.default_rng(1).normal(0, 1, (1, 1000)).astype(np.float32)
    network, rule = one_sum(weight)
    counted = sums_of(network).weights["fc.weight"]
    largest = np.abs(weight.astype(np.float64)).sum()
    assert largest * 2**-30 <= rule.grid <= largest * 2**-29
    assert 0 < np.abs(counted.astype(np.float64) - weight).max() <= rule.grid / 2
    large = one_sum([[1.0, 0.7, 0.3, 0.1234567]])[0]  # S is 2.1: all of them are above 2**-5 of it
    np.testing.assert_array_equal(sums_of(large).weights["fc.weight"], large.tensors["fc.weight"])


def test_weights_that_training_has_rounded_are_summed_in_float32_and_stay() -> None:
    network, rule = one_sum([[0.5, 0.25, -0.125]])
    assert (rule.by, rule.grid) == (Summation.FLOAT32, 0)
    assert sums_of(network).weights["fc.weight"] is network.tensors["fc.weight"]


@pytest.mark.parametrize(
    ("values", "lowest"), [([0.75, 1.0], 0.25), ([3.0, -6.0, 0.0], 1.0), ([2.0**-149, 1], 2.0**-149), ([0.0], np.inf)]
)
def test_the_lowest_bit_is_the_largest_power_of_two_that_divides_all(values: list[float], lowest: float) -> None:
    assert lowest_bit(np.array(values, np.float32)) == lowest


def test_both_parts_of_an_integer_sum_fit_float32_and_are_the_whole() -> None:
    rng = np.random.default_rng(0)
    weight: FloatArray = rng.normal(0, 1, (50, 2000)).astype(np.float32)
    grid = 2.0**-19  # 2,000 normal weights sum to some 1,700 at most: 2**30 of that grid and less
    rule = Sum(Summation.INTEGER, grid, Multiples(1.0, 4.0))
    limbs = Limbs.of(rule, {"w": weight})
    assert limbs is not None
    high, low = limbs.high["w"].astype(np.float64), limbs.low["w"].astype(np.float64)
    np.testing.assert_array_equal(high + low, rule.weights(weight))
    for part in (high, low):
        assert 4 * np.abs(part).sum(axis=1).max() <= 2**24 * lowest_bit(part.astype(np.float32))


def test_no_division_leaves_room_for_the_averages_of_many_weights() -> None:
    rule = Sum(Summation.INTEGER, 2.0**-20, Multiples(2.0**-10, 1.0))
    assert Limbs.of(rule, {"w": np.random.default_rng(0).normal(0, 1, (1, 1000)).astype(np.float32)}) is None


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_connection_without_any_weight_but_0_is_its_bias(bias: float) -> None:
    network, rule = one_sum(np.zeros((1, 3)), [bias])
    assert rule.by is Summation.FLOAT32
    inputs = DenseInputs(np.full((1, 1, 1, 1, 3), 0.3, np.float32), 1)
    assert [create(name, network).run(inputs)[0].readout.item() for name in ENGINES] == [bias] * len(ENGINES)


@every_engine
@pytest.mark.parametrize("kernel", [None, 1, 3])
def test_float32_adds_values_of_which_it_holds_every_sum_and_no_others(engine: str, kernel: int | None) -> None:
    # Beside 2**19, float32 has a last bit of 2**-4: it holds sums of sixteenths. Of 32nds it would lose all eight.
    outputs, weight = 70, np.ones((70, 9, kernel or 1), np.float32)
    weight[:, 0] = [2.0**19, 0, 0][: kernel or 1]
    node = {"type": "Linear", "in_features": 9, "out_features": outputs}
    if kernel:
        node = {"type": "Conv1d", "in_channels": 9, "out_channels": outputs, "kernel_size": kernel}
    network = network_of(
        [node | {"name": "fc"}, {"type": "Flatten", "name": "flat"}, {"type": "LI", "name": "out", "decay": 0.0}],
        {"fc.weight": weight if kernel else weight[..., 0], "fc.bias": np.full(outputs, 2.0**-4)},
        **task([9, kernel] if kernel else [9], 1, outputs, readout="last_membrane"),
    )
    assert sums_of(network)["fc"] == Sum(Summation.FLOAT64, 0.0, Multiples(0.0, 1.0), coarse=2.0**-4)
    inputs = np.empty((3, 9), np.float32)
    inputs[:, 0], inputs[:, 1:] = 1, np.reshape([1 / 16, 1 / 32, 1 / 4], (3, 1))
    steps = np.zeros((1, 3, 9, kernel or 1), np.float32)
    steps[0, ..., 0] = inputs
    result, _ = create(engine, network).run(DenseInputs(steps if kernel else steps[..., 0], 1))
    assert result.readout[:, [0, -1]].tolist() == [[2**19 + each + 2**-4] * 2 for each in (1 / 2, 1 / 4, 2)]


def test_what_is_unknown_is_summed_in_float64() -> None:
    assert sums.passed(wide_network(), object(), Multiples(1.0, 1.0)) == sums.ANY  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(
    ("feeding", "by"),
    [([1 + 2**-23, 0, 0], Summation.FLOAT32), ([1, 2**-24, 2**-28], Summation.INTEGER)],
    ids=["currents that fit float32", "currents that do not"],
)
def test_a_recurrent_sum_rounds_apart_from_its_current(engine: str, feeding: list[float], by: Summation) -> None:
    # All fire at both steps. At the second, 4 - 4 comes back to the last neuron, beside a current of 1 + 2**-23: it is
    # that current which is left. Added weight by weight, 5 + 2**-23 rounds to 5, and 1 would be left.
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 3, "bias": False},
            lif("out", decay=0.0, threshold=0.5, reset="none", recurrent={"bias": False}),
        ],
        {"fc.weight": [[1, 0, 0], [1, 0, 0], feeding], "out.recurrent.weight": [[0, 0, 0], [0, 0, 0], [4, -4, 0]]},
        **task(3, 2, LABELS[:3], "spikes", readout="last_membrane"),
    )
    rules = sums_of(network)
    assert rules["fc"].by is by
    assert rules["out.recurrent"].by is Summation.FLOAT32
    result, _ = create(engine, network).run(DenseInputs(np.ones((2, 1, 3), np.float32), 2))
    assert result.readout.tolist() == [[1, 1, 1 + 2**-23]]
