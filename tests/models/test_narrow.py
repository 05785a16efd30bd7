"""Narrow weights are found by their values alone, and are exactly the weights that they stand for."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import available, create
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.narrow import narrow_of
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.plugins.report.complexity import Complexity
from tests.bundles import publish
from tests.models.test_wide import image
from tests.networks import network_of, task, toy

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
        ([3.0 * 2**100, 0.0], [3, 0], 100, 3),
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


def drawn(bits: WeightBits) -> Network:
    """A convolution of 18 weights an output, and a Linear, all of these bits, drawn with a seed; see test_wide."""
    network = image(f"{bits or 8} bits", (2, 5, 5), out_channels=3)
    return Network(network.spec.with_weight_bits({"conv.weight": bits, "fc.weight": bits}), network.tensors)


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
    # 54 + 81 weights of a byte, or 18 / 2 * 3 + 14 * 3 bytes of two; 6 biases; 6 exponents of 2 bytes.
    stored = (69 if bits == 4 else 135) + 24 + 12
    assert (Complexity(narrow.network).footprint, Complexity(wide.network).footprint) == (stored, 4 * 141)


def test_a_sum_that_its_bias_keeps_within_float32_is_added_to_it() -> None:
    # On `torch` and `onnx`, which add the bias last, it is infinite.
    linear = {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 1}
    weights = {"fc.weight": [[2.0**127] * 2], "fc.bias": [-(2.0**127)]}
    membrane = {"type": "LI", "name": "out", "decay": 0.0}
    huge = network_of([linear, membrane], weights, **task(2, 1, 1, "spikes", readout="last_membrane"))
    read = create("event", huge).run(DenseInputs(np.ones((1, 1, 2), np.float32), 1))[0].readout
    assert read.item() == 2.0**127


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
