"""The input: raw values of any unit become currents, each feature by its own normalisation, and never by surprise."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from spikeserve.models.coding import encode
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Input, Spec
from tests.networks import toy


def spec(coding: Coding = Coding.DIRECT, **declared: Any) -> Spec:
    """Return the toy's spec, of two inputs, with another declaration of them."""
    plain = toy(coding).spec
    return plain.model_copy(update={"input": Input(shape=(2,), **declared)})


def test_each_feature_has_its_own_normalisation() -> None:
    # 20 to 30 degrees become -1 to 1 by 0.2 * value - 5, and 100,000 to 102,000 pascal by 0.001 * value - 101.
    weather = spec(low=(20, 100_000), high=(30, 102_000), scale=(0.2, 0.001), offset=(-5, -101))
    steps = encode(np.array([[22.5, 101_500]], np.float32), weather).steps
    np.testing.assert_allclose(steps, [[[-0.5, 0.5]]], atol=1e-5)
    assert weather.input.normalised_range == pytest.approx((-1, 1), abs=1e-5)


def test_one_number_for_each_channel_is_that_of_all_its_pixels() -> None:
    declared = Input(shape=(2, 2, 1), low=-8, high=8, scale=(1, 2), offset=(0, -1))
    values = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    assert declared.normalise(values).ravel().tolist() == [0, 1, 3, 5]  # 0, 1 as they are; 2 * 2 - 1 and 2 * 3 - 1


def test_one_number_for_each_value_is_read_row_by_row() -> None:
    declared = Input(shape=(2, 2), low=-8, high=8, scale=(1, 2, 3, 4))
    assert declared.normalise(np.ones((1, 2, 2), np.float32)).tolist() == [[[1, 2], [3, 4]]]


def test_a_time_series_is_normalised_alike_at_every_step() -> None:
    series = spec(Coding.CURRENT, low=-8, high=8, scale=(1, 2), offset=(0, -1))
    steps = encode(np.array([[[1, 1], [2, 2], [3, 3]]], np.float32), series).steps
    assert steps[:, 0].tolist() == [[1, 1], [2, 3], [3, 5]]


def test_a_value_outside_is_taken_for_the_nearest_end_where_the_input_clips() -> None:
    clipped = spec(high=(1, 10), out_of_range="clip")
    assert encode(np.array([[5, 5], [-3, 99]], np.float32), clipped).steps.tolist() == [[[1, 5], [0, 10]]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_refused_even_where_the_input_clips(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"^inputs\[0\]\[1\] is \S+, expected a finite number$"):
        encode(np.array([[0, value]], np.float32), spec(out_of_range="clip"))


def test_the_range_of_a_huge_declared_shape_costs_nothing() -> None:
    # An array of that shape would be 8 TiB, which no machine here gives.
    assert Input(shape=(2**20, 2**21), low=-1, high=3, scale=0.5).normalised_range == (-0.5, 1.5)


def test_a_resolution_rounds_the_normalised_value_half_to_even() -> None:
    # In quarters: 0.3 lies at 1.2, so that it is 0.25; 0.375 halfway between 1 and 2, which is even, so 0.5.
    rounded = spec(resolution=0.25)
    assert encode(np.array([[0.3, 0.375]], np.float32), rounded).steps.tolist() == [[[0.25, 0.5]]]
    assert spec(scale=0.3, resolution=0.25).input.normalised_range == (0, 0.25)


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"shape": [2, 3], "scale": [1, 1, 1]}, r"input: scale has 3 numbers, but the shape 2×3 needs one, 2 \(one fo"),
        ({"shape": [2], "low": [0, 2], "high": [1, 2]}, "input: low is 2 and high is 2; low must be less than high"),
        ({"shape": [2], "high": [1, 0]}, "input: low is 0 and high is 0"),
        ({"shape": [2], "low": []}, "at least 1 item"),
        ({"shape": [2], "scale": [1, 1e39]}, "does not fit into float32"),
        ({"shape": [2], "high": 1e38, "scale": 100}, "beyond float32 for a value of the declared range"),
        ({"shape": [2], "resolution": 0.3}, "expected a power of two"),
        ({"shape": [2], "resolution": 0}, "greater than 0"),
        ({"shape": [2, 2], "feature_names": ["a"]}, "input: feature_names has 1, expected one for each value"),
        ({"shape": [1], "feature_names": ["a" * 201]}, "at most 200 characters"),
        ({"shape": [2], "out_of_range": "wrap"}, "'refuse' or 'clip'"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(declared: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Input.model_validate(declared)


def test_a_declaration_is_the_same_after_a_way_through_json() -> None:
    declared = Input(shape=(2,), low=(0.1, -3), high=(0.7, 3e38), scale=(1 / 3, 1e-30), offset=-0.1, resolution=2**-6)
    assert Input.model_validate_json(declared.model_dump_json()) == declared
