"""Tensors between JSON, bytes and NumPy: what goes out comes back, whatever the datatype and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.inference.v2.errors import InvalidRequest
from service.inference.v2.tensors import DTYPES, Datatype, from_bytes, from_json, json_values, to_bytes, to_float32

finite = {"allow_nan": False, "allow_infinity": False}
tensors = st.sampled_from(list(DTYPES)).flatmap(
    lambda datatype: st.tuples(
        st.just(datatype),
        arrays.arrays(
            DTYPES[datatype],
            arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
            elements=finite if DTYPES[datatype].kind == "f" else None,
        ),
    )
)


@given(tensors)
def test_nested_flat_and_bytes_are_the_same_tensor(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    for read in (
        from_json(array.tolist(), datatype, array.shape, "data") if array.size else array,
        from_json(json_values(array), datatype, array.shape, "data"),
        from_bytes(memoryview(to_bytes(array, datatype)), datatype, array.shape, "data"),
    ):
        assert read.dtype == array.dtype
        assert read.shape == array.shape
        assert read.tobytes() == array.tobytes()


@given(tensors)
def test_float32_holds_it_exactly_or_it_is_refused(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    if datatype is Datatype.FP64:
        return  # rounded, as any number in JSON is
    try:
        single = to_float32(array, "data")
    except InvalidRequest:
        assert max(map(abs, map(int, array.ravel()))) > 2**24
    else:
        assert single.dtype == np.float32
        assert [
            value == exact for value, exact in zip(single.ravel().tolist(), array.ravel().tolist(), strict=True)
        ] == [True] * array.size


def test_text_has_its_length_before_it() -> None:
    texts = np.array([["a", "é"], ["", "xyz"]], object)
    assert to_bytes(texts, Datatype.BYTES) == b"\1\0\0\0a\2\0\0\0\xc3\xa9\0\0\0\0\3\0\0\0xyz"


def test_a_shape_whose_product_overflows_is_no_more_than_a_number() -> None:
    with pytest.raises(InvalidRequest, match="expected 85070591730234615847396907784232501249 for shape"):
        from_json([1.0], Datatype.FP32, (2**63 - 1, 2**63 - 1), "data")
