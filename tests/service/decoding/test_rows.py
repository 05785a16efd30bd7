"""A number that the kernel reads has the bits that a parser gives it, and what it cannot read it leaves alone."""

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spikeserve.models.spec import Input, OutOfRange
from spikeserve.service.inference.decoding.rows import GREATEST, RowReader


def reader(*shape: int, low: float = -GREATEST, high: float = GREATEST, clips: bool = False) -> RowReader:
    declared = SimpleNamespace(
        shape=shape,
        range=(np.float32(low), np.float32(high)),
        out_of_range=OutOfRange.CLIP if clips else OutOfRange.REFUSE,
        factors=(np.float32(1), np.float32(0)),
        resolution=None,
    )
    return RowReader(cast("Any", SimpleNamespace(input=declared)))


@pytest.fixture(scope="module")
def one() -> RowReader:
    return reader(1)


def read(rows: RowReader, text: str) -> list[list[float]] | None:
    """Return the samples that a text holds; None where the kernel leaves it alone."""
    body = f"before{text}after".encode()
    brackets = len(text) - len(text.lstrip("["))
    count = rows.read(body, 6, len(body) - 5, brackets, rows.rows)
    return None if count < 0 else rows.rows[:count].tolist()


decimals = st.builds(
    lambda sign, digits, point, exponent: sign + (digits[:point] or "0") + "." + (digits[point:] or "0") + exponent,
    st.sampled_from(["", "-"]),
    st.integers(1, 10**21).map(str),
    st.integers(0, 21),
    st.sampled_from(["", "e0", "E+5", "e-7", "e-30", "e20", "e-50"]),
)


@given(st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.floats(width=32).map(repr) | decimals)
@example("1" + "0" * 64)  # which 64 bits hold as 0
@example("92233720368547758080")
@example("0.92233720368547758080")
@example("9007199254740993")  # half way between two doubles
@example("0.35506439208984375")  # a double, to the last digit
@example("1e400")
def test_a_number_has_the_bits_of_a_parser_or_is_left_alone(one: RowReader, text: str) -> None:
    found = read(one, f"[[{text}]]")
    if found is not None:
        with np.errstate(over="ignore"):
            wanted = np.array([[json.loads(text)]], np.float32) + np.float32(0)  # the offset, which makes 0 of -0
        assert np.array(found, np.float32).tobytes() == wanted.tobytes()


common = st.just(0.0) | st.floats(1e-30, 255) | st.floats(2**-60, 1, width=32) | st.integers(0, 255)


@given(st.lists(common, min_size=1, max_size=9))
def test_what_clients_write_is_read(one: RowReader, numbers: list[float]) -> None:
    assert read(one, json.dumps([[number] for number in numbers])) == np.array([numbers], np.float32).T.tolist()


@pytest.mark.parametrize(
    "text",
    ["01", "1.", ".5", "+1", "-", "1e", "1e+", "--1", "1 2", "0x1", "NaN", "-0", "1,", ",1", "", "1]", "1[", '"1"'],
)
def test_what_is_no_plain_number_is_left_alone(one: RowReader, text: str) -> None:
    assert read(one, f"[[{text}]]") is None


def test_samples_are_nested_as_the_shape_or_flat_and_nothing_else() -> None:
    rows = reader(2, 1, 2)
    wanted = [[1.0, 2.0, 3.0, 4.0]]
    for text in ("[[[[1,2]],[[3,4]]]]", "[[1,2,3,4]]", "[1,2,3,4]", "[[ 1, 2,\n3,\t4 ] ]"):
        assert read(rows, text) == wanted
    assert read(rows, "[[1,2,3,4],[1,2,3,4]]") == wanted * 2
    for text in ("[[[[1,2],[3,4]]]]", "[[[[1,2]],[3,4]]]", "[[1,2,3]]", "[[1,2,3,4,5]]", "[[1,2,3,4],[1]]", "[[]]"):
        assert read(rows, text) is None
    assert read(rows, "[[1,2,3,4]] ") is None


def test_a_value_beyond_the_range_is_left_alone_or_becomes_its_end() -> None:
    assert read(reader(1, low=0, high=2), "[[2],[0]]") == [[2.0], [0.0]]
    assert read(reader(1, low=0, high=2), "[[2.000001]]") is None
    assert read(reader(1, low=-1, high=2, clips=True), "[[3],[-5],[1]]") == [[2.0], [-1.0], [1.0]]


@given(
    st.lists(st.integers(-2000, 18000).map(lambda n: n / 1000), min_size=2, max_size=2), st.sampled_from([None, 0.25])
)
def test_a_value_is_normalised_to_the_bit_as_the_input_says(values: list[float], resolution: float | None) -> None:
    declared = Input(
        shape=(2,), low=-2, high=18, scale=(0.3, 1 / 3), offset=(0.1, -0.7), resolution=resolution,
        out_of_range=OutOfRange.CLIP,
    )  # fmt: skip
    rows = RowReader(cast("Any", SimpleNamespace(input=declared)))
    assert read(rows, json.dumps([values])) == declared.normalise(np.array([values], np.float32)).tolist()


def test_there_are_no_more_samples_than_rows(one: RowReader) -> None:
    most = len(one.rows)
    assert read(one, json.dumps([[1]] * most)) == [[1.0]] * most
    assert read(one, json.dumps([[1]] * (most + 1))) is None
