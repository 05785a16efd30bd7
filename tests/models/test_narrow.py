"""Narrow weights are found by their values alone, and are exactly the weights that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spikeserve.models.spec.narrow import narrow_of
from spikeserve.models.spec.network import FloatArray

SHAPES = st.sampled_from([(1, 1), (3, 5), (2, 3, 2, 2), (4, 0)])


@given(st.data(), SHAPES, st.integers(2, 8))
def test_whole_numbers_times_powers_of_two_are_found_and_multiply_out_to_the_bit(
    data: st.DataObject, shape: tuple[int, ...], bits: int
) -> None:
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
