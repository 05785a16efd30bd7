"""Narrow weights are found by their values alone, and are exactly the weights that they stand for.

The event engine adds up narrow weights as bytes, and gives the bits of the reference.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import available
from spikeserve.models.engines.event.connections import NARROW
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.narrow import narrow_of
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.models.spec.sums import Summation, sums_of
from spikeserve.plugins.report.complexity import Complexity
from tests.bundles import publish
from tests.networks import network_of, node_of, task, toy
from tests.same import assert_same_runs, assert_same_state

SHAPES = st.sampled_from([(1, 1), (3, 5), (2, 3, 2, 2), (4, 0)])


@given(st.data(), SHAPES, st.integers(2, 8))
def test_whole_numbers_times_powers_of_two_are_found(data: st.DataObject, shape: tuple[int, ...], bits: int) -> None:
    most = 2 ** (bits - 1) - 1
    whole = data.draw(arrays(np.int8, shape, elements=st.integers(-most, most)))
    exponents = data.draw(arrays(np.int16, shape[0], elements=st.integers(-149, 120)))
    weight = np.ldexp(whole.astype(np.float32), exponents.reshape(-1, *[1] * (len(shape) - 1)))
    found = narrow_of(weight, bits)
    assert found is not None
    assert found.bits <= bits
    assert found.weights().dtype == np.float32
    np.testing.assert_array_equal(found.weights(), weight)


@pytest.mark.parametrize(
    ("row", "values", "exponent", "bits"),
    [
        ([0.5, -1.5, 0.0], [1, -3, 0], -1, 3),
        ([127.0, 1.0], [127, 1], 0, 8),
        ([128.0, 2.0], [64, 1], 1, 8),
        ([2.0**-149, 0.0], [1, 0], -149, 2),
        ([0.0, -0.0], [0, 0], 0, 1),
    ],
)
def test_an_exponent_is_the_largest_that_serves(row: list[float], values: list[int], exponent: int, bits: int) -> None:
    found = narrow_of(np.array([row], np.float32))
    assert found is not None
    assert (found.values.tolist(), found.exponents.tolist(), found.bits) == ([values], [exponent], bits)


@pytest.mark.parametrize("row", [[0.1], [129.0, 1.0], [2.0**100, 2.0**-100]])
def test_weights_that_need_more_bits_are_not_narrow(row: list[float]) -> None:
    weight: FloatArray = np.array([row, [1.0] * len(row)], np.float32)
    assert narrow_of(weight) is None
    assert narrow_of(weight[1:]) is not None


def test_one_output_may_be_far_smaller_than_another() -> None:
    found = narrow_of(np.array([[3.0 * 2**100, 0.0], [2.0**-100, 5 * 2.0**-100]], np.float32))
    assert found is not None
    assert (found.values.tolist(), found.exponents.tolist()) == ([[3, 0], [1, 5]], [100, -100])


def drawn(bits: WeightBits) -> Network:
    """A convolution of 18 weights an output, a recurrent layer and a Linear, all of these bits, drawn with a seed."""
    rng, most = np.random.default_rng(0), 2 ** ((bits or 8) - 1) - 1

    def weights(*shape: int) -> FloatArray:
        exponents = rng.integers(-8, -3, (shape[0], *[1] * (len(shape) - 1)))
        return np.ldexp(rng.integers(-most, most + 1, shape).astype(np.float32), exponents)

    return network_of(
        [
            {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 3}
            | {"kernel_size": 3, "weight_bits": bits},
            {"type": "Flatten", "name": "flat"},
            {"type": "LIF", "name": "lif", "decay": 0.5, "recurrent": {"weight_bits": bits}},
            {"type": "Linear", "name": "fc", "in_features": 27, "out_features": 2, "bias": False, "weight_bits": bits},
            {"type": "IF", "name": "out"},
        ],
        {
            "conv.weight": weights(3, 2, 3, 3),
            "conv.bias": rng.normal(0, 1, 3).astype(np.float32),
            "lif.recurrent.weight": weights(27, 27),
            "fc.weight": weights(2, 27),
        },
        **task([2, 5, 5], 4, ["left", "right"], "spikes"),
    )


BITS: tuple[WeightBits, ...] = (8, 7, 6, 4)


@pytest.mark.parametrize("bits", BITS)
def test_a_bundle_stores_narrow_weights_in_few_bytes_and_answers_as_before(tmp_path: Path, bits: WeightBits) -> None:
    network = drawn(bits)
    plain = Network(network.spec.with_weight_bits({}), network.tensors)
    for each in (network, plain):
        publish(tmp_path, each)
    narrow, wide = (ModelRepository(tmp_path).read("toy", version) for version in (1, 2))
    assert narrow.network.spec == network.spec
    for name, tensor in network.tensors.items():
        np.testing.assert_array_equal(narrow.network.tensors[name], tensor)
    for engine in available():
        narrow.verify(narrow.engine(engine))
        expected, found = (each.engine(engine).run(wide.golden.inputs)[0] for each in (wide, narrow))
        np.testing.assert_array_equal(found.spike_counts, expected.spike_counts)
    # 54 + 729 + 54 weights of a byte, or 18 / 2 * 3 + 14 * 27 + 14 * 2 bytes of two; 3 biases; 32 exponents of 2 bytes.
    stored = (433 if bits == 4 else 837) + 12 + 64
    assert (Complexity(narrow.network).footprint, Complexity(wide.network).footprint) == (stored, 4 * 840)


def test_weights_that_are_not_as_narrow_as_their_node_says_are_a_sentence() -> None:
    network = drawn(8)
    spec = network.spec.with_weight_bits({"fc.weight": 4})
    with pytest.raises(
        InvalidSpec, match=r"tensor 'fc.weight': weight_bits is 4, but the weights of output \d+ are no "
    ):
        Network(spec, network.tensors)


def test_a_bundle_says_the_bits_only_of_narrow_weights(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    publish(tmp_path, Network(toy().spec.with_weight_bits({"fc.weight": 4}), toy().tensors))
    nodes = [json.loads((tmp_path / f"toy/{n}/bundle.json").read_text())["spec"]["nodes"][0] for n in (1, 2)]
    assert "weight_bits" not in nodes[0]
    assert nodes[1] == {**nodes[0], "weight_bits": 4}


INPUTS, NEURONS, STEPS = 1500, 330, 6  # several flushes of 256 rows, and a panel whose last register is short
ONE, TWO = Cores(1), Cores(2, least_work=0.0)  # two split every layer that has two parts


def narrow_values(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> FloatArray:
    """Draw narrow weights, some of the largest that there are in one sign, with an exponent for each output."""
    most = 2 ** (bits - 1) - 1
    whole: NDArray[np.int64] = rng.integers(-most, most + 1, shape)
    whole[0], whole[1], whole[2] = most, -most, 0
    exponents = rng.integers(-12, -8, (shape[0], *[1] * (len(shape) - 1)))
    return np.ldexp(whole.astype(np.float32), exponents)


def network_of_bits(bits: int, *, recurrent: bool, bias: bool) -> Network:
    """Return a layer of narrow weights, recurrent or not; the bias is any floats, which only integers can add up."""
    lif: dict[str, Any] = {"type": "LIF", "decay": 0.77, "threshold": 0.9}
    nodes = [
        {"type": "Linear", "name": "fc", "in_features": INPUTS, "out_features": NEURONS, "bias": bias},
        lif | {"name": "hidden", "recurrent": {"bias": bias, "bias_at_start": not bias} if recurrent else None},
        {"type": "Linear", "name": "last", "in_features": NEURONS, "out_features": 10, "bias": False},
        {"type": "LI", "name": "out", "decay": 0.9},
    ]
    labels = [str(label) for label in range(10)]
    given = {"input": {"shape": [INPUTS]}, "coding": "spikes", "time_steps": STEPS, "labels": labels}
    spec = Spec.read({"nodes": nodes, "readout": "max_membrane"} | given)
    return drawn_network(spec, bits)


def drawn_network(spec: Spec, bits: int) -> Network:
    rng = np.random.default_rng(bits)
    tensors = {
        name: narrow_values(rng, shape, bits)
        if name.endswith("weight")
        else rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in spec.tensor_shapes.items()
    }
    return Network(spec, tensors)


def raster(density: float, batch: int) -> DenseInputs:
    random = np.random.default_rng(batch).random((STEPS, batch, INPUTS))
    return DenseInputs((random < density).astype(np.float32), STEPS)


@pytest.mark.parametrize("bits", [8, 7, 6, 5, 4])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_of_narrow_weights_gives_the_bits_of_the_reference(bits: int, recurrent: bool, bias: bool) -> None:
    network = network_of_bits(bits, recurrent=recurrent, bias=bias)
    assert sums_of(network)["fc"].by is (Summation.INTEGER if bias else Summation.FLOAT32)
    engines = [EventEngine(network, cores=each) for each in (ONE, TWO)]
    assert dict(zip(engines[0].plan.names, engines[0].plan.rows["summed"], strict=True))["last"] == NARROW
    for density, batch in ((0.02, 7), (0.4, 1), (1.0, 1)):
        inputs = raster(density, batch)
        assert assert_same_runs(inputs, ReferenceEngine(network), *engines).rasters["hidden"].any()
        for engine in engines:
            first, later = DenseInputs(inputs.steps[:2], 2), DenseInputs(inputs.steps[2:], STEPS - 2)
            assert_same_state(engine.run(later, engine.run(first)[1])[1], engine.run(inputs)[1])


@pytest.mark.parametrize("value", [2.0, 4.0, 0.3, -1.0])
def test_inputs_that_are_no_spikes_are_added_up_by_their_values(value: float) -> None:
    network = network_of_bits(8, recurrent=True, bias=True)
    spec = Spec.read(network.spec.model_dump(mode="json") | {"input": {"shape": [INPUTS], "low": -4, "high": 4}})
    network, inputs = Network(spec, network.tensors), raster(0.05, 3)
    assert (EventEngine(network).plan.rows["summed"] == NARROW).sum() == 2
    inputs.steps[:, 1:] *= np.float32(value)
    assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network))


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "of one register": {"out_channels": 12, "kernel_size": 5},
    "of a kernel that the padding goes beyond": {"out_channels": 3, "kernel_size": [2, 3], "padding": [1, 1]},
    "of strides": {"out_channels": 40, "kernel_size": 3, "stride": [1, 2], "padding": 1},
    "of many outputs": {"out_channels": 130, "kernel_size": [1, 3]},
    "of more outputs than a panel": {"out_channels": 260, "kernel_size": 2},
    "of spread taps": {"out_channels": 9, "kernel_size": 2, "dilation": 2},
}


@pytest.mark.parametrize("fields", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize(("bits", "pooled"), [(8, False), (7, True), (4, False)])
def test_a_convolution_of_narrow_weights_gives_the_same_bits(fields: dict[str, Any], bits: int, pooled: bool) -> None:
    # 60 channels come first in the input: its events are not in the order of the positions. Those of the pool may be 4.
    side, convolution = 14 if pooled else 7, {"type": "Conv2d", "name": "conv", "in_channels": 60} | fields
    outputs = node_of(convolution).output_shape((60, 7, 7))
    neurons = {"type": "IF", "threshold": 0.9}
    nodes: list[dict[str, Any]] = [
        *([{"type": "SumPool2d", "name": "pool", "kernel_size": 2}] if pooled else []),
        *(convolution, neurons | {"name": "hidden"}, {"type": "Flatten", "name": "flat"}),
        {"type": "Linear", "name": "last", "in_features": math.prod(outputs), "out_features": 3},
        neurons | {"name": "out"},
    ]
    given: dict[str, Any] = {"input": {"shape": [60, side, side]}, "coding": "spikes", "time_steps": STEPS}
    network = drawn_network(Spec.read({"nodes": nodes, "labels": ["a", "b", "c"]} | given), bits)
    engines = [EventEngine(network, cores=each) for each in (ONE, TWO)]
    summed = dict(zip(engines[0].plan.names, engines[0].plan.rows["summed"], strict=True))
    assert (summed["conv"] == NARROW) == (outputs[0] <= 256 and "dilation" not in fields)
    for density, batch in ((0.02, 3), (0.7, 1)):
        random = np.random.default_rng(batch).random((STEPS, batch, 60, side, side))
        inputs = DenseInputs((random < density).astype(np.float32), STEPS)
        found = assert_same_runs(inputs, ReferenceEngine(network), *engines)
        assert density < 0.5 or found.rasters["hidden"].any()
